"""Paths of a runtime's own: found beside the hot routes, or behind a port of theirs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from servery_http.messages import Handler, Request, Response
from servery_sdk.errors import ServeryError
from servery_sdk.model import ModelState
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.routes import Answer, Asked, CrossOrigin, Listener, Route, ServedModel

from servery_predictor import errors
from servery_predictor.dataplane import DataPlane
from servery_predictor.repository import Entry

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_LOCAL_NETWORK = "127."
_WILDCARDS = frozenset({"0.0.0.0", "::"})


class PlaneHost:
    """Lends a data plane to routes.

    Args:
        is_alone: No other process has models of its own.
    """

    def __init__(self, plane: DataPlane, *, is_alone: bool = True) -> None:
        self._plane = plane
        self.is_alone = is_alone

    @property
    def is_ready(self) -> bool:
        """Whether every model that was not unloaded answers."""
        return self._plane.ready

    def models(self) -> tuple[ServedModel, ...]:
        """Return every known model."""
        return tuple(map(_served, self._plane.repository.entries()))

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Return one model.

        Raises:
            UnknownModel: Not here; says what is.
        """
        return _served(self._plane.repository.entry(name, version))

    async def infer(self, request: InferRequest, *, protocol: str, explain: bool = False) -> InferResponse:
        """Return a model's answer.

        Raises:
            ServeryError: With the code that each wire has a number for.
        """
        return await self._plane.infer(request, protocol=protocol, explain=explain)

    async def load(self, name: str) -> None:
        """Load in every process.

        Raises:
            ServeryError: No such model, or it cannot be served.
        """
        await self._plane.changes.load(name)

    async def unload(self, name: str) -> None:
        """Unload in every process.

        Raises:
            ServeryError: No such model.
        """
        await self._plane.changes.unload(name)


def _served(entry: Entry) -> ServedModel:
    loaded = entry.model if entry.state is ModelState.LOADED else None
    return ServedModel(name=entry.name, state=entry.state, reason=entry.reason, loaded=loaded)


class Table:
    """A router of routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route, re.compile(_pattern(route.path))) for route in routes]

    def __call__(self, method: str, path: str) -> Handler | None:
        """Return the handler of the first route that fits, None for all others."""
        for route, pattern in self._routes:
            if route.method == method and (found := pattern.fullmatch(path)):
                return _handler(route, {name: unquote(value) for name, value in found.groupdict().items()})
        return None


def _pattern(path: str) -> str:
    parts = re.split(r"\{(\w+)\}", path)
    return "".join(f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts))


def _handler(route: Route, names: dict[str, str]) -> Handler:
    async def handle(request: Request) -> Response:
        asked = Asked(
            path=names,
            query=dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True)),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers},
            body=request.body,
        )
        try:
            answer = await route.handle(asked)
        except ServeryError as failure:
            return errors.response(failure)
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items())
        return Response(answer.status, answer.body, answer.content_type.encode("latin-1"), headers)

    return handle


def metrics_route(plane: DataPlane) -> Route:
    """Return ``/metrics``."""

    async def metrics(_: Asked) -> Answer:
        return Answer(body=generate_latest(plane.metrics.registry), content_type=CONTENT_TYPE_LATEST)

    return Route(method="GET", path="/metrics", handle=metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A port of the runtime's own, and all that is answered there."""

    host: str
    port: int
    routes: tuple[Route, ...]
    tells_metrics: bool
    cross_origin: CrossOrigin | None


def doors(
    listeners: Sequence[Listener], *, host: str, http_port: int, taken: Iterable[int]
) -> tuple[tuple[Route, ...], tuple[Door, ...]]:
    """Return the routes of the predictor's own port, and the doors beside it.

    What only programs on this machine may ask is answered at no port that others reach: rather nowhere.

    Args:
        host: Where the predictor listens. Doors do as well, but for local ones beside a wildcard: a pod of the local
            platform has an address of its own, and other pods have the same ports.
        http_port: The predictor's own.
        taken: Ports that something else of the predictor's has; routes of theirs are answered at its own.
    """
    own: list[Route] = []
    beside: dict[int, list[Listener]] = {}
    for listener in listeners:
        if listener.services:
            # Those are gRPC's.
            continue
        if listener.port is None:
            own += listener.routes
        elif listener.port not in (http_port, *taken):
            beside.setdefault(listener.port, []).append(listener)
        elif not listener.is_local or host.startswith(_LOCAL_NETWORK):
            own += listener.routes
        else:
            logger.warning("routes are not answered: their port is taken", extra={"port": listener.port})
    made = tuple(
        Door(
            host=local_host(host) if all(each.is_local for each in here) else host,
            port=port,
            routes=tuple(route for each in here for route in each.routes),
            tells_metrics=any(each.tells_metrics for each in here),
            cross_origin=next((each.cross_origin for each in here if each.cross_origin), None),
        )
        for port, here in beside.items()
    )
    return tuple(own), made


def local_host(host: str) -> str:
    """Return where a door is that only this machine may reach, beside a predictor that listens at ``host``."""
    return _LOOPBACK if host in _WILDCARDS else host
