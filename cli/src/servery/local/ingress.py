"""The way in: from a Host header to a ready pod."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from servery_http.client import Client, ConnectFailed, TimedOut
from servery_http.messages import Request, Response, Streamed, header
from servery_http.proxy import forward
from servery_kube.informer import Informer
from servery_kube.port import KubeApi, NotFound
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest, has_labels

from servery.local.rollout import is_ready

_ANSWER_SECONDS = 600.0
_UNAVAILABLE = 503
_TAKEN = {
    "controllerName": "servery/local",
    "conditions": [{"type": kind, "status": "True", "reason": kind} for kind in ("Accepted", "ResolvedRefs")],
}


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service's port, and its share of a route's requests."""

    namespace: str
    service: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the requests of some paths go; ``paths`` are what a whole path must match, None any."""

    paths: re.Pattern[str] | None
    backends: tuple[Backend, ...]


@dataclass(slots=True)
class Ingress:
    """Answers every request by the HTTPRoutes; ``<route or Service>.<namespace>.localhost`` always works too."""

    api: KubeApi
    routes: Informer
    services: Informer
    pods: Informer
    client: Client
    _turn: Iterator[int] = field(default_factory=itertools.count)
    _turns: dict[tuple[Backend, ...], dict[Backend, int]] = field(default_factory=dict)

    async def run(self) -> None:
        """Do what a Gateway does besides: say of every route that it is taken. Until cancelled."""
        changed = asyncio.Event()
        self.routes.subscribe(lambda _: changed.set())
        await self.routes.synced()
        while True:
            changed.clear()
            for ref, route in self.routes.items():
                parents = [{"parentRef": parent, **_TAKEN} for parent in route["spec"].get("parentRefs", ())]
                if (route.get("status") or {}).get("parents") != parents:
                    # The route may have gone this moment.
                    with contextlib.suppress(NotFound):
                        await self.api.patch_status(ref, {"parents": parents})
            await changed.wait()

    def route(self, method: str, path: str) -> Streamed:  # every request is ours
        """Return the handler of every request: the front's router. Bodies pass as they come."""
        return Streamed(self._answer)

    def hosts(self) -> dict[str, tuple[Rule, ...]]:
        """Return where each host leads; the first rule that takes a path has it."""
        found: dict[str, tuple[Rule, ...]] = {}
        for ref, service in self.services.items():
            first = Backend(ref.namespace, ref.name, service["spec"]["ports"][0]["port"])
            found[f"{ref.name}.{ref.namespace}.localhost"] = (Rule(None, (first,)),)
        for ref, route in self.routes.items():
            rules = tuple(_rule(ref.namespace, rule) for rule in route["spec"].get("rules", ()))
            for host in (*route["spec"].get("hostnames", ()), f"{ref.name}.{ref.namespace}.localhost"):
                found[host] = rules
        return found

    def endpoints(self, backend: Backend) -> list[str]:
        """Return ``address:port`` of every ready pod behind a Service."""
        for ref, service in self.services.items():
            if (ref.namespace, ref.name) == (backend.namespace, backend.service):
                port = next((p for p in service["spec"]["ports"] if p["port"] == backend.port), None)
                if port is None:
                    return []
                selector = service["spec"].get("selector", {})
                return [
                    f"{pod['status']['podIP']}:{port.get('targetPort', backend.port)}"
                    for pod_ref, pod in self.pods.items()
                    if pod_ref.namespace == ref.namespace and has_labels(pod, selector) and is_ready(pod)
                ]
        return []

    def _pick(self, backends: tuple[Backend, ...]) -> Backend:
        """Return whose turn it is, so that every run of ``sum(weights)`` requests has exactly those shares.

        Source: the smooth weighted round robin of nginx.
        """
        if len(backends) == 1:
            return backends[0]
        turns = self._turns.setdefault(backends, dict.fromkeys(backends, 0))
        for backend in backends:
            turns[backend] += backend.weight
        chosen = max(backends, key=turns.__getitem__)
        turns[chosen] -= sum(backend.weight for backend in backends)
        return chosen

    async def _answer(self, request: Request) -> Response:
        host = (header(request.headers, b"host") or b"").decode("latin-1").partition(":")[0].lower()
        hosts = self.hosts()
        rules, path = hosts.get(host, ()), request.path
        backends = next((rule.backends for rule in rules if rule.paths is None or rule.paths.fullmatch(path)), ())
        if not backends:
            known = ", ".join(sorted(hosts)) or "none yet"
            return _refusal(404, f"no service answers at host {host!r}; hosts: {known}")
        backend = self._pick(backends)
        endpoints = self.endpoints(backend)
        if not endpoints:
            return _refusal(_UNAVAILABLE, f"service {backend.namespace}/{backend.service} has no ready pod")
        start = next(self._turn)
        failure: Exception | None = None
        for step in range(len(endpoints)):
            try:
                return await self._forward(request, endpoints[(start + step) % len(endpoints)])
            except ConnectFailed as error:
                # Nothing has been sent: the pod went away this moment, another one may answer.
                failure = error
            except ServeryError as error:
                return _refusal(502, f"service {backend.namespace}/{backend.service}: {error}")
        return _refusal(_UNAVAILABLE, f"service {backend.namespace}/{backend.service}: {failure}")

    async def _forward(self, request: Request, endpoint: str) -> Response:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await forward(request, f"http://{endpoint}", self.client)
        except TimeoutError as error:
            raise TimedOut(f"{request.method} {request.path}: no answer within {_ANSWER_SECONDS:g} s") from error


def _refusal(status: int, message: str) -> Response:
    return Response(status, json.dumps({"error": message}).encode())


def _rule(namespace: str, rule: Manifest) -> Rule:
    backends = tuple(
        Backend(namespace, backend["name"], backend["port"], backend.get("weight", 1))
        for backend in rule.get("backendRefs", ())
        if backend.get("weight", 1) > 0
    )
    patterns = [_pattern(match.get("path") or {}) for match in rule.get("matches") or ()]
    return Rule(re.compile("|".join(patterns)) if patterns else None, backends)


def _pattern(path: Manifest) -> str:
    """Return what a whole path must match. Source: Gateway API HTTPPathMatch."""
    kind, value = path.get("type", "PathPrefix"), str(path.get("value", "/"))
    if kind == "RegularExpression":
        return f"(?:{value})"
    if kind == "Exact":
        return re.escape(value)
    return rf"{re.escape(value.rstrip('/'))}(?:/.*)?"
