"""REST: hot routes for the front, everything else for FastAPI."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from fastapi.responses import Response as HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from servery_http.manners import Answering
from servery_http.messages import Handler, Request, Response, header
from servery_sdk import api_description
from servery_sdk.documents import Document
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import ModelState
from servery_sdk.model import Protocol as Wire
from servery_sdk.protocol import InferRequest, InferResponse, RequestError, v1, v2
from servery_sdk.protocol.forms import Forms
from servery_sdk.protocol.shared import SharedRequest
from servery_sdk.routes import Route
from servery_sdk.runtimes import VERSION
from starlette.exceptions import HTTPException

from servery_predictor import errors, overriding
from servery_predictor.asking import Asking
from servery_predictor.dataplane import DataPlane
from servery_predictor.events import Events
from servery_predictor.extensions import routes as extension_routes
from servery_predictor.extensions.generate import GenerateRoutes
from servery_predictor.mounted import Mounted
from servery_predictor.openai_api import errors as openai_errors
from servery_predictor.openai_api import models as openai_models
from servery_predictor.openai_api.routes import OpenAIRoutes
from servery_predictor.openapi import INFERENCE_PATHS, INFERENCE_SCHEMAS
from servery_predictor.tfserving import rest as tfserving

JSON_LENGTH = b"inference-header-content-length"
_BINARY = b"application/octet-stream"
_PREDICT = re.compile(r"/v1/models/([^/]+):predict")
_EXPLAIN = re.compile(r"/v1/models/([^/]+):explain")
_EXPLAIN_V2 = re.compile(r"/v2/models/([^/]+?)(?:/versions/([^/]+?))?[:/]explain")
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_GENERATE = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/generate(_stream)?")


_OF_A_CONNECTION = frozenset(
    {"content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive"}
)
"""Headers that a model may have from a predictor's answer, and that are the front's to write."""


class HotRoutes:
    """``POST /v1/models/{m}:predict``, ``:explain``, ``POST /v2/models/{m}[/versions/{v}]/infer``, ``explain``,
    ``generate``, and OpenAI's.

    Args:
        events: How CloudEvents are answered.
        more: Finds what the runtime has beside them.
        explanations: Answers requests for explanations in the models' place.
    """

    def __init__(
        self,
        plane: DataPlane,
        events: Events | None = None,
        more: Callable[[str, str], Handler | None] | None = None,
        explanations: Handler | None = None,
    ) -> None:
        self._plane = plane
        self._explanations = explanations
        self._tfserving = tfserving.TFServingRoutes(plane)
        self._events = events or Events()
        self._more = more or _no_more
        self._generate = GenerateRoutes(plane)
        # A server has few models and clients repeat one path: a dictionary beats the expressions.
        self._known: dict[str, Handler] = (
            {} if plane.repository.brings_application else dict(OpenAIRoutes(plane).by_path())
        )

    def __call__(self, method: str, path: str) -> Handler | None:
        """Return the handler of an inference request, or of one of ``more``; None for all others."""
        if method != "POST":
            return self._more(method, path)
        return self._known.get(path) or self._find(path)

    def _find(self, path: str) -> Handler | None:
        handler: Handler | None
        if found := _PREDICT.fullmatch(path):
            handler = self._predict(unquote(found[1]))
        elif found := _INFER.fullmatch(path):
            handler = self._infer(unquote(found[1]), found[2] and unquote(found[2]))
        elif found := _GENERATE.fullmatch(path):
            version = found[2] and unquote(found[2])
            handler = self._generate.handler(unquote(found[1]), version, is_streamed=bool(found[3]))
        elif found := _EXPLAIN.fullmatch(path):
            handler = self._explanations or self._explain(unquote(found[1]))
        elif found := _EXPLAIN_V2.fullmatch(path):
            version = found[2] and unquote(found[2])
            handler = self._explanations or self._infer(unquote(found[1]), version, explain=True)
        else:
            handler = self._tfserving.find(path) or self._more("POST", path)
        if handler is not None and len(self._known) < 1000:
            self._known[path] = handler
        return handler

    def _predict(self, model: str) -> Handler:
        theirs = self._tfserving.predict(model, None)

        def predict(request: Request) -> Answering:
            if self._plane.repository.takes_documents(model):
                return _replied(self._plane, request, model, Wire.V1)
            if self._tfserving.is_asked(model):
                return theirs(request)
            try:
                asked = v1.decode_request(request.body, model=model)
            except ServeryError as failure:
                return self._events.structured(request, predict) or errors.response(failure)
            return Asking(self._plane, asked, "v1", _v1_response)

        return predict

    def _explain(self, model: str) -> Handler:
        def explain(request: Request) -> Answering:
            if self._plane.repository.takes_documents(model):
                return _replied(self._plane, request, model, Wire.V1, explain=True)
            try:
                asked = v1.decode_request(request.body, model=model)
            except ServeryError as failure:
                return self._events.structured(request, explain) or errors.response(failure)
            return Asking(self._plane, asked, "v1", _v1_explanation, explain=True)

        return explain

    def _infer(self, model: str, version: str | None, *, explain: bool = False) -> Handler:
        memory = self._plane.offered.shared_memory
        forms = Forms(model=model, version=version, regions=memory)

        def infer(request: Request) -> Answering:
            if self._plane.repository.takes_documents(model):
                return _replied(self._plane, request, model, Wire.V2, version=version, explain=explain)
            try:
                asked = forms.decode(request.body, _json_length(request))
                if type(asked) is SharedRequest:
                    memory.check(asked)
                    return Asking(self._plane, asked, "v2", self._placed, explain=explain)
            except ServeryError as failure:
                return errors.response(failure)
            return Asking(self._plane, asked, "v2", _v2_response, explain=explain)

        return infer

    def _placed(self, outcome: InferResponse, asked: InferRequest) -> Response:
        assert isinstance(asked, SharedRequest)
        try:
            placed = self._plane.offered.shared_memory.put(outcome, asked)
        except ServeryError as failure:
            return errors.response(failure)
        body, json_length = v2.encode_response(outcome, asked, placed=placed)
        return Response(200, body) if json_length is None else _binary(body, json_length)


async def _replied(
    plane: DataPlane, request: Request, model: str, wire: Wire, *, version: str | None = None, explain: bool = False
) -> Response:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
    document = Document(model=model, wire=wire, body=request.body, headers=headers, explain=explain)
    try:
        reply = await plane.reply(document, version=version)
    except ServeryError as failure:
        return errors.response(failure)
    more = tuple(
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in reply.headers.items()
        if name not in _OF_A_CONNECTION
    )
    kind = reply.headers.get("content-type", "application/json").encode("latin-1")
    if isinstance(reply.body, bytes):
        return Response(reply.status, reply.body, kind, more)
    return Response(reply.status, b"", kind, more, reply.body)


def _no_more(_: str, __: str) -> None:
    return None


def _v1_response(outcome: InferResponse, _: InferRequest) -> Response:
    return Response(200, v1.encode_response(outcome))


def _v1_explanation(outcome: InferResponse, _: InferRequest) -> Response:
    return Response(body=v1.encode_response(outcome, member="explanations"))


def _v2_response(outcome: InferResponse, asked: InferRequest) -> Response:
    body, json_length = v2.encode_response(outcome, asked)
    return Response(200, body) if json_length is None else _binary(body, json_length)


def _binary(body: bytes, json_length: int) -> Response:
    return Response(200, body, _BINARY, ((JSON_LENGTH, b"%d" % json_length),))


def _json_length(request: Request) -> int | None:
    value = header(request.headers, JSON_LENGTH)
    if value is None:
        return None
    if not value.isdigit():
        raise RequestError(f"Inference-Header-Content-Length must be a number, found {value.decode('latin-1')!r}")
    return int(value)


def application(plane: DataPlane, routes: Iterable[Route] = ()) -> FastAPI:
    """Return the routes that are not hot: health, metadata, repository, metrics, documentation.

    Args:
        routes: The runtime's own, which are answered elsewhere: the documentation tells of them, too.
    """
    app = FastAPI(title="Servery predictor", version=VERSION)
    repository = plane.repository

    @app.exception_handler(ServeryError)
    async def failed(_: HttpRequest, failure: ServeryError) -> HttpResponse:
        answer = errors.response(failure)
        return HttpResponse(answer.body, answer.status, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def refused(_: HttpRequest, failure: HTTPException) -> HttpResponse:
        return JSONResponse({"error": failure.detail}, failure.status_code, failure.headers)

    @app.get("/")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/v1/models")
    async def v1_models() -> dict[str, Any]:
        listed = await openai_models.listed(repository)
        return {"models": [entry.name for entry in repository.entries()], **(listed if listed["data"] else {})}

    @app.get("/v1/models/{model}", responses=_ERRORS)
    async def v1_model(model: str) -> Any:
        entry = repository.entry(model)
        ready = await repository.is_ready(model)
        card = openai_models.card(entry) if openai_models.speaks_openai(entry) else {}
        return JSONResponse({"name": model, "ready": ready, **card, **tfserving.status(entry)}, 200 if ready else 503)

    @app.get("/openai/v1/models")
    async def openai_listed() -> dict[str, Any]:
        return await openai_models.listed(repository)

    @app.get("/openai/v1/models/{model}", responses=_ERRORS)
    async def openai_model(model: str) -> Any:
        try:
            return await openai_models.found(repository, model)
        except ServeryError as failure:
            answer = openai_errors.response(failure)
            return HttpResponse(answer.body, answer.status, media_type="application/json")

    tfserving.add_routes(app, plane, responses=_ERRORS)

    @app.get("/v2")
    async def server_metadata() -> dict[str, Any]:
        return {"name": "servery", "version": VERSION, "extensions": plane.offered.names(is_rest=True)}

    @app.get("/v2/health/live")
    async def live() -> Any:
        return JSONResponse({"live": plane.live}, 200 if plane.live else 503)

    @app.get("/v2/health/ready", responses=_ERRORS)
    async def ready() -> Any:
        return JSONResponse({"ready": plane.ready}, 200 if plane.ready else 503)

    @app.get("/v2/models")
    async def v2_models() -> dict[str, list[str]]:
        return {"models": [entry.name for entry in repository.entries()]}

    # First: "stats" is no model's name.
    extension_routes.add(app, plane)

    @app.get("/v2/models/{model}", responses=_ERRORS)
    @app.get("/v2/models/{model}/versions/{version}", responses=_ERRORS)
    async def model_metadata(model: str, version: str | None = None) -> HttpResponse:
        entry = repository.entry(model, version)
        if entry.metadata is None:
            raise errors.ModelNotReady(f"Model with name {model} is not ready, but {entry.state}")
        return HttpResponse(v2.encode_metadata(entry.metadata), media_type="application/json")

    @app.get("/v2/models/{model}/config", responses=_ERRORS)
    @app.get("/v2/models/{model}/versions/{version}/config", responses=_ERRORS)
    async def model_configuration(model: str, version: str | None = None) -> Any:
        return JSONResponse(repository.configuration(model, version))

    @app.get("/v2/models/{model}/ready", responses=_ERRORS)
    @app.get("/v2/models/{model}/versions/{version}/ready", responses=_ERRORS)
    async def model_ready(model: str, version: str | None = None) -> Any:
        is_ready = await repository.is_ready(model, version)
        return JSONResponse({"name": model, "ready": is_ready}, 200 if is_ready else 503)

    @app.post("/v2/repository/index")
    async def index() -> list[dict[str, str]]:
        return [
            {
                "name": entry.name,
                **({"version": version} if version else {}),
                "state": _STATES.get(entry.state, "UNAVAILABLE"),
                "reason": entry.reason,
            }
            for entry in repository.entries()
            for version in entry.versions or ("",)
        ]

    @app.post("/v2/repository/models/{model}/load", responses=_ERRORS)
    async def load(model: str, request: HttpRequest) -> dict[str, Any]:
        await plane.load(model, overriding.from_body(await request.body()))
        return {"name": model, "load": True}

    @app.post("/v2/repository/models/{model}/unload", responses=_ERRORS)
    async def unload(model: str) -> dict[str, Any]:
        await plane.changes.unload(model)
        return {"name": model, "unload": True}

    @app.get("/metrics")
    async def metrics() -> HttpResponse:
        return HttpResponse(generate_latest(plane.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    if repository.brings_application:
        # The last, so it gets what nothing here answers.
        app.mount("/", Mounted(plane))
    app.openapi = _with_inference(app.openapi, api_description.paths(routes))  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


_STATES = {ModelState.LOADED: "READY", ModelState.LOADING: "LOADING"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    errors.HTTP[code]: {"description": str(code)} for code in (ErrorCode.NOT_FOUND, ErrorCode.NOT_READY)
}


def _with_inference(openapi: Callable[[], dict[str, Any]], more: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    # The hot routes never reach FastAPI, but its documentation is where people look for them.
    def described() -> dict[str, Any]:
        document = openapi()
        document["paths"].update({**more, **INFERENCE_PATHS})
        document.setdefault("components", {}).setdefault("schemas", {}).update(INFERENCE_SCHEMAS)
        return document

    return described
