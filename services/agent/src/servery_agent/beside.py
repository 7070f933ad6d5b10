"""The metrics of the programs beside, such as the component and Knative's queue-proxy, told with the agent's on one port."""

from __future__ import annotations

import asyncio
import logging

from servery_http.client import Client
from servery_sdk.errors import ServeryError

from servery_agent.merging import NotMetrics, Page, Parsed, merged, parsed
from servery_agent.metrics import Metrics
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

_QUEUE_PROXY = "queue-proxy"
_ACCEPT = [(b"accept", b"text/plain;version=0.0.4")]


class Beside:
    """Whom one agent asks. What one of them does not tell costs nobody the others' numbers."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.metrics_timeout_seconds
        # Queue-proxy says them itself. Source: KServe qpext/cmd/qpext/main.go, addServerlessLabels.
        self._labels = {
            name: value
            for name, value in (
                ("service_name", settings.knative_service),
                ("configuration_name", settings.knative_configuration),
                ("revision_name", settings.knative_revision),
            )
            if value
        }
        self._urls: dict[str, str] = {}
        if settings.component_metrics_port is not None:
            at = f"{settings.component_host}:{settings.component_metrics_port}"
            self._urls["component"] = f"http://{at}/{settings.component_metrics_path.lstrip('/')}"
        for source, port in (
            ("storage-daemon", settings.storage_metrics_port),
            (_QUEUE_PROXY, settings.queue_proxy_metrics_port),
        ):
            if port is not None:
                self._urls[source] = f"http://{settings.component_host}:{port}/metrics"

    async def page(self, metrics: Metrics) -> bytes:
        """Return what ``metrics`` and all others tell, in Prometheus' text format."""
        if not self._urls:
            return metrics.text()
        async with Client() as client:
            found = await asyncio.gather(*(self._asked(client, source, url) for source, url in self._urls.items()))
        metrics.sources = dict(zip(self._urls, (page is not None for page in found), strict=True))
        own = Page(source="agent", text=metrics.text().decode(), labels=self._labels)
        # In a thread: a long page would keep requests waiting.
        return await asyncio.to_thread(_merged, own, [page for page in found if page is not None])

    async def _asked(self, client: Client, source: str, url: str) -> Parsed | None:
        try:
            answer = await client.request("GET", url, headers=_ACCEPT, timeout_seconds=self._seconds)
            if answer.status != 200:
                raise NotMetrics(f"status {answer.status}")
            labels = {} if source == _QUEUE_PROXY else self._labels
            page = Page(source=source, text=answer.body.decode(errors="replace"), labels=labels)
            return await asyncio.to_thread(parsed, page)
        except (ServeryError, NotMetrics) as error:
            logger.warning("metrics are left out", extra={"source": source, "reason": str(error)})
            return None


def _merged(own: Page, others: list[Parsed]) -> bytes:
    return merged([parsed(own), *others]).encode()
