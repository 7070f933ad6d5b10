"""The applications that models bring, behind the routes of our own: what these do not answer goes to them."""

from __future__ import annotations

from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any

from servery_sdk.applications import Message, Receive, Send
from servery_sdk.errors import ErrorCode

from servery_predictor.dataplane import DataPlane
from servery_predictor.errors import HTTP, ModelNotReady
from servery_predictor.openai_api import errors
from servery_predictor.openai_api.routes import PROTOCOL

_KSERVES = "/openai"
"""What KServe has before OpenAI's paths, and the applications have not."""
_CODES = {status: code for code, status in reversed(HTTP.items())}


class Mounted:
    """An ASGI application that hands every request to that of the model that is loaded.

    A runtime that brings one serves one model; its adapters are the application's own affair.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, and be counted as a user of the model meanwhile: it is not given back under a text."""
        if scope["type"] != "http":
            # The front refuses to switch protocols, so there is nobody to tell.
            return
        found = self._plane.repository.applications()
        if not found:
            await _refuse(send)
            return
        (entry, model), *_ = found
        heard = _Heard(receive, send)
        with entry.users:
            try:
                await model.application()(_without_prefix(scope), heard.receive, heard.send)
            finally:
                if scope["method"] == "POST":
                    self._plane.metrics.requests.labels(entry.name, PROTOCOL, heard.code).inc()


class _Heard:
    """Listens to what an application says, for the code that is counted."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._status, self._is_over, self._is_gone = 500, False, False

    @property
    def code(self) -> str:
        if self._is_gone:
            return "CANCELLED"
        if self._status < HTTPStatus.BAD_REQUEST:
            return "OK"
        is_theirs = self._status < HTTPStatus.INTERNAL_SERVER_ERROR
        return _CODES.get(self._status, ErrorCode.INVALID_ARGUMENT if is_theirs else ErrorCode.INTERNAL)

    async def receive(self) -> Message:
        message = await self._receive()
        # After the last piece everybody goes.
        self._is_gone |= message["type"] == "http.disconnect" and not self._is_over
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif not message.get("more_body", False):
            self._is_over = True
        await self._send(message)


def _without_prefix(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    path: str = scope["path"]
    if not path.startswith(f"{_KSERVES}/"):
        return scope
    return {**scope, "path": path.removeprefix(_KSERVES)}


async def _refuse(send: Send) -> None:
    answer = errors.response(ModelNotReady("the model is not loaded"))
    headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
