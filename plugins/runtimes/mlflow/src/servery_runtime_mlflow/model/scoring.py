"""MLflow's scoring server: ``/invocations``, ``/ping``, ``/health``, ``/version``.

Source: MLflow, "Deploy models: local inference server specification"; ``mlflow.pyfunc.scoring_server`` for statuses.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import mlflow
import orjson
import pandas as pd
from mlflow.types import DataType
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, RequestError, v1
from servery_sdk.routes import Answer, Asked, Host, Route

from servery_runtime_mlflow.model.signature import Port

PROTOCOL = "mlflow"
JSON, CSV = "application/json", "text/csv"
_WORDS = {
    ErrorCode.INVALID_ARGUMENT: (400, "BAD_REQUEST"),
    ErrorCode.NOT_FOUND: (404, "RESOURCE_DOES_NOT_EXIST"),
    ErrorCode.NOT_READY: (503, "TEMPORARILY_UNAVAILABLE"),
    ErrorCode.UNAVAILABLE: (503, "TEMPORARILY_UNAVAILABLE"),
    ErrorCode.RESOURCE_EXHAUSTED: (429, "REQUEST_LIMIT_EXCEEDED"),
    ErrorCode.DEADLINE_EXCEEDED: (504, "DEADLINE_EXCEEDED"),
    ErrorCode.UNIMPLEMENTED: (501, "NOT_IMPLEMENTED"),
    ErrorCode.INTERNAL: (500, "INTERNAL_ERROR"),
}
_TEXTS = frozenset({DataType.string, DataType.binary, DataType.datetime})
"""Columns that a CSV's reader shall not guess the type of."""


@runtime_checkable
class SignedModel(Protocol):
    """A model that knows what it takes."""

    @property
    def inputs(self) -> Sequence[Port]:
        """Of its signature; empty without one."""


def routes(host: Host) -> tuple[Route, ...]:
    """Return the API over the only model of ``host``."""

    async def ping(_: Asked) -> Answer:
        return Answer(status=200 if host.is_ready else 404, body=b"\n")

    async def version(_: Asked) -> Answer:
        return Answer(body=mlflow.__version__.encode())

    async def invocations(asked: Asked) -> Answer:
        try:
            (model,) = host.models()
            kind = _kind(asked.headers.get("content-type", JSON))
            if kind == CSV:
                # Of one that is not loaded no types are known; the answer will say why it is not.
                ports = model.loaded.inputs if isinstance(model.loaded, SignedModel) else ()
                request = await asyncio.to_thread(table, asked.body, ports, model=model.name)
            else:
                request = v1.decode_request(asked.body, model=model.name)
            return Answer(body=encoded(await host.infer(request, protocol=PROTOCOL)))
        except _UnknownContent as failure:
            return Answer(status=415, body=str(failure).encode(), content_type="text/plain; charset=utf-8")
        except ServeryError as failure:
            status, word = _WORDS[failure.code]
            return Answer(status=status, body=orjson.dumps({"error_code": word, "message": str(failure)}))

    return (
        Route(method="GET", path="/ping", handle=ping, summary="Tell whether the model answers", failures=_AWAY),
        Route(method="GET", path="/health", handle=ping, summary="Tell whether the model answers", failures=_AWAY),
        Route(method="GET", path="/version", handle=version, summary="Tell MLflow's version"),
        Route(
            method="POST",
            path="/invocations",
            handle=invocations,
            summary="Ask the model",
            takes=(JSON, CSV),
            failures={"400": "the request is wrong", "415": "a body of another kind", "503": "not ready"},
        ),
    )


_AWAY = {"404": "it is not loaded"}


class _UnknownContent(Exception):
    """A body of a kind that nobody reads."""


def _kind(content_type: str) -> str:
    """Return what the body is.

    Raises:
        _UnknownContent: It is neither JSON nor CSV in UTF-8.
    """
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    others = [part for part in parameters if part and part.replace('"', "") != "charset=utf-8"]
    if kind not in (JSON, CSV) or others:
        raise _UnknownContent(f"content-type: {content_type!r}; {JSON} and {CSV} are taken, in UTF-8")
    return kind


def table(body: bytes, ports: Sequence[Port], *, model: str) -> InferRequest:
    """Return the columns of a CSV with a line of names, as ``pandas.DataFrame.to_csv(index=False)`` writes it.

    Args:
        ports: Columns that they call texts are read as such, whatever they look like.

    Raises:
        RequestError: It is none; says where it breaks.
    """
    texts = {port.name: str for port in ports if port.is_column and port.is_plain and port.kind in _TEXTS}
    try:
        found = pd.read_csv(io.BytesIO(body), dtype=texts)
    except (ValueError, pd.errors.ParserError) as error:
        raise RequestError(f"the body is no CSV with a line of names: {error}") from error
    if not len(found):
        raise RequestError(f"the CSV has no rows; it has columns: {', '.join(map(str, found.columns)) or 'none'}")
    columns = tuple(v1.tensor(str(name), values.tolist()) for name, values in found.items())
    return InferRequest(model=model, inputs=columns, parameters={"content_type": "pd"})


def encoded(response: InferResponse) -> bytes:
    """Return the answer: rows of a table as objects, values by name as they are, anything else as a list."""
    kind = response.parameters.get("content_type")
    found: Json
    if kind == "dict":
        found = {output.name: v1.predictions(replace(response, outputs=(output,))) for output in response.outputs}
    else:
        found = v1.predictions(replace(response, rows_are_objects=kind == "pd"))
    return orjson.dumps({"predictions": found}, option=orjson.OPT_SERIALIZE_NUMPY)
