"""Texts in, texts out: ``generate`` with one answer, ``generate_stream`` with an event for each response.

A model of language continues ``text_input``. Of any other, members of the body with the name of an input are that input,
and the rest are parameters.

Source: Triton's generate extension.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from servery_http.messages import Handler, Request, Response
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.language import GenerativeModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, TensorMetadata
from servery_sdk.protocol.elements import as_text, from_json
from servery_sdk.protocol.v1 import load
from servery_sdk.serving import held

from servery_predictor import errors
from servery_predictor.dataplane import DataPlane
from servery_predictor.openai_api.generating import Run
from servery_predictor.openai_api.requests import CompletionRequest, read
from servery_predictor.openai_api.routes import failed
from servery_predictor.repository import Entry

TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"
PROTOCOL = "generate"
_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_NO_STORE = ((b"cache-control", b"no-cache"),)
_NOT_SAMPLING = ("echo", "logprobs", "model", "n", "prompt", "stream", "stream_options")
"""What OpenAI's body has and a ``generate`` does not mean."""

Answer = dict[str, Any]


class WrongGenerate(ServeryError):
    """The body does not fit the model, or the model not the route."""

    code = ErrorCode.INVALID_ARGUMENT


class GenerateRoutes:
    """``POST /v2/models/{m}[/versions/{v}]/generate`` and ``generate_stream``."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def handler(self, model: str, version: str | None, *, is_streamed: bool) -> Handler:
        """Return the handler of one path."""

        async def handle(request: Request) -> Response:
            try:
                answers = self._answers(request.body, model, version, is_streamed=is_streamed)
                return await (_streamed(answers) if is_streamed else _only(answers))
            except ServeryError as failure:
                return errors.response(failure)

        return handle

    def _answers(
        self, body: bytes, name: str, version: str | None, *, is_streamed: bool
    ) -> AsyncGenerator[Answer, None]:
        """Return the answers to come.

        Raises:
            ServeryError: The body does not fit, or the model is not there.
        """
        self._plane.repository.batcher(name, version)
        entry = self._plane.repository.entry(name, version)
        document = load(body)
        model = held(entry.model)
        if isinstance(model, GenerativeModel):
            return self._texts(document, entry, model, is_streamed=is_streamed)
        return self._responses(_request(document, entry, name, version))

    async def _texts(
        self, document: Mapping[str, Any], entry: Entry, model: GenerativeModel, *, is_streamed: bool
    ) -> AsyncGenerator[Answer, None]:
        given = {name: value for name, value in document.items() if name not in (TEXT_INPUT, "parameters")}
        sampling = {**given, **_parameters(document)}
        told = {name: value for name, value in sampling.items() if name not in _NOT_SAMPLING}
        code = "OK"
        try:
            if not isinstance(document.get(TEXT_INPUT), str):
                raise WrongGenerate(f"{TEXT_INPUT}: send the text that is to be continued")
            asked = read(CompletionRequest, orjson.dumps({**told, "model": entry.name, "prompt": document[TEXT_INPUT]}))
            run = Run(
                model,
                entry,
                asked.prompts,
                asked.sampling,
                choices=1,
                stops=asked.stops,
                is_streamed=is_streamed,
                metrics=self._plane.metrics,
                timeout_seconds=self._plane.repository.timeout_seconds,
            )
            if not is_streamed:
                (choice,) = await run.answers()
                yield _named(entry.name, entry.versions, {TEXT_OUTPUT: choice.text})
                return
            async with aclosing(run.pieces()) as pieces:
                async for _, piece in pieces:
                    if piece.text or piece.finish:
                        yield _named(entry.name, entry.versions, {TEXT_OUTPUT: piece.text})
        except ServeryError as failure:
            code = failure.code
            raise
        except Exception as error:
            # Somebody else's model may raise anything.
            code = ErrorCode.INTERNAL
            raise failed(entry.name, error) from error
        finally:
            self._plane.metrics.requests.labels(entry.name, PROTOCOL, code).inc()

    async def _responses(self, request: InferRequest) -> AsyncGenerator[Answer, None]:
        parts = self._plane.stream(request, protocol=PROTOCOL)
        try:
            async for outcome, _ in parts:
                if isinstance(outcome, ServeryError):
                    raise outcome
                if outcome is not None:
                    yield _flat(outcome)
        finally:
            parts.cancel()


def _request(document: Mapping[str, Any], entry: Entry, name: str, version: str | None) -> InferRequest:
    """Return the members of a body as tensors and parameters.

    Raises:
        RequestError: A member does not fit the input of its name.
        WrongGenerate: No member is an input.
    """
    # A model that says nothing of itself takes a text.
    described = entry.metadata.inputs if entry.metadata is not None else ()
    inputs = {
        one.name: one for one in described or (TensorMetadata(name=TEXT_INPUT, datatype=Datatype.BYTES, shape=(-1,)),)
    }
    members = {**{key: value for key, value in document.items() if key != "parameters"}, **_parameters(document)}
    tensors = tuple(_tensor(inputs[key], value) for key, value in members.items() if key in inputs)
    if not tensors:
        raise WrongGenerate(
            f"model {name!r} takes {', '.join(sorted(inputs))}; found: {', '.join(members) or 'nothing'}"
        )
    parameters = {key: value for key, value in members.items() if key not in inputs and key != "id"}
    for key, value in parameters.items():
        if not isinstance(value, str | int | float | bool):
            raise WrongGenerate(f"{key}: a parameter is a string, a number or a boolean, found {type(value).__name__}")
    identity = None if "id" in inputs or "id" not in members else str(members["id"])
    return InferRequest(model=name, version=version, id=identity, inputs=tensors, parameters=parameters)


def _parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise WrongGenerate("parameters: must be an object")
    return parameters


def _tensor(described: TensorMetadata, value: Any) -> Tensor:
    data = value if isinstance(value, list) else [value]
    shape = _shape(described.shape, len(data))
    array = from_json(described.name, described.datatype, shape, data)
    return Tensor(name=described.name, data=array, datatype=described.datatype)


def _shape(described: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the shape of so many elements: open lengths are 1, but for the last of them."""
    fixed = math.prod(length for length in described if length >= 0)
    shape = [1 if length < 0 else length for length in described]
    if -1 in described and fixed:
        shape[len(described) - 1 - described[::-1].index(-1)] = count // fixed
    return tuple(shape)


