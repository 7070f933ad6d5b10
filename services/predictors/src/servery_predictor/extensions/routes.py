"""The extensions' REST routes that are not hot.

Source: Triton's protocol extensions: shared memory, statistics, trace, logging.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from servery_sdk.errors import ErrorCode, ServeryError

from servery_predictor.dataplane import DataPlane
from servery_predictor.extensions.statistics import statistics


class WrongBody(ServeryError):
    """A body that is not what the route takes."""

    code = ErrorCode.INVALID_ARGUMENT


def add(app: FastAPI, plane: DataPlane) -> None:
    """Add them."""
    _add_statistics(app, plane)
    _add_shared_memory(app, plane)
    _add_settings(app, plane)


def _add_statistics(app: FastAPI, plane: DataPlane) -> None:
    @app.get("/v2/models/stats")
    @app.get("/v2/models/{model}/stats", responses=_ERRORS)
    @app.get("/v2/models/{model}/versions/{version}/stats", responses=_ERRORS)
    async def model_statistics(model: str = "", version: str | None = None) -> dict[str, Any]:
        return statistics(plane.repository, plane.metrics, model, version)


def _add_shared_memory(app: FastAPI, plane: DataPlane) -> None:
    memory = plane.offered.shared_memory

    @app.get("/v2/systemsharedmemory/status", responses=_ERRORS)
    @app.get("/v2/systemsharedmemory/region/{region}/status", responses=_ERRORS)
    async def system_status(region: str = "") -> list[dict[str, Any]]:
        return memory.status(region)

    @app.post("/v2/systemsharedmemory/region/{region}/register", responses=_ERRORS, openapi_extra=_SYSTEM)
    async def register_system(region: str, request: HttpRequest) -> dict[str, Any]:
        body = await _document(request)
        key, offset, size = (_member(body, name, default) for name, default in _SYSTEM_MEMBERS.items())
        memory.register_system(region, key, offset, size)
        return {}

    @app.post("/v2/systemsharedmemory/unregister", responses=_ERRORS)
    @app.post("/v2/systemsharedmemory/region/{region}/unregister", responses=_ERRORS)
    async def unregister_system(region: str = "") -> dict[str, Any]:
        memory.unregister(region)
        return {}

    @app.get("/v2/cudasharedmemory/status", responses=_ERRORS)
    @app.get("/v2/cudasharedmemory/region/{region}/status", responses=_ERRORS)
    async def cuda_status(region: str = "") -> list[dict[str, Any]]:
        return memory.status(region, is_cuda=True)

    @app.post("/v2/cudasharedmemory/region/{region}/register", responses=_ERRORS, openapi_extra=_CUDA)
    async def register_cuda(region: str, request: HttpRequest) -> dict[str, Any]:
        body = await _document(request)
        handle, device, size = (_member(body, name, default) for name, default in _CUDA_MEMBERS.items())
        try:
            raw = base64.b64decode(handle.get("b64", ""), validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise WrongBody("'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t") from error
        memory.register_cuda(region, raw, device, size)
        return {}

    @app.post("/v2/cudasharedmemory/unregister", responses=_ERRORS)
    @app.post("/v2/cudasharedmemory/region/{region}/unregister", responses=_ERRORS)
    async def unregister_cuda(region: str = "") -> dict[str, Any]:
        memory.unregister(region, is_cuda=True)
        return {}


def _add_settings(app: FastAPI, plane: DataPlane) -> None:
    tracer, logs = plane.offered.tracer, plane.offered.logs

    @app.get("/v2/trace/setting")
    @app.get("/v2/models/{model}/trace/setting", responses=_ERRORS)
    async def trace_setting(model: str = "") -> dict[str, Any]:
        if model:
            plane.repository.entry(model)
        settings = tracer.settings(model)
        return {name: value if name == "trace_level" else value[0] for name, value in settings.items()}

    @app.post("/v2/trace/setting", responses=_ERRORS, openapi_extra=_TRACE)
    @app.post("/v2/models/{model}/trace/setting", responses=_ERRORS, openapi_extra=_TRACE)
    async def change_trace_setting(request: HttpRequest, model: str = "") -> dict[str, Any]:
        if model:
            plane.repository.entry(model)
        tracer.change({name: _texts(name, value) for name, value in (await _document(request)).items()}, model)
        return await trace_setting(model)

    @app.get("/v2/logging")
    async def log_settings() -> dict[str, Any]:
        return dict(logs.settings())

    @app.post("/v2/logging", responses=_ERRORS, openapi_extra=_LOGGING)
    async def change_log_settings(request: HttpRequest) -> dict[str, Any]:
        logs.change(await _document(request))
        return dict(logs.settings())


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request is wrong"},
    404: {"description": "no such model, or no such region"},
    501: {"description": "not a client's to change"},
    503: {"description": "not ready, or not allowed"},
}
_SYSTEM_MEMBERS: dict[str, Any] = {"key": "", "offset": 0, "byte_size": None}
_CUDA_MEMBERS: dict[str, Any] = {"raw_handle": {}, "device_id": 0, "byte_size": None}


def _takes(**members: dict[str, Any]) -> dict[str, Any]:
    """Return what OpenAPI is told of a body with these members, which FastAPI does not read itself."""
    schema = {"type": "object", "properties": members, "additionalProperties": True}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_NUMBER = {"type": "integer", "minimum": 0}
_SYSTEM = _takes(key={"type": "string"}, offset=_NUMBER, byte_size=_NUMBER)
_CUDA = _takes(
    raw_handle={"type": "object", "properties": {"b64": {"type": "string"}}}, device_id=_NUMBER, byte_size=_NUMBER
)
_TRACE = _takes(trace_level={"type": "array", "items": {"type": "string"}}, trace_rate={"type": ["string", "integer"]})
_LOGGING = _takes(log_verbose_level=_NUMBER, log_info={"type": "boolean"})


async def _document(request: HttpRequest) -> dict[str, Any]:
    try:
        document = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise WrongBody(f"failed to parse the request JSON buffer: {error}") from error
    if not isinstance(document, dict):
        raise WrongBody(f"the body must be a JSON object, found {type(document).__name__}")
    return document


def _member(body: dict[str, Any], name: str, default: Any) -> Any:
    # Numbers have defaults that are numbers, or none.
    kind = int if default is None else type(default)
    if name not in body and (default is None or default in ("", {})):
        raise WrongBody(f"Shared memory register request has no '{name}' field")
    value = body.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not 0 <= value < 2**63):
        raise WrongBody(f"'{name}' must be {_KINDS[kind]}, found {value!r}")
    return value


_KINDS = {int: "a number that is not negative", str: "a string", dict: 'an object with a "b64"'}


def _texts(name: str, value: Any) -> list[str] | None:
    if value is None or isinstance(value, str):
        return None if value is None else [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    raise WrongBody(f"{name}: must be a string or a list of strings, found {value!r}")
