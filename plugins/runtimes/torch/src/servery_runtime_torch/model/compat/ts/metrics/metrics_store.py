"""Takes what handlers count, and keeps nothing: the predictor's own metrics are at ``/metrics``."""

from __future__ import annotations

from typing import Any


class Metric:
    """One metric."""

    def add_or_update(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def update(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class MetricsStore:
    """Answers every ``add_…`` and ``get_metric`` that a handler may call."""

    def add_metric(self, *_: Any, **__: Any) -> Metric:
        """Return a metric."""
        return Metric()

    add_counter = add_gauge = add_histogram = add_time = add_size = add_percent = add_error = add_metric
    add_metric_to_cache = get_metric = add_metric
