"""Counters, gauges and histograms of one process or of several, read as one.

``prometheus_client`` counts under a lock, 1.5 microseconds a number, and its multi-process mode writes files; a request
moves five numbers. Here a number is eight bytes of memory that siblings share: each process writes its own shelf, none
waits, and whoever is asked adds them up. The registry, the families and the text format are ``prometheus_client``'s.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

logger = logging.getLogger(__name__)

_NAMES_BYTES = 4 << 20
_NUMBERS = 1 << 20
_HEAD_BYTES = 16

Labels: TypeAlias = tuple[str, ...]


class Shelf:
    """The numbers of one process. Made before processes part, all of them can read it; only its owner may write.

    A mapping of memory that is only used where it is touched: first the names, a line each, then the numbers.
    """

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, _NAMES_BYTES + 8 * _NUMBERS))
        self._names = memory[_HEAD_BYTES:_NAMES_BYTES]
        self._length = memory[:_HEAD_BYTES].cast("Q")
        self._numbers = memory[_NAMES_BYTES:].cast("d")
        self._used = 0

    def adopt(self) -> dict[tuple[str, Labels], memoryview[float]]:
        """Take over what a process before this one has counted: a counter that falls would look like a restart."""
        found = {}
        for family, labels, numbers in self.series():
            found[family, labels] = numbers
            self._used += len(numbers)
        return found

    def add(self, family: str, labels: Labels, size: int) -> memoryview[float]:
        """Return ``size`` numbers, all 0, for a new series."""
        line = json.dumps([family, labels, self._used, size]).encode() + b"\n"
        start = self._length[0]
        if start + len(line) > len(self._names) or self._used + size > _NUMBERS:
            logger.error("too many series; one more is not shown", extra={"series": f"{family}{labels}"})
            return memoryview(bytearray(8 * size)).cast("d")
        self._names[start : start + len(line)] = line
        added = self._numbers[self._used : self._used + size]
        self._used += size
        # Last: a reader sees a line whole, or not at all.
        self._length[0] = start + len(line)
        return added

    def series(self) -> Iterator[tuple[str, Labels, memoryview[float]]]:
        """Yield family, labels and numbers of everything on it."""
        for line in bytes(self._names[: self._length[0]]).splitlines():
            family, labels, start, size = json.loads(line)
            yield family, tuple(labels), self._numbers[start : start + size]


class Shelves:
    """All processes' shelves.

    Args:
        count: Of processes.
    """

    def __init__(self, count: int = 1) -> None:
        self._all = tuple(Shelf() for _ in range(count))
        self._own = 0
        self._adopted: dict[tuple[str, Labels], memoryview[float]] = {}

    def own(self, index: int) -> None:
        """Say which one this process writes; before it writes any."""
        self._own = index
        self._adopted = self._all[index].adopt()

    def series(self, family: str, labels: Labels, size: int) -> memoryview[float]:
        """Return this process's numbers of a series."""
        return self._adopted.pop((family, labels), None) or self._all[self._own].add(family, labels, size)

    def read(self, family: str, fold: Callable[[Iterable[float]], float]) -> dict[Labels, list[float]]:
        """Return every series of a family, folded over all processes."""
        found: dict[Labels, list[memoryview[float]]] = {}
        for shelf in self._all:
            for name, labels, numbers in shelf.series():
                if name == family:
                    found.setdefault(labels, []).append(numbers)
        return {labels: [fold(each) for each in zip(*every, strict=True)] for labels, every in sorted(found.items())}

    def clear(self, index: int, family: str) -> None:
        """Forget what a process that is no more said of its state."""
        for name, _, numbers in self._all[index].series():
            if name == family:
                numbers[0] = math.nan


class _Value:
    """One series of a counter or a gauge."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: memoryview[float]) -> None:
        self._numbers = numbers

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self._numbers[0] += amount

    def set(self, value: float) -> None:
        """Put it in the place of what was there."""
        self._numbers[0] = value


class _Distribution:
    """One series of a histogram: a count for each bucket, what is above all of them, and the sum."""

    __slots__ = ("_bounds", "_numbers")

    def __init__(self, numbers: memoryview[float], bounds: Sequence[float]) -> None:
        self._numbers = numbers
        self._bounds = bounds

    def observe(self, value: float) -> None:
        """Count one value."""
        numbers = self._numbers
        numbers[bisect_left(self._bounds, value)] += 1.0
        numbers[-1] += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count several values, which mostly fall into one bucket or two."""
        bounds, numbers = self._bounds, self._numbers
        buckets = [bisect_left(bounds, value) for value in values]
        for bucket in set(buckets):
            numbers[bucket] += buckets.count(bucket)
        numbers[-1] += sum(values)


