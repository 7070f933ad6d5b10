"""The page of the predictor's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from servery_predictor.metrics import Metrics

from reference_pages.markdown import table


def page() -> str:
    """Return a table of what the predictor counts."""
    rows = []
    for metric in vars(Metrics(CollectorRegistry())).values():
        if isinstance(metric, MetricWrapperBase):
            (described,) = metric.describe()
            name = described.name + ("_total" if described.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001  # told nowhere else
            rows.append([f"`{name}`", described.type, labels, described.documentation])
    return (
        "# Metrics\n\n## servery-predictor\n\nAt `/metrics` of the HTTP port. Units are in the names; a histogram "
        f"has `_bucket`, `_sum` and `_count`.\n\n{table(['metric', 'type', 'labels', 'meaning'], rows)}"
    )
