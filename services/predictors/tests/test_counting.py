"""Numbers of several processes, read as one."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from batches import ask
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client import Histogram as TheirHistogram
from servery_predictor.batching.loop import Batcher
from servery_predictor.counting import Counter, Gauge, Histogram, Shelves
from servery_predictor.metrics import Metrics
from servery_sdk.protocol import InferRequest, InferResponse, RequestError

LABELS = st.sampled_from(["a", "b", "c\nd", 'é"'])


def as_process(shelves: Shelves, index: int) -> Shelves:
    """What a process that was forked now would see: the same memory, an index of its own."""
    part = object.__new__(Shelves)
    part._all, part._adopted = shelves._all, {}
    part.own(index)
    return part


@given(st.lists(st.tuples(st.integers(0, 2), LABELS, st.integers(0, 1000)), max_size=40))
def test_the_sum_is_that_of_all_processes(increments: list[tuple[int, str, int]]) -> None:
    shelves = Shelves(3)
    counters = [Counter(as_process(shelves, index), "things", "", ("kind",)) for index in range(3)]
    wanted: dict[tuple[str, ...], list[float]] = {}
    for index, kind, amount in increments:
        counters[index].labels(kind).inc(amount)
        wanted[kind,] = [wanted.get((kind,), [0.0])[0] + amount]
    assert all(counter.read() == wanted for counter in counters)


@given(st.lists(LABELS, max_size=20), st.lists(LABELS, max_size=20))
def test_who_takes_over_a_shelf_goes_on_counting(before: list[str], later: list[str]) -> None:
    shelves = Shelves(2)
    for kinds in (before, later):
        process = as_process(shelves, 0)
        counter, sizes = (
            Counter(process, "things", "", ("kind",)),
            Histogram(process, "sizes", "", ("kind",), buckets=(1, 2)),
        )
        for kind in kinds:
            counter.labels(kind).inc()
            sizes.labels(kind).observe(1.5)
    together = [*before, *later]
    assert counter.read() == {(kind,): [together.count(kind)] for kind in set(together)}
    assert sizes.read() == {(kind,): [0, together.count(kind), 0, 1.5 * together.count(kind)] for kind in set(together)}


class Showing:
    """A collector of one family."""

    def __init__(self, family: Histogram) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family.collect()]


@given(st.lists(st.floats(0, 20), max_size=30))
def test_a_histogram_reads_like_that_of_prometheus_client(values: Sequence[float]) -> None:
    bounds = (0.0005, 1, 2.5, 10)
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    expected = TheirHistogram("h", "doc", ("m",), buckets=bounds, registry=theirs).labels("x")
    found = Histogram(Shelves(), "h", "doc", ("m",), buckets=bounds)
    ours.register(Showing(found))
    series = found.labels("x")
    for value in values:
        expected.observe(value)
        series.observe(value)
    lines = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == lines


def test_a_gauge_forgets_a_process_that_is_no_more() -> None:
    shelves = Shelves(2)
    gauges = [Gauge(as_process(shelves, index), "ready", "", (), fold=min) for index in range(2)]
    gauges[0].labels().set(1)
    gauges[1].labels().set(0)
    assert gauges[0].read() == {(): [0.0]}
    gauges[0].clear(1)
    assert gauges[0].read() == {(): [1.0]}
    gauges[0].clear(0)
    assert gauges[0].read() == {}


def test_a_child_writes_what_its_parent_reads() -> None:
    shelves = Shelves(2)
    shelves.own(1)
    counter = Counter(shelves, "things", "", ())
    counter.labels().inc(2)
    child = os.fork()
    if not child:
        shelves.own(0)
        Counter(shelves, "things", "", ()).labels().inc(40)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert counter.read() == {(): [42.0]}


def test_a_full_shelf_loses_no_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("servery_predictor.counting._NUMBERS", 2)
    counter = Counter(Shelves(), "things", "", ("kind",))
    for kind in "abc":
        counter.labels(kind).inc()
        counter.labels(kind).inc()
    assert counter.read() == {("a",): [2.0], ("b",): [2.0]}
    assert "too many series" in caplog.text


def test_the_names_that_people_graph_say_the_same() -> None:
    metrics = Metrics(CollectorRegistry())
    for protocol, code in (("v1", "OK"), ("v2", "OK"), ("v2", "RESOURCE_EXHAUSTED"), ("v2", "INVALID_ARGUMENT")):
        metrics.requests.labels("m", protocol, code).inc()
        metrics.request_seconds.labels("m", protocol).observe(0.25)
    metrics.batch_rows.labels("m").observe(5)
    metrics.batch_rows.labels("m").observe(3)
    metrics.queue_seconds.labels("m").observe(0.5)
    value = metrics.registry.get_sample_value
    triton = {"model": "m", "version": "1"}
    assert value("nv_inference_request_success", triton) == 2
    assert value("nv_inference_request_failure", {**triton, "reason": "REJECTED"}) == 1
    assert value("nv_inference_request_failure", {**triton, "reason": "OTHER"}) == 1
    assert value("nv_inference_count", triton) == 8
    assert value("nv_inference_exec_count", triton) == 2
    assert math.isclose(value("nv_inference_queue_duration_us", triton) or 0, 500_000)
    assert value("request_predict_seconds_count", {"model_name": "m"}) == 4
    series = [sample for family in metrics.collect() for sample in family.samples if sample.name.startswith("ts_")]
    assert {sample.name: sample.value for sample in series} == {
        "ts_inference_requests_total": 4,
        "ts_inference_latency_microseconds": 1_000_000,
        "ts_queue_latency_microseconds": 500_000,
    }


async def test_a_batchs_requests_are_counted_by_how_each_ended() -> None:
    metrics = Metrics(CollectorRegistry())
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(
            _halves, executor=executor, on_call=lambda tickets, called: metrics.answered_all(tickets, called.outcomes)
        )
        answers = [batcher.submit(ask(number)) for number in (1, 0, 2, 3)]
        answers.pop().cancel()
        await asyncio.gather(*answers, return_exceptions=True)
    assert metrics.requests.read() == {("m", "", "INVALID_ARGUMENT"): [1], ("m", "", "OK"): [2]}
    assert sum(metrics.request_seconds.read()["m", ""][:-1]) == 3


def _halves(request: InferRequest) -> InferResponse:
    if 0 in request.inputs[0].data:
        raise RequestError("0 has no inverse")
    return InferResponse("m", request.inputs)
