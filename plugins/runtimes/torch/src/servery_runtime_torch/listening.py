"""Where TorchServe's REST and gRPC APIs are answered: at the addresses of ``config.properties``, and beside the predictor's own.

Source: TorchServe, "Configure TorchServe listening address and port", "Configure Cross-Origin Resource Sharing".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from servery_sdk import api_description
from servery_sdk.routes import Answer, Asked, CrossOrigin, Host, Listener, Route, RpcService
from servery_sdk.runtimes import VERSION

from servery_runtime_torch import fetching, inference, rpc, store
from servery_runtime_torch.management import Management
from servery_runtime_torch.store import Store

logger = logging.getLogger(__name__)

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN = ("enable_model_api", "model_api_enabled")
"""Names that TorchServe has given to one property."""


def listeners(artifact: Path, found: Store, host: Host, environment: Mapping[str, str]) -> Sequence[Listener]:
    """Return TorchServe's APIs over ``host``, REST's and gRPC's.

    The inference API is answered at the predictor's own port in any case, the management API where it has none of its
    own.

    Args:
        artifact: Of the store.
        found: What it holds.
    """
    properties = store.properties(artifact, environment)
    pages = _pages(properties)
    is_open = any(properties.get(name, "").lower() == "true" for name in _OPEN)
    ask = inference.routes(host, found.envelope)
    management = Management(host, artifact, is_open=is_open, allowed=fetching.allowed(properties))
    manage = management.routes()
    asked = _address(properties, "inference_address")
    managed = _address(properties, "management_address")
    told = _address(properties, "metrics_address")
    made = [Listener(routes=ask), Listener(routes=manage, port=managed[0], is_local=managed[1], cross_origin=pages)]
    if asked[0] is not None:
        made.append(Listener(routes=ask, port=asked[0], is_local=asked[1], cross_origin=pages))
    made += _descriptions(made, pages)
    calls = rpc.Inference(host, found.envelope).service()
    made += _calls(properties, calls, rpc.management(management), is_private=managed[1])
    if told[0] is not None and properties.get("enable_metrics_api", "true").lower() == "true":
        made.append(Listener(port=told[0], is_local=told[1], tells_metrics=True))
    return made


def _descriptions(made: Sequence[Listener], pages: CrossOrigin | None) -> list[Listener]:
    """Return what describes the routes of each port together, as TorchServe does it.

    No other path has OPTIONS: there, they are what a browser asks before a page's request.
    """
    ports = dict.fromkeys(one.port for one in made)
    here = {port: [one for one in made if one.port == port] for port in ports}
    return [
        Listener(
            routes=_description([route for one in beside for route in one.routes]),
            port=port,
            is_local=all(one.is_local for one in beside),
            cross_origin=None if port is None else pages,
        )
        for port, beside in here.items()
    ]


def _description(routes: Sequence[Route]) -> tuple[Route, ...]:
    info = {"title": "TorchServe's APIs", "description": "As Servery answers them.", "version": VERSION}
    document = inference.said({"openapi": "3.0.1", "info": info, "paths": api_description.paths(routes)})

    async def describe(_: Asked) -> Answer:
        return document

    return tuple(
        Route(method=method, path=path, handle=describe, summary="Describe TorchServe's APIs")
        for method, path in (("GET", "/api-description"), ("OPTIONS", "/"))
    )


def _calls(properties: Mapping[str, str], ask: RpcService, manage: RpcService, *, is_private: bool) -> list[Listener]:
    """Return where gRPC is answered: at the predictor's own port, and at those of the configuration.

    The management API has a port of its own in TorchServe, and is answered at ours only where none is said. It stays on
    this machine unless ``grpc_management_address`` says otherwise; the inference API does where its address says so.

    Args:
        is_private: The management API is for this machine alone under REST, and then at no port of ours here either.
    """
    made = [Listener(services=(ask,))]
    asked = _port(properties, "grpc_inference_port")
    if asked is not None:
        is_local = properties.get("grpc_inference_address", "") in _LOCAL
        made.append(Listener(services=(ask,), port=asked, is_local=is_local))
    managed = _port(properties, "grpc_management_port")
    is_local = managed is not None and properties.get("grpc_management_address", "127.0.0.1") in _LOCAL
    if managed is not None or not is_private:
        made.append(Listener(services=(manage,), port=managed, is_local=is_local))
    return made


def _port(properties: Mapping[str, str], name: str) -> int | None:
    text = properties.get(name, "")
    if text and not (text.isdecimal() and 0 < int(text) < 1 << 16):
        logger.warning("port is not opened", extra={"property": name, "reason": f"{text!r} is no port"})
        return None
    return int(text) if text else None


def _address(properties: Mapping[str, str], name: str) -> tuple[int | None, bool]:
    """Return the port of an address and whether it is this machine's alone; no port where there is none for us."""
    text = properties.get(name, "")
    if not text:
        return None, False
    try:
        url = urlsplit(text)
        port = url.port or 80
    except ValueError as error:
        logger.warning("address is not listened on", extra={"property": name, "reason": str(error)})
        return None, False
    if url.scheme != "http" or not url.hostname:
        reason = f"{text!r}: http://HOST:PORT is served; TLS is the ingress's"
        logger.warning("address is not listened on", extra={"property": name, "reason": reason})
        return None, False
    return port, url.hostname in _LOCAL


def _pages(properties: Mapping[str, str]) -> CrossOrigin | None:
    origins, methods, headers = (
        CrossOrigin.listed(properties.get(f"cors_allowed_{name}", "")) for name in ("origin", "methods", "headers")
    )
    return CrossOrigin(origins=origins, methods=methods, headers=headers) if origins else None
