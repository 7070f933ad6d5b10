"""One platform's life under a command: started, fed with manifests, told of, and ended by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from servery_http.client import Client
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json, Manifest

from servery.local.platform import Platform
from servery.options import say

DEFAULT_PORT = 8080


async def until_signal(work: Awaitable[None]) -> None:
    """Do ``work``; SIGTERM and SIGINT cancel it, and that is a good end."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    asked = False

    def stop() -> None:
        nonlocal asked
        asked = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not asked:
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def headline(service: Manifest) -> str:
    """Return one line on how a service is."""
    name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    conditions = {c["type"]: c for c in (service.get("status") or {}).get("conditions", ())}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        return f"{name}: Ready"
    words = ": ".join(filter(None, (ready.get("reason", "Pending"), ready.get("message", ""))))
    return f"{name}: {words}"


def progress() -> Callable[[Manifest], None]:
    """Return what prints a service's headline whenever it is a new one."""
    last: dict[str, str] = {}

    def tell(service: Manifest) -> None:
        line = headline(service)
        uid = str(service["metadata"]["uid"])
        if last.get(uid) != line:
            last[uid] = line
            say(line)

    return tell


def host(service: Manifest) -> str:
    """Return the host at which a service answers without any DNS."""
    return f"{service['metadata']['name']}.{service['metadata']['namespace']}.localhost"


def check(body: bytes) -> Json:
    """Return a request's body as JSON.

    Raises:
        ServeryError: It is none.
    """
    try:
        request: Json = json.loads(body)
    except ValueError as error:
        raise ServeryError(f"--data: is not JSON: {error}") from error
    return request


def route(name: str, body: bytes, *, explain: bool = False) -> str:
    """Return the path that a request's body is for: v1 has ``instances``, v2 a list of tensors in ``inputs``."""
    request = check(body)
    is_v2 = isinstance(request, dict) and "instances" not in request and isinstance(request.get("inputs"), list)
    if is_v2:
        return f"/v2/models/{name}/{'explain' if explain else 'infer'}"
    return f"/v1/models/{name}:{'explain' if explain else 'predict'}"


async def ask(
    url: str,
    service: Manifest,
    body: bytes,
    *,
    model: str | None = None,
    explain: bool = False,
    timeout_seconds: float = 60.0,
) -> bytes:
    """Return the service's answer to one request, or with ``explain`` what it comes from.

    Args:
        model: One of several that the service holds; None for the one that has its name.

    Raises:
        ServeryError: It said no; in its own words.
    """
    path = route(model or service["metadata"]["name"], body, explain=explain)
    headers = [(b"host", host(service).encode()), (b"content-type", b"application/json")]
    async with Client() as client:
        answer = await client.request("POST", url + path, headers=headers, body=body, timeout_seconds=timeout_seconds)
    if answer.status != 200:  # OK
        raise ServeryError(f"{path}: HTTP {answer.status}: {answer.body.decode(errors='replace')}")
    return answer.body


async def curl(url: str, service: Manifest) -> str:
    """Return a command that a person can paste: a row of zeros where the model says how long a row is."""
    name = service["metadata"]["name"]
    base = f"curl -H 'Host: {name}-{service['metadata']['namespace']}.example.com' {url}"
    with contextlib.suppress(ServeryError, ValueError, LookupError, TypeError):
        async with Client() as client:
            answer = await client.request(
                "GET", f"{url}/v2/models/{name}", headers=[(b"host", host(service).encode())], timeout_seconds=5.0
            )
        if answer.status == 404:  # NOT FOUND
            # Its models have names of their own.
            return f"{base}/v1/models"
        inputs = json.loads(answer.body)["inputs"]
        _, *item = inputs[0]["shape"]
        if len(inputs) == 1 and item and all(size > 0 for size in item):
            return f"{base}/v1/models/{name}:predict -d '{json.dumps({'instances': [_zeros(item)]})}'"
    return f"{base}/v2/models/{name}"


def _zeros(shape: Sequence[int]) -> Json:
    return 0.0 if not shape else [_zeros(shape[1:]) for _ in range(shape[0])]


async def changes(paths: Sequence[Path]) -> AsyncIterator[None]:
    """Yield whenever one of ``paths``, or something in a folder of them, changes."""
    from watchfiles import Change, awatch

    wanted = {path.resolve() for path in paths}
    # Editors put a new file in the place of the old one, and a watch of the old one would see nothing after that.
    folders = {path if path.is_dir() else path.parent for path in wanted}

    def is_ours(_: Change, changed: str) -> bool:
        return not wanted.isdisjoint((Path(changed), Path(changed).parent))

    async for _ in awatch(*folders, watch_filter=is_ours, recursive=False):
        yield


def platform_on(plugins: Json, directory: Path, port: int | None, mode: str | None) -> Platform:
    """Return a platform on ``port``; without one, on 8080 or, where that is taken, any free one."""
    if port is not None:
        return Platform(plugins, directory, port=port, mode=mode)
    try:
        return Platform(plugins, directory, port=DEFAULT_PORT, mode=mode)
    except OSError:
        say(f"port {DEFAULT_PORT} is taken; using a free one")
        return Platform(plugins, directory, mode=mode)