def _flat(response: InferResponse) -> Answer:
    """Return outputs by their names: one element as itself, several as a list."""
    values: Answer = {}
    for output in response.outputs:
        elements = [as_text(one) if isinstance(one, bytes) else one for one in output.data.ravel().tolist()]
        values[output.name] = elements[0] if len(elements) == 1 else elements
    version = (response.version,) if response.version is not None else ()
    identity = {} if response.id is None else {"id": response.id}
    parameters = {"parameters": dict(response.parameters)} if response.parameters else {}
    return {**identity, **_named(response.model, version, values), **parameters}


def _named(model: str, versions: tuple[str, ...], values: Answer) -> Answer:
    return {"model_name": model, "model_version": versions[-1] if versions else "1", **values}


async def _only(answers: AsyncGenerator[Answer, None]) -> Response:
    async with aclosing(answers):
        found = [answer async for answer in answers]
    if len(found) != 1:
        raise WrongGenerate(
            "generate expects model to produce exactly 1 response, "
            "use generate stream for model that generates various number of responses"
        )
    return Response(body=orjson.dumps(found[0]))


async def _streamed(answers: AsyncGenerator[Answer, None]) -> Response:
    try:
        # What is wrong from the start has a status of its own.
        first = await anext(answers, None)
    except BaseException:
        await answers.aclose()
        raise
    return Response(stream=_Events(first, answers), content_type=_EVENT_STREAM, headers=_NO_STORE)


class _Events:
    """A stream of answers, of which one is here; closing it stops the model."""

    def __init__(self, first: Answer | None, answers: AsyncGenerator[Answer, None]) -> None:
        self._answers = answers
        self._written = self._write(first)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._written

    async def _write(self, first: Answer | None) -> AsyncGenerator[bytes, None]:
        if first is not None:
            yield _event(first)
        try:
            async for answer in self._answers:
                yield _event(answer)
        except ServeryError as failure:
            # The status has been sent.
            yield _event({"error": str(failure)})

    async def aclose(self) -> None:
        """Want no more."""
        await self._written.aclose()
        await self._answers.aclose()


def _event(document: Answer) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(document)