_Series = TypeVar("_Series", _Value, _Distribution)


class Family(Generic[_Series]):
    """Series of one name, by their labels."""

    kind: str
    size = 1

    def __init__(self, shelves: Shelves, name: str, documentation: str, labels: Labels) -> None:
        self.name, self.documentation, self.label_names = name, documentation, labels
        self._shelves = shelves
        self._series: dict[Labels, _Series] = {}

    def labels(self, *values: str) -> _Series:
        """Return the series of these labels' values."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self._made(self._shelves.series(self.name, values, self.size))
        return found

    def _made(self, numbers: memoryview[float]) -> _Series:
        raise NotImplementedError

    def read(self) -> dict[Labels, list[float]]:
        """Return the numbers of all processes together."""
        return self._shelves.read(self.name, sum)

    def collect(self) -> Metric:
        """Return it as ``prometheus_client`` writes it."""
        raise NotImplementedError


class Counter(Family[_Value]):
    """What only grows; ``_total`` is added to its name."""

    kind = "counter"

    def _made(self, numbers: memoryview[float]) -> _Value:
        return _Value(numbers)

    def collect(self) -> Metric:
        """Return it as ``prometheus_client`` writes it."""
        made = CounterMetricFamily(self.name, self.documentation, labels=self.label_names)
        for labels, (value,) in self.read().items():
            made.add_metric(labels, value)
        return made


class Gauge(Family[_Value]):
    """What goes up and down.

    Args:
        fold: What the values of several processes make.
    """

    kind = "gauge"

    def __init__(
        self,
        shelves: Shelves,
        name: str,
        documentation: str,
        labels: Labels,
        *,
        fold: Callable[[Iterable[float]], float] = sum,
    ) -> None:
        super().__init__(shelves, name, documentation, labels)
        self._fold = fold

    def _made(self, numbers: memoryview[float]) -> _Value:
        return _Value(numbers)

    def read(self) -> dict[Labels, list[float]]:
        """Return the values of all processes, folded."""
        folded = self._shelves.read(self.name, self._present)
        return {labels: values for labels, values in folded.items() if not math.isnan(values[0])}

    def _present(self, values: Iterable[float]) -> float:
        present = [value for value in values if not math.isnan(value)]
        return self._fold(present) if present else math.nan

    def clear(self, index: int) -> None:
        """Forget what a process that is no more has said."""
        self._shelves.clear(index, self.name)

    def collect(self) -> Metric:
        """Return it as ``prometheus_client`` writes it."""
        made = GaugeMetricFamily(self.name, self.documentation, labels=self.label_names)
        for labels, (value,) in self.read().items():
            made.add_metric(labels, value)
        return made


class Histogram(Family[_Distribution]):
    """How values are spread.

    Args:
        buckets: Upper bounds, rising.
    """

    kind = "histogram"

    def __init__(
        self, shelves: Shelves, name: str, documentation: str, labels: Labels, *, buckets: Sequence[float]
    ) -> None:
        super().__init__(shelves, name, documentation, labels)
        self.buckets = tuple(buckets)
        self.size = len(buckets) + 2

    def _made(self, numbers: memoryview[float]) -> _Distribution:
        return _Distribution(numbers, self.buckets)

    def collect(self) -> Metric:
        """Return it as ``prometheus_client`` writes it."""
        return self.collected(self.name, self.documentation, self.label_names, self.read())

    def collected(
        self, name: str, documentation: str, label_names: Labels, series: dict[Labels, list[float]]
    ) -> HistogramMetricFamily:
        """Return numbers of this histogram's form under a name."""
        made = HistogramMetricFamily(name, documentation, labels=label_names)
        bounds = [*map(floatToGoString, self.buckets), "+Inf"]
        for labels, numbers in series.items():
            made.add_metric(labels, list(zip(bounds, itertools.accumulate(numbers[:-1]), strict=True)), numbers[-1])
        return made
