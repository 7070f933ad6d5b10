"""TensorFlow Serving's REST routes.

Source: TensorFlow Serving, "RESTful API".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI
from servery_http.messages import Handler, Pending, Request, Response
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protocol.tfserving import rest as codec
from servery_sdk.protos.tensorflow_serving import apis_pb2 as pb

from servery_predictor import errors
from servery_predictor.asking import Asking
from servery_predictor.dataplane import DataPlane
from servery_predictor.repository import Entry
from servery_predictor.tfserving.models import has_signatures, signature_model, version_state

_CALL = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:(predict|classify|regress)")


class TFServingRoutes:
    """``POST /v1/models/{m}[/versions/{v}]:predict``, ``:classify`` and ``:regress``."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def find(self, path: str) -> Handler | None:
        """Return the handler of a call; None where ``path`` is none, or one that every v1 model answers."""
        found = _CALL.fullmatch(path)
        if found is None:
            return None
        model, version, call = unquote(found[1]), found[2], found[3]
        if call == "predict":
            return self.predict(model, version) if version else None
        return self._examples(model, version, call)

    def is_asked(self, model: str) -> bool:
        """Return whether ``model`` answers ``:predict`` in TensorFlow Serving's words."""
        try:
            return has_signatures(self._plane.repository.entry(model))
        except ServeryError:
            return False

    def predict(self, model: str, version: str | None) -> Callable[[Request], Response | Pending]:
        """Return the handler of ``:predict``."""

        def predict(request: Request) -> Response | Pending:
            try:
                signature_model(self._plane.repository, model, version)
                asked = codec.decode_predict(request.body, model=model, version=version)
            except ServeryError as failure:
                return errors.response(failure)
            return Asking(self._plane, asked.request, "v1", _columns if asked.is_column else _rows)

        return predict

    def _examples(self, model: str, version: str | None, call: str) -> Handler:
        encode = _classes if call == "classify" else _values

        def ask(request: Request) -> Response | Pending:
            try:
                signature_model(self._plane.repository, model, version)
                asked = codec.decode_examples(request.body, model=model, version=version)
            except ServeryError as failure:
                return errors.response(failure)
            return Asking(self._plane, asked, "v1", encode)

        return ask


def add_routes(app: FastAPI, plane: DataPlane, *, responses: dict[int | str, dict[str, Any]]) -> None:
    """Add what is told of a model and of its versions; ``responses`` describes their errors."""

    @app.get("/v1/models/{model}/versions/{version}", responses=responses)
    async def version_status(model: str, version: str) -> dict[str, Any]:
        entry = plane.repository.entry(model, version)
        signature_model(plane.repository, model, version)
        return status(entry)

    @app.get("/v1/models/{model}/metadata", responses=responses)
    @app.get("/v1/models/{model}/versions/{version}/metadata", responses=responses)
    async def metadata(model: str, version: str | None = None) -> dict[str, Any]:
        found = signature_model(plane.repository, model, version)
        served = version_state(plane.repository.entry(model, version)).version
        return codec.metadata(model, str(served), found.signatures())


def status(entry: Entry) -> dict[str, Any]:
    """Return what TensorFlow Serving says of a model; empty for one without signatures."""
    if not has_signatures(entry):
        return {}
    found = version_state(entry)
    state = pb.ModelVersionStatus.State.Name(found.state)
    return {"model_version_status": [codec.version_status(str(found.version), state, found.code.name, found.message)]}


def _rows(outcome: InferResponse, _: InferRequest) -> Response:
    return Response(body=codec.encode_predict(outcome, is_column=False))


def _columns(outcome: InferResponse, _: InferRequest) -> Response:
    return Response(body=codec.encode_predict(outcome, is_column=True))


def _classes(outcome: InferResponse, _: InferRequest) -> Response:
    return Response(body=codec.encode_classes(outcome))


def _values(outcome: InferResponse, _: InferRequest) -> Response:
    return Response(body=codec.encode_values(outcome))
