"""What the agent counts. ``prometheus_client`` counts under a lock; a request here adds to two lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from servery_http.gateway.server import Gateway

from servery_agent.batcher.counts import Counts, Histogram
from servery_agent.payloads.ledger import Count
from servery_agent.payloads.log import PayloadLog
from servery_agent.puller.decider import State

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics(Collector):
    """Of one agent.

    Attributes:
        gateway: Whose connections and queue are shown, once there is one.
        batches: What the batcher counts, where there is one.
        log: Whose events are shown; all counts are 0 where payloads are not logged.
        models: How far the models are that are assigned, one by one; None where none are.
        sources: Whose metrics are told as well, and whether they could be had.
    """

    def __init__(self) -> None:
        self._by_status: dict[int, int] = {}
        self._seconds = Histogram(_BOUNDS)
        self._calls_by_status: dict[str, int] = {}
        self._call_seconds = Histogram(_BOUNDS)
        self.gateway: Gateway | None = None
        self.batches: Counts | None = None
        self.log: PayloadLog | None = None
        self.models: Callable[[], Iterable[State]] | None = None
        self.sources: dict[str, bool] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, status: int, seconds: float) -> None:
        """Count an exchange."""
        self._by_status[status] = self._by_status.get(status, 0) + 1
        self._seconds.observe((seconds,))

    def observe_call(self, status: str, seconds: float) -> None:
        """Count a call over HTTP/2."""
        self._calls_by_status[status] = self._calls_by_status.get(status, 0) + 1
        self._call_seconds.observe((seconds,))

    @property
    def counted(self) -> int:
        """Exchanges and calls so far."""
        return sum(self._by_status.values()) + sum(self._calls_by_status.values())

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
        yield self._seconds.family(
            "servery_agent_request_seconds",
            "From a request's head to the end of its answer, the wait at the gate included.",
        )
        calls = CounterMetricFamily(
            "servery_agent_calls",
            "Calls over HTTP/2 by the name of gRPC's status; by HTTP's number where they are no gRPC.",
            labels=["code"],
        )
        for name, count in sorted(self._calls_by_status.items()):
            calls.add_metric([name], count)
        yield calls
        yield self._call_seconds.family("servery_agent_call_seconds", "Likewise of a call over HTTP/2.")
        if self.batches is not None:
            yield from self.batches.families()
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
        sources = GaugeMetricFamily(
            "servery_agent_metrics_source_up",
            "1 where the metrics of a program beside are among these, 0 where they could not be had.",
            labels=["source"],
        )
        for name, is_up in self.sources.items():
            sources.add_metric([name], int(is_up))
        yield sources
        yield from _of_log(self.log)


_GAUGES: tuple[tuple[str, str, Callable[[Gateway], int]], ...] = (
    ("servery_agent_inflight_requests", "Requests and calls that are with the component.", lambda g: g.gate.inside),
    ("servery_agent_queue_requests", "Requests and calls that wait for that.", lambda g: g.gate.waiting),
    ("servery_agent_draining", "1 once the agent was asked to drain, or to end.", lambda g: int(g.is_leaving)),
    ("servery_agent_connections", "Connections of clients that are open.", lambda g: g.connections),
)

_COUNTERS: tuple[tuple[str, str, tuple[tuple[str, Count], ...]], ...] = (
    ("servery_agent_payload_events", "Events of the payload log that were accepted.", (("", Count.ACCEPTED),)),
    (
        "servery_agent_payload_events_delivered",
        "Those that the sink has; one that was sent again counts again.",
        (("", Count.DELIVERED),),
    ),
    (
        "servery_agent_payload_events_dead",
        "Those that the sink refused for good, put aside on disk.",
        (("", Count.DEAD),),
    ),
    (
        "servery_agent_payload_events_dropped",
        "Events that are lost: memory or spool were full, the disk failed, the agent was killed, too many were refused.",
        (
            ("queue_full", Count.DROPPED_QUEUE_FULL),
            ("spool_full", Count.DROPPED_SPOOL_FULL),
            ("disk", Count.DROPPED_DISK),
            ("crash", Count.DROPPED_CRASH),
            ("dead_letters_full", Count.DEAD_LOST),
        ),
    ),
    (
        "servery_agent_payload_events_withheld",
        "Events without their body: what is to be redacted in it could not be found.",
        (("", Count.WITHHELD),),
    ),
    ("servery_agent_payload_spooled_bytes", "Written to the spool.", (("", Count.SPOOLED_BYTES),)),
    ("servery_agent_payload_sink_failures", "Attempts to deliver that failed.", (("", Count.FAILED_ATTEMPTS),)),
)
_LOG_GAUGES: tuple[tuple[str, str, Callable[[PayloadLog], int]], ...] = (
    (
        "servery_agent_payload_sink_up",
        "1 unless the last attempt to deliver failed.",
        lambda log: 1 - log.ledger[Count.IS_FAILING],
    ),
    ("servery_agent_payload_queue_bytes", "In memory, on its way to the spool.", lambda log: log.records.held_bytes),
    ("servery_agent_payload_spool_bytes", "In the spool, what it frees next included.", lambda log: log.spool_bytes),
    ("servery_agent_payload_waiting_events", "Accepted, and not delivered yet.", lambda log: log.waiting),
    (
        "servery_agent_payload_deliverer_restarts",
        "How often the process that delivers ended.",
        lambda log: log.restarts,
    ),
)


def _of_log(log: PayloadLog | None) -> Iterator[Metric]:
    for name, meaning, counts in _COUNTERS:
        labels = ["reason"] if len(counts) > 1 else []
        counter = CounterMetricFamily(name, meaning, labels=labels)
        for reason, count in counts:
            counter.add_metric([reason] if labels else [], 0 if log is None else log.ledger[count])
        yield counter
    for name, meaning, value in _LOG_GAUGES:
        gauge = GaugeMetricFamily(name, meaning)
        gauge.add_metric([], 0 if log is None else value(log))
        yield gauge
