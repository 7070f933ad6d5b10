"""What the agent counts. ``prometheus_client`` counts under a lock; a request here adds to two lists."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from servery_http.gateway.server import Gateway

from servery_agent.puller.decider import State

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics(Collector):
    """Of one agent.

    Attributes:
        gateway: Whose connections and queue are shown, once there is one.
        models: How far the models are that are assigned, one by one; None where none are.
    """

    def __init__(self) -> None:
        self._by_status: dict[int, int] = {}
        self._by_seconds = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0
        self.gateway: Gateway | None = None
        self.models: Callable[[], Iterable[State]] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, status: int, seconds: float) -> None:
        """Count an exchange."""
        self._by_status[status] = self._by_status.get(status, 0) + 1
        self._by_seconds[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        requests = CounterMetricFamily(
            "servery_agent_requests",
            "Requests by the status that their client was told; 499 where it went away before.",
            labels=["code"],
        )
        for status, count in sorted(self._by_status.items()):
            requests.add_metric([str(status)], count)
        yield requests
        yield self._histogram()
        models = GaugeMetricFamily(
            "servery_agent_models", "Models that are assigned, by how far they are.", labels=["state"]
        )
        found = list(self.models()) if self.models is not None else []
        for state in State if self.models is not None else ():
            models.add_metric([state.value.lower()], found.count(state))
        yield models
        for name, meaning, value in _GAUGES:
            gauge = GaugeMetricFamily(name, meaning)
            if self.gateway is not None:
                gauge.add_metric([], value(self.gateway))
            yield gauge

    def _histogram(self) -> Metric:
        histogram = HistogramMetricFamily(
            "servery_agent_request_seconds",
            "From a request's head to the end of its answer, the wait at the gate included.",
        )
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._by_seconds, strict=True):
            total += count
            buckets.append((bound, total))
        histogram.add_metric([], buckets, self._seconds)
        return histogram


_GAUGES: tuple[tuple[str, str, Callable[[Gateway], int]], ...] = (
    ("servery_agent_inflight_requests", "Requests that are with the component now.", lambda g: g.gate.inside),
    ("servery_agent_queue_requests", "Requests that wait for that.", lambda g: g.gate.waiting),
    ("servery_agent_connections", "Connections of clients that are open.", lambda g: g.connections),
)
