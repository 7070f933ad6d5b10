"""What the controller tells Prometheus: of each pod that is there, how its models came. Init containers that have ended
cannot be asked themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from servery_sdk.manifests import Manifest, ObjectRef

from servery_controller.planning.fetches import fetched

_POD = ("namespace", "service", "pod")


class FetchMetrics(Collector):
    """Of the pods that ``pods`` yields with their services. Nothing is accumulated: a pod that is gone is not told."""

    def __init__(self, pods: Callable[[], Iterable[tuple[ObjectRef, Manifest]]]) -> None:
        self._pods = pods

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        seconds = _family("seconds", "From the init container's first request to the model in its place.")
        size = _family("bytes", "Bytes of the models, by where they were.", "origin")
        files = _family("files", "Objects of the models.")
        cached = _family("cached_files", "Those that the node's cache had.")
        retries = _family("retries", "Tries that failed and were followed by another.")
        failures = _family("failures", "Ends of the init container without the models.")
        for service, pod in self._pods():
            found = fetched(pod)
            if found is None:
                continue
            labels = [service.namespace, service.name, found.pod]
            failures.add_metric(labels, found.failures)
            if (report := found.report) is None:
                continue
            seconds.add_metric(labels, report.seconds)
            files.add_metric(labels, report.files)
            cached.add_metric(labels, report.cached_files)
            retries.add_metric(labels, report.retries)
            size.add_metric([*labels, "source"], report.fetched_bytes)
            size.add_metric([*labels, "cache"], report.cached_bytes)
            size.add_metric([*labels, "earlier"], report.kept_bytes)
        yield from (seconds, size, files, cached, retries, failures)


@contextlib.contextmanager
def exposed(collector: Collector) -> Iterator[None]:
    """Let ``/metrics`` tell of ``collector`` until the end of the block."""
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


def _family(what: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"servery_controller_model_fetch_{what}", meaning, labels=[*_POD, *labels])
