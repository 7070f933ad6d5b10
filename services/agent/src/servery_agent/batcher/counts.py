"""What the batcher counts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Waited(Protocol):
    @property
    def rows(self) -> int: ...

    @property
    def came(self) -> float: ...


class Histogram:
    """Counts of values up to each of ``bounds``, which rise."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Count values."""
        counts, bounds = self._counts, self._bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sum += sum(values)

    def family(self, name: str, meaning: str) -> Metric:
        """Return it as Prometheus has it."""
        histogram = HistogramMetricFamily(name, meaning)
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        histogram.add_metric([], buckets, self._sum)
        return histogram


class Counts:
    """Of one agent."""

    def __init__(self) -> None:
        self._requests = Histogram(_REQUESTS)
        self._rows = Histogram(_REQUESTS)
        self._waits = Histogram(_SECONDS)
        self._apart: dict[str, int] = {}

    def on_batch(self, asked: Sequence[_Waited], now: float) -> None:
        """Count a batch that goes."""
        self._requests.observe((len(asked),))
        self._rows.observe((sum([one.rows for one in asked]),))
        self._waits.observe([now - one.came for one in asked])

    def on_apart(self, why: str) -> None:
        """Count a batch whose requests are asked once more."""
        self._apart[why] = self._apart.get(why, 0) + 1

    def families(self) -> Iterator[Metric]:
        """Yield every family."""
        yield self._requests.family("servery_agent_batch_requests", "Requests that went to the component as one.")
        yield self._rows.family("servery_agent_batch_rows", "Rows, or instances, of those.")
        yield self._waits.family("servery_agent_batch_wait_seconds", "That a request waited for its batch to go.")
        retried = CounterMetricFamily(
            "servery_agent_batch_retries",
            "Batches whose requests were asked again one by one: the component said that input is wrong, failed, or its "
            "answer could not be taken apart (whole).",
            labels=["reason"],
        )
        for why, count in sorted(self._apart.items()):
            retried.add_metric([why], count)
        yield retried
