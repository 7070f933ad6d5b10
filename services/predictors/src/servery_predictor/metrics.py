"""What the predictor counts, under its own names and under those that people graph already."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from servery_sdk.errors import ErrorCode, ServeryError

from servery_predictor.batching.loop import Ran
from servery_predictor.batching.tickets import Outcome, Ticket
from servery_predictor.counting import Counter, Family, Gauge, Histogram, Labels, Shelves

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_VERSION = "1"
"""Where Triton's and TorchServe's metrics name a version: a model here is of one, and seldom says which."""

_KSERVES = "request_predict_seconds"


class Metrics:
    """The predictor's metrics, in a registry of their own or the process's.

    Args:
        registry: Shows them.
        shelves: Where the numbers are; those of several processes are added up.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, shelves: Shelves | None = None) -> None:
        self.registry = registry
        shelves = shelves or Shelves()
        model = ("model",)
        self.requests = Counter(
            shelves, "servery_predictor_requests", "Answered inference requests.", ("model", "protocol", "code")
        )
        self.request_seconds = Histogram(
            shelves,
            "servery_predictor_request_seconds",
            "From decoded request to answer, the wait for the model included.",
            ("model", "protocol"),
            buckets=_SECONDS,
        )
        self.failed_seconds = Counter(
            shelves,
            "servery_predictor_request_failed_seconds",
            "The part of servery_predictor_request_seconds that ended in errors.",
            model,
        )
        self.queue_seconds = Histogram(
            shelves,
            "servery_predictor_queue_seconds",
            "A request's wait for the model.",
            model,
            buckets=_SECONDS,
        )
        self.queue_requests = Gauge(
            shelves, "servery_predictor_queue_requests", "Requests that wait for the model.", model
        )
        self.batch_rows = Histogram(
            shelves, "servery_predictor_batch_rows", "Rows of one call of the model.", model, buckets=_ROWS
        )
        self.batch_requests = Histogram(
            shelves, "servery_predictor_batch_requests", "Requests of one call of the model.", model, buckets=_REQUESTS
        )
        self.predict_seconds = Histogram(
            shelves, "servery_predictor_predict_seconds", "One call of the model.", model, buckets=_SECONDS
        )
        self.shared_seconds = Counter(
            shelves,
            "servery_predictor_request_predict_seconds",
            "Calls of the model as requests see them: one for three requests counts three times.",
            model,
        )
        self.batch_sizes = BatchSizes(shelves)
        self.prompt_tokens = Counter(
            shelves, "servery_predictor_prompt_tokens", "Tokens of prompts and of texts to embed or rank.", model
        )
        self.generated_tokens = Counter(shelves, "servery_predictor_generated_tokens", "Tokens generated.", model)
        self.first_token_seconds = Histogram(
            shelves,
            "servery_predictor_first_token_seconds",
            "From decoded request to the first piece of a streamed text.",
            model,
            buckets=_SECONDS,
        )
        self.ready = Gauge(
            shelves,
            "servery_predictor_model_ready",
            "1 where the model answers, in every worker.",
            model,
            fold=min,
        )
        self.workers = Gauge(shelves, "servery_predictor_workers", "Processes that serve.", ())
        self.worker_deaths = Counter(
            shelves, "servery_predictor_worker_deaths", "Processes that ended unasked and were replaced.", ()
        )
        registry.register(self)

    def families(self) -> tuple[Family[Any], ...]:
        """Return everything that is counted, in the order of this class."""
        return tuple(value for value in vars(self).values() if isinstance(value, Family))

    def collect(self) -> Iterator[Metric]:
        """Yield what ``/metrics`` says."""
        for family in self.families():
            yield family.collect()
        yield from known(self, socket.gethostname())

    def describe(self) -> Iterator[Metric]:
        """Yield names alone, which the registry keeps apart from others'; not KServe's, whose package claims it."""
        yield from (metric for metric in self.collect() if metric.name != _KSERVES)

    def answered(self, model: str, protocol: str, code: str, seconds: float) -> None:
        """Count one request, answered or given up."""
        if code != "OK":
            # An unknown name is the client's invention and would be a label without bounds.
            model = "" if code == ErrorCode.NOT_FOUND else model
            self.failed_seconds.labels(model).inc(seconds)
        self.requests.labels(model, protocol, code).inc()
        self.request_seconds.labels(model, protocol).observe(seconds)

    def answered_all(self, tickets: Sequence[Ticket], outcomes: Sequence[Outcome]) -> None:
        """Count the requests of one call of a model, but those that were given up and counted before."""
        now = time.perf_counter()
        taken: dict[tuple[str, str], list[float]] = {}
        model: str | None = None
        protocol, some = "", list[float]()
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            if ticket.is_over:
                continue
            asked = ticket.request.model
            if isinstance(outcome, ServeryError):
                self.answered(asked, ticket.protocol, outcome.code, now - ticket.came)
                continue
            # Mostly all are alike.
            if ticket.protocol != protocol or asked != model:
                model, protocol = asked, ticket.protocol
                some = taken.setdefault((model, protocol), [])
            some.append(now - ticket.came)
        for (model, protocol), seconds in taken.items():
            self.requests.labels(model, protocol, "OK").inc(len(seconds))
            self.request_seconds.labels(model, protocol).observe_all(seconds)

    def ran(self, model: str, ran: Ran) -> None:
        """Count one call of a model."""
        self.batch_rows.labels(model).observe(ran.rows)
        self.batch_requests.labels(model).observe(len(ran.waits))
        self.predict_seconds.labels(model).observe(ran.seconds)
        self.batch_sizes.add(model, ran.rows, ran.seconds)
        self.shared_seconds.labels(model).inc(ran.seconds * len(ran.waits))
        self.queue_seconds.labels(model).observe_all(ran.waits)


