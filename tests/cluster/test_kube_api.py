"""The contract of ``KubeApi``, passed by a real API server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from servery_kube import client
from servery_kube.client import KubeClient
from servery_kube.port import WatchEvent
from servery_kube.testing import WIDGET, WIDGET_CRD, KubeApiContract
from servery_sdk import kinds
from servery_sdk.manifests import ObjectRef


class TestKubeClient(KubeApiContract):
    @pytest.fixture
    async def api(self, admin: KubeClient) -> KubeClient:
        await admin.apply(WIDGET_CRD, kinds.CUSTOM_RESOURCE_DEFINITION)
        async with asyncio.timeout(30):
            while not await admin.has(WIDGET):  # noqa: ASYNC110  # the API server changes it
                await asyncio.sleep(0.05)
        return admin

    async def test_watch_outlives_the_servers_patience(
        self, api: KubeClient, widget: Any, ref: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "WATCH_SECONDS", 1)
        version = (await api.list(WIDGET, namespace=namespace)).resource_version
        events: list[WatchEvent] = []
        sent: list[str] = []
        stream = api._stream

        def counting(path: str, query: Any) -> Any:
            sent.append(query["resourceVersion"])
            return stream(path, query)

        monkeypatch.setattr(api, "_stream", counting)

        async def watch() -> None:
            async for event in api.watch(WIDGET, namespace=namespace, resource_version=version):
                events.append(event)  # noqa: PERF401  # others look at it meanwhile

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(30):
            number = 0
            while len(sent) < 3:
                # Others' changes move the version that the server's bookmarks carry.
                await api.apply(widget(size=number), WIDGET)
                number += 1
                await asyncio.sleep(0.1)
            while not events or events[-1].object["spec"].get("size") != number - 1:  # noqa: ASYNC110  # likewise
                await asyncio.sleep(0.05)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        sizes = [event.object["spec"]["size"] for event in events]
        assert sizes == list(range(number))
        assert len(set(sent)) > 1
        await api.delete(ObjectRef(WIDGET, ref().namespace, "w"))
