"""What the metrics say, as ``servery.agent.v1`` says it: the two cannot disagree."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from servery_sdk.protos.servery.agent.v1 import agent_pb2 as pb


def stats_of(families: Iterable[Metric]) -> pb.AgentStats:
    """Return the numbers of the agent's own families."""
    found = _Found(families)
    stats = pb.AgentStats(
        is_draining=found.number("servery_agent_draining") == 1,
        requests=pb.Exchanges(
            by_code=found.by_label("servery_agent_requests"), seconds=found.histogram("servery_agent_request_seconds")
        ),
        calls=pb.Exchanges(
            by_code=found.by_label("servery_agent_calls"), seconds=found.histogram("servery_agent_call_seconds")
        ),
        inflight=found.number("servery_agent_inflight_requests"),
        queue=found.number("servery_agent_queue_requests"),
        connections=found.number("servery_agent_connections"),
        models=found.by_label("servery_agent_models"),
    )
    if "servery_agent_batch_requests" in found:
        stats.batches.CopyFrom(
            pb.Batches(
                requests=found.histogram("servery_agent_batch_requests"),
                rows=found.histogram("servery_agent_batch_rows"),
                wait_seconds=found.histogram("servery_agent_batch_wait_seconds"),
                retries=found.by_label("servery_agent_batch_retries"),
            )
        )
    return stats


def payload_log_of(families: Iterable[Metric]) -> pb.PayloadLog:
    """Return those of the payload log."""
    found = _Found(families)
    events = "servery_agent_payload_events"
    return pb.PayloadLog(
        is_sink_up=found.number("servery_agent_payload_sink_up") == 1,
        sink_failures=found.number("servery_agent_payload_sink_failures"),
        accepted=found.number(events),
        delivered=found.number(f"{events}_delivered"),
        dead=found.number(f"{events}_dead"),
        dropped=found.by_label(f"{events}_dropped"),
        waiting=found.number("servery_agent_payload_waiting_events"),
        queue_bytes=found.number("servery_agent_payload_queue_bytes"),
        spool_bytes=found.number("servery_agent_payload_spool_bytes"),
    )


class _Found:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = {family.name: family for family in families}

    def __contains__(self, name: str) -> bool:
        return name in self._families

    def number(self, name: str) -> int:
        """Return the value of a family that has one."""
        return int(self._families[name].samples[0].value)

    def by_label(self, name: str) -> dict[str, int]:
        """Return the values of a family that has one label."""
        return {next(iter(one.labels.values())): int(one.value) for one in self._families[name].samples}

    def histogram(self, name: str) -> pb.Histogram:
        samples = self._families[name].samples
        buckets = [(one.labels["le"], int(one.value)) for one in samples if one.name.endswith("_bucket")]
        counts = [count for _, count in buckets]
        return pb.Histogram(
            bounds=[float(bound) for bound, _ in buckets if bound != "+Inf"],
            counts=[count - before for count, before in zip(counts, [0, *counts], strict=False)],
            sum=next(one.value for one in samples if one.name.endswith("_sum")),
        )
