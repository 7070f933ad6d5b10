"""Where TorchServe's REST API is answered: at the addresses of ``config.properties``, and beside the predictor's own.

Source: TorchServe, "Configure TorchServe listening address and port", "Configure Cross-Origin Resource Sharing".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from servery_sdk.routes import CrossOrigin, Host, Listener

from servery_runtime_torch import inference, store
from servery_runtime_torch.management import Management
from servery_runtime_torch.store import Store

logger = logging.getLogger(__name__)

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN = ("enable_model_api", "model_api_enabled")
"""Names that TorchServe has given to one property."""


def listeners(artifact: Path, found: Store, host: Host, environment: Mapping[str, str]) -> Sequence[Listener]:
    """Return TorchServe's API over ``host``.

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
    manage = Management(host, artifact, is_open=is_open).routes()
    asked = _address(properties, "inference_address")
    managed = _address(properties, "management_address")
    told = _address(properties, "metrics_address")
    made = [Listener(routes=ask), Listener(routes=manage, port=managed[0], is_local=managed[1], cross_origin=pages)]
    if asked[0] is not None:
        made.append(Listener(routes=ask, port=asked[0], is_local=asked[1], cross_origin=pages))
    if told[0] is not None and properties.get("enable_metrics_api", "true").lower() == "true":
        made.append(Listener(port=told[0], is_local=told[1], tells_metrics=True))
    return made


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
