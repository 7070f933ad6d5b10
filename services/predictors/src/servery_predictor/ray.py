"""The predictor as Ray Serve applications: what ``import_path`` of a Serve config names. Only this module imports Ray.

Source: Ray Serve, "Set up FastAPI and HTTP" and "Config files: typed application builders".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve
from servery_http import asgi
from servery_http.client import Client
from servery_http.front import error, no_application
from servery_http.limits import Limits
from servery_http.messages import Request, Response, Streamed
from servery_http.proxy import forward
from servery_sdk.errors import ServeryError

from servery_predictor.cli import find_runtime, settings_from
from servery_predictor.manners import events, manners, served
from servery_predictor.rest import HotRoutes, application
from servery_predictor.runtime_routes import PlaneHost, Table
from servery_predictor.server import data_plane

HOST = "SERVERY_PREDICTOR_HOST"
"""Variable: where in its pod a server listens that is not Ray's; the local platform gives every pod an address."""
_LOOK_AGAIN_SECONDS = 0.2
_BAD_GATEWAY = 502


class ModelReplica:
    """One copy of a model, REST only: Ray's own proxy is in front."""

    async def __init__(self, argv: Sequence[str]) -> None:  # type: ignore[misc]  # Ray awaits it
        settings, options = settings_from(argv)
        self._settings = settings
        self._plane = data_plane(settings, find_runtime(settings.runtime), options=options)
        # A replica has no port: whatever the runtime's own server would have had is answered at Ray's.
        found = self._plane.repository.listeners(PlaneHost(self._plane, is_alone=False))
        self._more = Table(route for listener in found for route in listener.routes)
        await self._plane.repository.load_all()

    def __serve_build_asgi_app__(self) -> asgi.Application:
        """Return the same routes as the predictor's own server has."""
        settings = self._settings
        return asgi.application(
            HotRoutes(self._plane, events(settings), self._more),
            served(application(self._plane), settings),
            Limits(max_body_bytes=settings.max_body_bytes),
            manners(settings),
        )

    async def __del__(self) -> None:
        """Finish what is in flight and give the model back."""
        if hasattr(self, "_plane"):
            await self._plane.repository.close()


class ProxyReplica:
    """Passes requests on to a server beside it in the pod."""

    async def __init__(self, port: int) -> None:  # type: ignore[misc]  # Ray awaits it
        self._host, self._port = os.environ.get(HOST, "127.0.0.1"), port
        self._client = Client()
        # No request comes before the constructor has returned.
        while not await self._answers():  # noqa: ASYNC110  # another process's port has no event
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def __serve_build_asgi_app__(self) -> asgi.Application:
        """Return an application that passes everything on."""
        return asgi.application(lambda method, path: Streamed(self._forward), no_application)

    async def check_health(self) -> None:
        """Ray asks every few seconds, and replaces a replica that raises.

        Raises:
            ConnectionError: Nobody listens.
        """
        if not await self._answers():
            raise ConnectionError(f"nobody listens at {self._host}:{self._port}")

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def _forward(self, request: Request) -> Response:
        try:
            return await forward(request, f"http://{self._host}:{self._port}", self._client)
        except ServeryError as failure:
            return error(_BAD_GATEWAY, str(failure))


def predictor(args: Mapping[str, Any]) -> serve.Application:
    """Return the application of a model: ``args["argv"]`` are the flags of ``servery-predictor``."""
    return serve.deployment(name="predictor")(serve.ingress()(ModelReplica)).bind(args["argv"])


def proxy(args: Mapping[str, Any]) -> serve.Application:
    """Return the application of a server of another make, which listens on ``args["port"]``."""
    return serve.deployment(name="proxy")(serve.ingress()(ProxyReplica)).bind(int(args["port"]))
