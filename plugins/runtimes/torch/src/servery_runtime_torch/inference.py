"""TorchServe's inference API: ``/ping``, ``/predictions``, ``/explanations``.

Source: TorchServe, "Inference API"; its frontend for words and statuses, its ``service.py`` for what a handler is given.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, RequestError, Tensor, v1
from servery_sdk.protocol.elements import as_bytes, objects
from servery_sdk.routes import Answer, Asked, Handle, Host, Route

from servery_runtime_torch import multipart, rows
from servery_runtime_torch.multipart import Part

PROTOCOL = "torchserve"
BODY = "body"
"""What a handler finds a request's body under, where it is no form."""
_REQUEST_ID = "x-request-id"
_FAILURES = {
    ErrorCode.INVALID_ARGUMENT: (400, "BadRequestException"),
    ErrorCode.NOT_FOUND: (404, "ModelNotFoundException"),
    ErrorCode.NOT_READY: (503, "ServiceUnavailableException"),
    ErrorCode.UNAVAILABLE: (503, "ServiceUnavailableException"),
    ErrorCode.RESOURCE_EXHAUSTED: (503, "ServiceUnavailableException"),
    ErrorCode.DEADLINE_EXCEEDED: (500, "InternalServerException"),
    ErrorCode.UNIMPLEMENTED: (501, "NotImplementedException"),
    ErrorCode.INTERNAL: (500, "InternalServerException"),
}
_BARE = frozenset({"", "body", "kfservingv2", "kservev2"})
"""No envelope, and those without ``instances``: requests of all others hold them, whatever path they come by."""
_VALUE = "body"
"""The envelope whose handlers are given the value itself."""


def routes(host: Host, envelope: str) -> tuple[Route, ...]:
    """Return the API over ``host``.

    Args:
        envelope: TorchServe's ``service_envelope``.
    """

    async def ping(_: Asked) -> Answer:
        return said({"status": "Healthy" if host.is_ready else "Unhealthy"}, 200 if host.is_ready else 500)

    def asking(*, explain: bool) -> Handle:
        async def ask(asked: Asked) -> Answer:
            name = host.model(asked.path["model"], asked.path.get("version")).name
            request, is_wrapped = decoded(asked, name, envelope)
            response = await host.infer(request, protocol=PROTOCOL, explain=explain)
            if is_wrapped:
                return Answer(body=v1.encode_response(response, member="explanations" if explain else "predictions"))
            return encoded(response)

        return ask

    served = [
        Route(
            method=method,
            path=f"/{verb}/{{model}}{version}",
            handle=answering(asking(explain=explain)),
            summary=f"{summary} of one version" if version else summary,
            takes=("application/octet-stream", "application/json", "text/plain", "multipart/form-data"),
            failures=FAILURES,
        )
        for verb, explain, summary in (
            ("predictions", False, "Ask a model"),
            ("explanations", True, "Ask what a model's answer comes from"),
        )
        for version in ("", "/{version}")
        # ``curl -T`` puts.
        for method in ("POST", "PUT", "GET")
    ]
    health = Route(
        method="GET",
        path="/ping",
        handle=answering(ping),
        summary="Tell whether every model answers",
        failures={"500": "one does not"},
    )
    return (health, *served)


FAILURES = {"400": "the request is wrong", "404": "no such model or version", "503": "not ready, or too many wait"}


def answering(handle: Callable[[Asked], Awaitable[Answer]]) -> Handle:
    """Return ``handle`` with TorchServe's words for failures, and a number for each request."""

    async def answer(asked: Asked) -> Answer:
        try:
            found = await handle(asked)
        except ServeryError as failure:
            status, kind = _FAILURES[failure.code]
            found = refused(status, kind, str(failure))
        if _REQUEST_ID in asked.headers:
            # The front gives it back.
            return found
        return Answer(
            status=found.status,
            body=found.body,
            content_type=found.content_type,
            headers={**found.headers, _REQUEST_ID: str(uuid.uuid4())},
        )

    return answer


def said(document: Any, status: int = 200) -> Answer:
    """Return a JSON document as TorchServe writes it."""
    return Answer(
        status=status, body=orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    )


def refused(status: int, kind: str, message: str) -> Answer:
    """Return TorchServe's form of a failure."""
    return said({"code": status, "type": kind, "message": message}, status)


def decoded(asked: Asked, model: str, envelope: str) -> tuple[InferRequest, bool]:
    """Return the request of one row, and whether it came as ``instances`` and is answered so.

    Raises:
        InputError: A form that cannot be read.
        RequestError: ``instances`` that cannot.
    """
    content_type = asked.headers.get("content-type", "")
    version = asked.path.get("version")
    if (request := of_instances(asked.body, model, version, envelope)) is not None:
        return request, True
    between = multipart.boundary(content_type)
    sent = [Part(name, "text/plain", value.encode()) for name, value in asked.query.items()]
    if between is not None:
        sent += multipart.parts(asked.body, between)
    elif asked.body or not sent:
        sent.append(Part(BODY, content_type.partition(";")[0].strip().lower(), asked.body))
    return of_fields(sent, model, version, envelope), False


def of_instances(body: bytes, model: str, version: str | None, envelope: str) -> InferRequest | None:
    """Return the request of the ``instances`` that ``envelope`` wraps; None where the body holds none.

    Raises:
        RequestError: ``instances`` that cannot be read.
    """
    if envelope in _BARE or not body.lstrip().startswith(b"{"):
        return None
    try:
        request = v1.decode_request(body, model=model)
    except RequestError:
        if _holds_instances(body):
            raise
        return None
    request.version = version
    return request


def of_fields(sent: Sequence[Part], model: str, version: str | None, envelope: str) -> InferRequest:
    """Return the request of one row that has these fields."""
    tensors = [_tensor(name, found) for name, found in multipart.by_name(sent).items()]
    if envelope == _VALUE:
        chosen = next((tensor for tensor in tensors if tensor.name in ("data", BODY)), tensors[0])
        chosen.name = v1.INPUT
        tensors = [chosen]
    return InferRequest(model=model, version=version, inputs=tuple(tensors))


def _holds_instances(body: bytes) -> bool:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return "instances" in document or "inputs" in document


def _tensor(name: str, found: list[Part]) -> Tensor:
    """Return the values of one field, ``[1]``, or of several of one name, ``[1, fields]``."""
    kinds = {_kind(part.content_type) for part in found}
    # Of several kinds none is read: a handler is given the bytes.
    kind = kinds.pop() if len(kinds) == 1 else rows.RAW
    data = objects([part.data for part in found]).reshape((1, len(found)) if len(found) > 1 else 1)
    return Tensor(name=name, data=data, datatype=Datatype.BYTES, parameters={v1.CONTENT_TYPE: kind})


def _kind(content_type: str) -> str:
    if content_type == "application/json":
        return v1.JSON
    return rows.TEXT if content_type.startswith("text") else rows.RAW


def encoded(response: InferResponse) -> Answer:
    """Return the handler's answer to the only row: a text or bytes as they are, anything else as JSON."""
    output = response.outputs[0]
    if output.datatype is not Datatype.BYTES:
        return said(output.data[0])
    data = as_bytes(output.data.ravel()[0])
    if output.parameters.get(v1.CONTENT_TYPE) == v1.JSON:
        return said(orjson.loads(data))
    try:
        data.decode()
    except UnicodeDecodeError:
        return Answer(body=data, content_type="application/octet-stream")
    return Answer(body=data, content_type="text/plain; charset=utf-8")
