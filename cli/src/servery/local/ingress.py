"""The way in: from a Host header to a ready pod."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from servery_http.client import Client, ConnectFailed, TimedOut
from servery_http.messages import Request, Response, Streamed, header
from servery_http.proxy import forward
from servery_kube.informer import Informer
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest

from servery.local.rollout import is_ready

_ANSWER_SECONDS = 600.0
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service's port."""

    namespace: str
    service: str
    port: int


@dataclass(slots=True)
class Ingress:
    """Answers every request by the Ingress objects; ``<ingress>.<namespace>.localhost`` always works too."""

    ingresses: Informer
    services: Informer
    pods: Informer
    client: Client
    _turn: Iterator[int] = field(default_factory=itertools.count)

    def route(self, method: str, path: str) -> Streamed:  # every request is ours
        """Return the handler of every request: the front's router. Bodies pass as they come."""
        return Streamed(self._answer)

    def hosts(self) -> dict[str, Backend]:
        """Return where each host leads."""
        found: dict[str, Backend] = {}
        for ref, ingress in self.ingresses.items():
            for index, rule in enumerate(ingress["spec"].get("rules", ())):
                service = rule["http"]["paths"][0]["backend"]["service"]
                backend = Backend(ref.namespace, service["name"], service["port"]["number"])
                found[rule["host"]] = backend
                if index == 0:
                    found[f"{ref.name}.{ref.namespace}.localhost"] = backend
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
                    if pod_ref.namespace == ref.namespace and _selected(pod, selector) and is_ready(pod)
                ]
        return []

    async def _answer(self, request: Request) -> Response:
        host = (header(request.headers, b"host") or b"").decode("latin-1").partition(":")[0].lower()
        hosts = self.hosts()
        backend = hosts.get(host)
        if backend is None:
            known = ", ".join(sorted(hosts)) or "none yet"
            return _refusal(404, f"no service answers at host {host!r}; hosts: {known}")
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


def _selected(pod: Manifest, selector: Mapping[str, str]) -> bool:
    labels = pod["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())


def _refusal(status: int, message: str) -> Response:
    return Response(status, json.dumps({"error": message}).encode())
