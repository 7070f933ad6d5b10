"""Health for probes, and validation for ``kubectl apply``: the same ``parse`` that the controller runs."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Catalog
from servery_sdk.plugins import Plugins

from servery_controller import render


def application(plugins: Plugins, is_ready: Callable[[], bool]) -> FastAPI:
    """Return ``/healthz``, ``/readyz``, ``/metrics`` and ``/validate``."""
    app = FastAPI(title="Servery controller", docs_url=None, redoc_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        return Response("ok" if is_ready() else "starting", 200 if is_ready() else 503, media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.post("/validate")
    async def validate(review: dict[str, Json]) -> dict[str, Json]:
        request = review.get("request") or {}
        answer = {"uid": request.get("uid", ""), **judge(request.get("object") or {}, plugins)}
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}

    return app


def judge(manifest: Manifest, plugins: Plugins) -> Manifest:
    """Return the verdict on one object; what no dialect understands is none of our business."""
    try:
        service, runtime = render.dialect_of(manifest, plugins), render.runtime_dialect_of(manifest, plugins)
        if service is not None:
            return {"allowed": True, "warnings": list(service[0].parse(manifest, Catalog()).warnings)}
        if runtime is not None:
            runtime[0].parse_runtime(manifest)
    except ServeryError as error:
        return {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": str(error)}}
    return {"allowed": True}