class BatchSizes:
    """Calls by their exact rows, and the time of the last one: for the statistics extension.

    As series of ``/metrics`` they would be too many. Nothing has 0 rows: the time stands in that place.
    """

    _FAMILY = "servery_predictor_batch_sizes"
    _MOST_ROWS = 1024

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self._series: dict[str, memoryview[float]] = {}

    def add(self, model: str, rows: int, seconds: float) -> None:
        """Count a call; one of more rows than 1024 is not told apart and not counted."""
        numbers = self._series.get(model)
        if numbers is None:
            numbers = self._series[model] = self._shelves.series(self._FAMILY, (model,), 2 * (self._MOST_ROWS + 1))
        numbers[0] = time.time()
        if rows <= self._MOST_ROWS:
            rows *= 2
            numbers[rows] += 1.0
            numbers[rows + 1] += seconds

    def read(self, model: str) -> Iterator[tuple[int, float, float]]:
        """Yield rows, calls and seconds of each size that there was, in all processes together."""
        numbers = self._shelves.read(self._FAMILY, sum).get((model,), [])
        for rows, (calls, seconds) in enumerate(zip(numbers[2::2], numbers[3::2], strict=True), 1):
            if calls:
                yield rows, calls, seconds

    def last(self, model: str) -> float:
        """Return when the last call ended, in seconds since 1970; 0 where there was none."""
        return self._shelves.read(self._FAMILY, max).get((model,), [0.0])[0]


_REASONS = {"RESOURCE_EXHAUSTED": "REJECTED", "CANCELLED": "CANCELED", "INTERNAL": "BACKEND"}
"""Triton's words for why a request failed; OTHER for all others."""


def known(metrics: Metrics, hostname: str) -> Iterator[Metric]:
    """Yield the same numbers under the names of KServe, Triton and TorchServe.

    Triton's and TorchServe's counters have no ``_total`` where prometheus_client would add one: their type is left
    open, which no query minds.

    Source: KServe python/kserve/kserve/metrics.py; Triton, "Metrics"; TorchServe, "Metrics API".
    """
    seconds = _by_model(metrics.request_seconds.read())
    yield metrics.request_seconds.collected(
        _KSERVES,
        "KServe's name: from decoded request to answer, of all protocols.",
        ("model_name",),
        seconds,
    )
    requests = metrics.requests.read()
    success = _by_model({labels: value for labels, value in requests.items() if labels[2] == "OK"})
    failures: dict[Labels, float] = {}
    for (model, _, code), (value,) in requests.items():
        if code != "OK":
            labels = (model, _VERSION, _REASONS.get(code, "OTHER"))
            failures[labels] = failures.get(labels, 0.0) + value
    rows, computed = metrics.batch_rows.read(), metrics.shared_seconds.read()
    queued = metrics.queue_seconds.read()
    waiting = metrics.queue_requests.read()
    triton = ("model", "version")
    for name, meaning, numbers in (
        ("nv_inference_request_success", "requests answered well", success),
        ("nv_inference_count", "inferences: a batch of n rows counts n", _sums(rows)),
        ("nv_inference_exec_count", "calls of the model", {labels: [_count(of)] for labels, of in rows.items()}),
        ("nv_inference_pending_request_count", "requests that wait", waiting),
        ("nv_inference_request_duration_us", "cumulative, from decoded request to answer", _sums(seconds, 1e6)),
        ("nv_inference_queue_duration_us", "cumulative, of waits for the model", _sums(queued, 1e6)),
        ("nv_inference_compute_infer_duration_us", "cumulative, of calls as requests see them", _sums(computed, 1e6)),
    ):
        yield _metric(name, f"Triton's name: {meaning}.", triton, {(m, _VERSION): v for (m,), (v,) in numbers.items()})
    yield _metric(
        "nv_inference_request_failure",
        "Triton's name: requests that failed, and why.",
        ("model", "version", "reason"),
        failures,
    )
    torchserve = ("model_name", "model_version", "hostname")
    everything = _by_model(requests)
    for name, meaning, numbers in (
        ("ts_inference_requests_total", "requests", everything),
        ("ts_inference_latency_microseconds", "cumulative, from decoded request to answer", _sums(seconds, 1e6)),
        ("ts_queue_latency_microseconds", "cumulative, of waits for the model", _sums(queued, 1e6)),
    ):
        yield _metric(
            name,
            f"TorchServe's name: {meaning}.",
            torchserve,
            {(m, "default", hostname): v for (m,), (v,) in numbers.items()},
        )


def _metric(name: str, documentation: str, label_names: Labels, values: dict[Labels, float]) -> Metric:
    made = Metric(name, documentation, "unknown")
    for labels, value in values.items():
        made.add_sample(name, dict(zip(label_names, labels, strict=True)), value)
    return made


def _by_model(series: dict[Labels, list[float]]) -> dict[Labels, list[float]]:
    # The model is the first label.
    found: dict[Labels, list[float]] = {}
    for (model, *_), numbers in series.items():
        before = found.get((model,))
        found[model,] = [a + b for a, b in zip(before, numbers, strict=True)] if before else numbers
    return found


def _sums(series: dict[Labels, list[float]], factor: float = 1.0) -> dict[Labels, list[float]]:
    # Of a histogram and of a counter, the sum stands last.
    return {labels: [numbers[-1] * factor] for labels, numbers in series.items()}


def _count(histogram: list[float]) -> float:
    return sum(histogram[:-1])
