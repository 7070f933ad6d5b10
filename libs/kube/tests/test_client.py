"""What the client leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from servery_kube.client import connect
from servery_sdk import kinds
from stand_ins.certificates import certified

EVENT = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "2"}}}).encode() + b"\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def heard() -> threading.Event:
    return threading.Event()


@pytest.fixture
def kubeconfig(tmp_path: Path, heard: threading.Event) -> Iterator[str]:
    """Of a server that answers a watch by one event, and else nothing: no goodbye either."""
    _, certificate = certified(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            accepted, _ = listening.accept()
            watched = stack.enter_context(context.wrap_socket(accepted, server_side=True))
            asked = watched.recv(65536)
            heard.set()
            if b"watch=true" in asked:
                watched.sendall(HEAD + b"%x\r\n%b\r\n" % (len(EVENT), EVENT))

        serving = threading.Thread(target=serve, name="api-server")
        serving.start()
        cluster = {
            "server": f"https://127.0.0.1:{listening.getsockname()[1]}",
            "certificate-authority": str(certificate),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "a", "cluster": cluster}],
            "users": [{"name": "a", "user": {"token": "t"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        yield str(tmp_path / "config")
        serving.join(10)


@pytest.mark.parametrize("is_watch", [True, False])
def test_what_is_given_up_leaves_no_socket_open(kubeconfig: str, heard: threading.Event, is_watch: bool) -> None:
    async def main() -> None:
        seen = asyncio.Event()

        async def watch() -> None:
            async for _ in client.watch(kinds.POD, namespace="a", resource_version="1"):
                seen.set()

        async with connect(kubeconfig) as client:
            asking = asyncio.create_task(watch() if is_watch else client.list(kinds.POD, namespace="a"))
            await asyncio.wait_for(seen.wait() if is_watch else asyncio.to_thread(heard.wait, 20), 20)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert [str(one.message) for one in told if issubclass(one.category, ResourceWarning)] == []
