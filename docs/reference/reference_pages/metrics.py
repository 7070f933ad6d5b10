"""The page of the predictor's and the agent's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from servery_agent.batcher.counts import Counts
from servery_agent.metrics import Metrics as AgentMetrics
from servery_predictor.batching.loop import Ran
from servery_predictor.metrics import Metrics, known

from reference_pages.markdown import table


def page() -> str:
    """Return tables of what the predictor counts: under its own names, and under those of others."""
    metrics = Metrics(CollectorRegistry())
    own = [
        [
            f"`{family.name}{'_total' if family.kind == 'counter' else ''}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.label_names),
            family.documentation,
        ]
        for family in metrics.families()
    ]
    metrics.requests.labels("m", "v2", "OK").inc()
    metrics.requests.labels("m", "v2", "INTERNAL").inc()
    metrics.request_seconds.labels("m", "v2").observe(0)
    metrics.queue_requests.labels("m").set(0)
    metrics.ran("m", Ran(waits=[0.0], rows=1, seconds=0.0))
    others = [
        [
            f"`{metric.name}`",
            metric.type if metric.type != "unknown" else "counter or gauge, untyped",
            ", ".join(f"`{label}`" for label in metric.samples[0].labels if label != "le"),
            metric.documentation,
        ]
        for metric in known(metrics, "host")
    ]
    columns = ["metric", "type", "labels", "meaning"]
    return (
        "# Metrics\n\n## servery-predictor\n\nAt `/metrics` of the HTTP port. Units are in the names; a histogram "
        "has `_bucket`, `_sum` and `_count`. With several workers, whichever answers has added up the numbers of all; "
        "what a worker has counted outlives it.\n\n"
        f"{table(columns, own)}\n\nThe same numbers under the names that dashboards of KServe, Triton and TorchServe "
        f"ask for:\n\n{table(columns, others)}\n\n## servery-agent\n\nAt `/metrics` of `--metrics-port`; what is asked of "
        f"its other port goes to the component.\n\n{table(columns, _of_the_agent())}"
    )


def _of_the_agent() -> list[list[str]]:
    metrics = AgentMetrics()
    metrics.observe(200, 0.0)
    metrics.observe_call("OK", 0.0)
    metrics.batches = Counts()
    metrics.batches.on_apart("wrong")
    return [
        [
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            "" if family.type != "counter" else ", ".join(f"`{label}`" for label in family.samples[0].labels),
            family.documentation,
        ]
        for family in metrics.collect()
    ]
