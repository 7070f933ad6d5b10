"""What a server tells of its work: statistics, traces of requests, and its log, set while it runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from prometheus_client import CollectorRegistry
from servery_http.client import Client
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.extensions.log_settings import LogSettings
from servery_predictor.extensions.tracing import Tracer
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from tritonclient.utils import InferenceServerException

Start = Callable[..., Awaitable[Predictor]]
Ask = Callable[..., Awaitable[tuple[int, Any]]]
BODY: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": [6.8, 2.8, 4.8, 1.4] * 2}]
}


@asynccontextmanager
async def clients(predictor: Predictor) -> AsyncIterator[tuple[Any, Any]]:
    assert predictor.grpc is not None
    async with (
        triton_http.InferenceServerClient(f"127.0.0.1:{predictor.http.port}") as http,
        triton_grpc.InferenceServerClient(f"127.0.0.1:{predictor.grpc.port}") as grpc,
    ):
        yield http, grpc


# Statistics.


async def test_statistics_are_those_of_the_requests(predictor: Predictor, rest: Ask) -> None:
    before = time.time()
    for _ in range(3):
        assert (await rest("/v2/models/iris/infer", BODY))[0] == 200
    wrong = {"inputs": [{**BODY["inputs"][0], "shape": [4, 2]}]}
    assert (await rest("/v2/models/iris/infer", wrong))[0] == 400
    async with clients(predictor) as (http, grpc):
        told = await http.get_inference_statistics("iris")
        assert told == await http.get_inference_statistics()
        (same,) = (await grpc.get_inference_statistics("iris")).model_stats
    (stats,) = told["model_stats"]
    assert (stats["name"], stats["version"]) == ("iris", "1")
    assert before * 1000 - 1 <= stats["last_inference"] <= time.time() * 1000 + 1
    assert (stats["inference_count"], stats["execution_count"]) == (10, 4)
    counts = {name: one["count"] for name, one in stats["inference_stats"].items()}
    assert counts == {"success": 3, "fail": 1, "queue": 4, "cache_hit": 0, "cache_miss": 0} | {
        **dict.fromkeys(("compute_input", "compute_infer", "compute_output"), 4),
    }
    spent = stats["inference_stats"]
    assert spent["success"]["ns"] > 0
    assert spent["fail"]["ns"] > 0
    assert 0 < spent["compute_infer"]["ns"] < spent["success"]["ns"] + spent["fail"]["ns"]
    sizes = {one["batch_size"]: one["compute_infer"]["count"] for one in stats["batch_stats"]}
    assert sizes == {2: 3, 4: 1}
    assert same.inference_stats.success.count == 3
    assert same.inference_stats.compute_infer.ns == spent["compute_infer"]["ns"]
    assert {one.batch_size: one.compute_infer.count for one in same.batch_stats} == sizes


async def test_statistics_are_those_of_the_metrics(predictor: Predictor, rest: Ask) -> None:
    await asyncio.gather(*(rest("/v2/models/iris/infer", BODY) for _ in range(40)))
    (stats,) = (await rest("/v2/models/stats"))[1]["model_stats"]
    value = predictor.plane.metrics.registry.get_sample_value
    model = {"model": "iris", "version": "1"}
    assert stats["inference_count"] == value("nv_inference_count", model) == 80
    assert stats["execution_count"] == value("nv_inference_exec_count", model)
    assert sum(one["compute_infer"]["count"] for one in stats["batch_stats"]) == stats["execution_count"]
    assert sum(one["batch_size"] * one["compute_infer"]["count"] for one in stats["batch_stats"]) == 80


@pytest.mark.parametrize(("path", "words"), [("nobody", "name nobody does not"), ("iris/versions/3", "no version '3'")])
async def test_statistics_of_what_is_not_here_are_not_found(rest: Ask, path: str, words: str) -> None:
    status, answer = await rest(f"/v2/models/{path}/stats")
    assert status == 404
    assert words in answer["error"]


def test_a_call_of_more_rows_than_are_told_apart_is_left_out() -> None:
    sizes = Metrics(CollectorRegistry()).batch_sizes
    sizes.add("m", 1024, 0.5)
    sizes.add("m", 1025, 9.0)
    sizes.add("m", 1024, 0.25)
    assert list(sizes.read("m")) == [(1024, 2.0, 0.75)]


# Traces.


@pytest.fixture
async def traced(start: Start, iris: Path, tmp_path: Path) -> Predictor:
    return await start(iris, trace_file=tmp_path / "trace.json")


@pytest.fixture
def ask(client: Client, traced: Predictor, rest_of: Callable[..., Ask]) -> Ask:
    return rest_of(client, traced.http.url)


DEFAULTS = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}


async def test_trace_settings_are_told_and_changed_by_tritons_clients(traced: Predictor, tmp_path: Path) -> None:
    defaults = {**DEFAULTS, "trace_file": str(tmp_path / "trace.json")}
    async with clients(traced) as (http, grpc):
        assert await http.get_trace_settings() == await http.get_trace_settings("iris") == defaults
        changed = await http.update_trace_settings(
            settings={"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "2"}
        )
        everywhere = {**defaults, "trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "2"}
        assert changed == everywhere
        changed = await grpc.update_trace_settings("iris", {"log_frequency": "3", "trace_level": ["TIMESTAMPS"]})
        assert list(changed.settings["log_frequency"].value) == ["3"]
        own = {**everywhere, "log_frequency": "3", "trace_level": ["TIMESTAMPS"]}
        assert await http.get_trace_settings("iris") == own
        # What the model has not set follows the server.
        await http.update_trace_settings(settings={"trace_rate": None, "trace_count": "7"})
        assert await http.get_trace_settings("iris") == {**own, "trace_rate": "1000", "trace_count": "7"}
        await grpc.update_trace_settings("iris", {"log_frequency": None, "trace_level": []})
        assert await http.get_trace_settings("iris") == {**everywhere, "trace_rate": "1000", "trace_count": "7"}
        for ask in (http.update_trace_settings, grpc.update_trace_settings):
            with pytest.raises(
                InferenceServerException, match="trace file location can not be updated through network"
            ):
                await ask(settings={"trace_file": "/etc/passwd"})
            with pytest.raises(InferenceServerException, match="Model with name nobody does not exist"):
                await ask("nobody", {"trace_rate": "1"})


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"trace_level": ["TIMES"]}, "Unable to parse 'trace_level', got: TIMES"),
        ({"trace_level": ["OFF", "TENSORS"]}, "send OFF alone"),
        ({"trace_rate": "x"}, "Unable to parse 'trace_rate', got: x"),
        ({"trace_rate": "-1"}, "Unable to parse 'trace_rate', value is out of range [ 0, 4294967295 ], got: -1"),
        ({"trace_count": "-2"}, "Unable to parse 'trace_count', value is out of range [ -1, 2147483647 ], got: -2"),
        ({"trace_level": ["TIMESTAMPS"], "trace_rate": "0"}, "invalid trace setting :sample rate must be non-zero"),
        ({"trace_speed": "1"}, "unknown trace setting 'trace_speed'; there are: log_frequency, trace_count"),
        ({"trace_rate": {}}, "trace_rate: must be a string or a list of strings"),
    ],
)
async def test_trace_settings_that_cannot_be_are_refused_and_change_nothing(ask: Ask, sent: Any, words: str) -> None:
    before = await ask("/v2/trace/setting")
    status, answer = await ask("/v2/trace/setting", sent)
    assert status == 400
    assert words in answer["error"]
    assert await ask("/v2/trace/setting") == before


async def test_nothing_is_traced_without_a_file(rest: Ask) -> None:
    status, answer = await rest("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]})
    assert (status, answer) == (400, {"error": "Attempting to set invalid trace setting :trace file name is not given"})


NAMES = (
    "REQUEST_START",
    "QUEUE_START",
    "COMPUTE_START",
    "COMPUTE_INPUT_END",
    "COMPUTE_OUTPUT_START",
    "COMPUTE_END",
    "INFER_RESPONSE_COMPLETE",
    "REQUEST_END",
)


async def test_a_trace_says_when_a_request_was_where_and_what_went_in_and_out(
    traced: Predictor, ask: Ask, tmp_path: Path
) -> None:
    await ask("/v2/trace/setting", {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "1"})
    async with clients(traced) as (_, grpc):
        tensor = triton_grpc.InferInput("x", [2, 4], "FP64")
        tensor.set_data_from_numpy(np.array([[6.8, 2.8, 4.8, 1.4]] * 2))
        await grpc.infer("iris", [tensor], request_id="a")
    await ask("/v2/models/iris/infer", {**BODY, "inputs": [{**BODY["inputs"][0], "shape": [4, 2]}]})
    lines = json.loads((tmp_path / "trace.json").read_text())
    first, second = ([line for line in lines if line["id"] == number] for number in (1, 2))
    assert first[0] == {"id": 1, "model_name": "iris", "model_version": -1, "request_id": "a"}
    assert second[0] == {"id": 2, "model_name": "iris", "model_version": -1}
    for trace in (first, second):
        stamps = [line["timestamps"][0] for line in trace if "timestamps" in line]
        assert tuple(stamp["name"] for stamp in stamps) == NAMES
        times = [stamp["ns"] for stamp in stamps]
        assert times == sorted(times)
        assert times[-1] <= time.perf_counter_ns()
    tensors = [(line["activity"], line["tensor"]) for line in first if "activity" in line]
    x = {"name": "x", "data": ",".join(["6.8,2.8,4.8,1.4"] * 2), "shape": "2,4", "dtype": "FP64"}
    y = {"name": "output-0", "data": "1,1", "shape": "2", "dtype": "INT64"}
    assert tensors == [("TENSOR_QUEUE_INPUT", x), ("TENSOR_BACKEND_OUTPUT", y)]
    assert [line["activity"] for line in second if "activity" in line] == ["TENSOR_QUEUE_INPUT"]


async def test_rate_count_and_frequency_choose_requests_and_files(ask: Ask, tmp_path: Path) -> None:
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "5", "log_frequency": "2"}
    await ask("/v2/models/iris/trace/setting", settings)
    for number in range(20):
        await ask("/v2/models/iris/infer", {**BODY, "id": str(number)})
    traced = [
        [line["request_id"] for line in json.loads(file.read_text()) if "request_id" in line]
        for file in sorted(tmp_path.glob("trace.json.*"))
    ]
    assert traced == [["1", "3"], ["5", "7"], ["9"]]
    assert (await ask("/v2/models/iris/trace/setting"))[1]["trace_count"] == "0"
    # Set anew, it counts anew, and no file is written twice.
    await ask("/v2/models/iris/trace/setting", {"trace_rate": "1", "trace_count": "1"})
    await ask("/v2/models/iris/infer", {**BODY, "id": "again"})
    assert json.loads((tmp_path / "trace.json.3").read_text())[0]["request_id"] == "again"


def request(model: str = "m") -> InferRequest:
    tensor = Tensor(name="x", data=np.zeros(1), datatype=Datatype.FP64)
    return InferRequest(model=model, inputs=(tensor,))


def test_workers_share_counts_numbers_and_files(tmp_path: Path) -> None:
    ledger = Ledger()
    workers = [Tracer(ledger, tmp_path / "t") for _ in range(3)]
    workers[0].change(
        {"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"], "trace_count": ["7"], "log_frequency": ["4"]}
    )
    for worker in itertools.islice(itertools.cycle(workers), 20):
        trace = worker.begin(request(), time.perf_counter())
        if trace is not None:
            worker.end(trace, InferResponse(model="m", outputs=()))
    files = [json.loads((tmp_path / f"t.{index}").read_text()) for index in (0, 1)]
    assert [sorted({line["id"] for line in file}) for file in files] == [[1, 2, 3, 4], [5, 6, 7]]
    assert ledger.tracing[0] == 0
    assert workers[2].settings()["trace_count"] == ["0"]
    ledger.close()


def test_a_file_that_cannot_be_written_is_logged_and_the_request_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = Tracer(Ledger(), tmp_path / "nowhere" / "t")
    tracer.change({"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]})
    trace = tracer.begin(request(), 0.0)
    assert trace is not None
    tracer.end(trace, InferResponse(model="m", outputs=()))
    assert "trace not written" in caplog.text


# Logs.


async def test_log_settings_are_told_changed_and_obeyed(predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    defaults = {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }
    logger = logging.getLogger("servery_predictor.tests")
    async with clients(predictor) as (http, grpc):
        assert await http.get_log_settings() == defaults
        changed = await http.update_log_settings({"log_warning": False, "log_verbose_level": 1})
        assert changed == {**defaults, "log_warning": False, "log_verbose_level": 1}
        same = (await grpc.get_log_settings()).settings
        assert (same["log_warning"].bool_param, same["log_verbose_level"].uint32_param) == (False, 1)
        caplog.clear()
        logger.debug("one")
        logger.warning("two")
        logger.error("three")
        assert [record.message for record in caplog.records if record.name == logger.name] == ["one", "three"]
        await grpc.update_log_settings({"log_warning": True, "log_verbose_level": 0})
        assert await http.get_log_settings() == defaults
        caplog.clear()
        logger.debug("one")
        logger.warning("two")
        assert [record.message for record in caplog.records if record.name == logger.name] == ["two"]
        for ask in (http.update_log_settings, grpc.update_log_settings):
            with pytest.raises(InferenceServerException, match="log file location can not be updated through network"):
                await ask({"log_file": "/etc/passwd"})
            with pytest.raises(InferenceServerException, match="logs are JSON lines, and stay so"):
                await ask({"log_format": "ISO8601"})
        for wrong, words in (
            ({"log_info": "no"}, "expect boolean for 'log_info'"),
            ({"log_verbose_level": -1}, "expect unsigned integer for 'log_verbose_level'"),
            ({"log_loud": True}, "unknown log setting 'log_loud'; there are: log_error, log_file"),
        ):
            with pytest.raises(InferenceServerException, match=words):
                await http.update_log_settings(wrong)
        assert await http.get_log_settings() == defaults


def test_another_workers_log_obeys_once_it_looks() -> None:
    ledger = Ledger()
    one, other = LogSettings(ledger), LogSettings(ledger)
    one.change({"log_info": False})
    record = logging.makeLogRecord({"levelno": logging.INFO})
    assert not one.filter(record)
    assert other.filter(record)
    other.refresh()
    assert not other.filter(record)
    ledger.close()


# All of it.


async def test_extensions_are_exactly_those_that_are_here(start: Start, iris: Path) -> None:
    everywhere = ["logging", "model_configuration", "model_repository", "parameters", "statistics", "trace"]
    for allowed, shared in ((False, []), (True, ["system_shared_memory"])):
        async with clients(await start(iris, allow_client_shm=allowed)) as (http, grpc):
            rest = (await http.get_server_metadata())["extensions"]
            assert [name for name in rest if not name.startswith("cuda")] == sorted(
                [*everywhere, *shared, "binary_tensor_data", "generate"]
            )
            remote = list((await grpc.get_server_metadata()).extensions)
            assert [name for name in remote if not name.startswith("cuda")] == sorted([*everywhere, *shared])
