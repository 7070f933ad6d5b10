"""What the daemon counts. An init container has nobody to scrape it: its report is in the controller's metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from servery_sdk.fetches import FetchReport

from servery_storage.store import Store

_SECONDS = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics(Collector):
    """Of one store. ``registry`` is what a scrape reads."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self._store = store
        self._seconds = Histogram(
            "servery_storage_fetch_seconds",
            "Fetches, from the call to the model in its place or to the failure.",
            ["code"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "servery_storage_fetched_bytes",
            "Bytes of models, by where they were: with the source, in the node's cache, or left by an earlier fetch.",
            ["origin"],
            registry=self.registry,
        )
        self._files = Counter("servery_storage_fetched_files", "Objects of models.", registry=self.registry)
        self._cached = Counter(
            "servery_storage_cached_files", "Those that the node's cache had.", registry=self.registry
        )
        self._retries = Counter(
            "servery_storage_retries", "Tries that failed and were followed by another.", registry=self.registry
        )
        self._running = 0
        self.registry.register(self)

    def begin(self) -> None:
        """Count a fetch that begins; ``end`` follows."""
        self._running += 1

    def end(self, code: str, report: FetchReport) -> None:
        """Count a fetch that ended, with ``OK`` or an error's code."""
        self._running -= 1
        self._seconds.labels(code).observe(report.seconds)
        self._bytes.labels("source").inc(report.fetched_bytes)
        self._bytes.labels("cache").inc(report.cached_bytes)
        self._bytes.labels("earlier").inc(report.kept_bytes)
        self._files.inc(report.files)
        self._cached.inc(report.cached_files)
        self._retries.inc(report.retries)

    def collect(self) -> Iterator[Metric]:
        """Yield what is true now."""
        models, quota = self._store.models(), self._store.quota_bytes
        held = sum(model.is_held for model in models)
        family = GaugeMetricFamily("servery_storage_models", "Models in the store.", labels=["held"])
        family.add_metric(["true"], held)
        family.add_metric(["false"], len(models) - held)
        yield family
        for name, meaning, value in (
            ("servery_storage_running_fetches", "Fetches that run now.", self._running),
            ("servery_storage_used_bytes", "Of what is in the store, and of what is coming.", self._store.used_bytes),
            ("servery_storage_quota_bytes", "What the store may hold; 0 is no bound.", quota),
        ):
            yield GaugeMetricFamily(name, meaning, value)
