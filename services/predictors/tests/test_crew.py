"""Several workers, as real processes: shared port, memory and numbers; deaths, renewal, changes, the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import grpc
import joblib
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports import free_ports
from servery_http.client import Client, ConnectFailed, ConnectionBroke
from servery_predictor.crew.backoff import LONGEST_SECONDS, STEADY_SECONDS, deaths_in_a_row, delay_seconds
from servery_predictor.crew.post import Message, Verb, Word, pair
from servery_sdk.errors import ErrorCode
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2_grpc as stubs
from sklearn.neighbors import KNeighborsClassifier

PATIENCE_SECONDS = 60
BODY = b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'

SEQUENCES = {
    "config.pbtxt": b"""
backend: "python"
input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
sequence_batching { }
""",
    "1/model.py": b"""
class TritonPythonModel:
    def execute(self, requests):
        raise NotImplementedError
""",
}

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.0), (2, 0.5), (3, 1.0), (4, 2.0), (20, LONGEST_SECONDS)])
def test_a_place_stays_empty_longer_after_each_death(deaths: int, seconds: float) -> None:
    assert delay_seconds(deaths) == seconds


def test_a_worker_that_lived_long_died_of_something_new() -> None:
    assert deaths_in_a_row(7, lived_seconds=1.0) == 8
    assert deaths_in_a_row(7, lived_seconds=STEADY_SECONDS) == 1


MESSAGES = st.builds(
    Message,
    word=st.sampled_from(Word),
    verb=st.sampled_from(Verb),
    model=st.text(max_size=5),
    number=st.integers(0, 9),
    code=st.none() | st.sampled_from(ErrorCode),
    reason=st.text(max_size=5),
)


@given(st.lists(MESSAGES, max_size=5))
def test_what_is_sent_is_received(messages: list[Message]) -> None:
    ours, theirs = pair()
    for message in messages:
        ours.send(message)
    assert list(theirs.receive()) == messages
    ours.close()
    with pytest.raises(EOFError):
        list(theirs.receive())
    theirs.close()


@dataclass
class Running:
    """A supervisor with its workers."""

    process: asyncio.subprocess.Process
    url: str
    client: Client

    def workers(self) -> set[int]:
        return {
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        }

    async def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        # A connection each: the system chooses a worker for each connection.
        async with Client() as client:
            answer = await client.request("GET" if body is None else "POST", self.url + path, body=body or b"")
        return answer.status, answer.body

    async def count(self, name: str) -> float:
        _, text = await self.ask("/metrics")
        return sum(
            float(line.split()[-1]) for line in text.decode().splitlines() if line.split("{")[0].split()[0] == name
        )

    async def until(self, name: str, value: float) -> None:
        """Return once it is so. Until then, a worker that dies may take this question with it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with contextlib.suppress(ConnectionBroke, ConnectFailed):
                    if await self.count(name) == value:
                        return
                await asyncio.sleep(0.05)


def arguments(model_dir: Path, *flags: str, runtime: str = "sklearn") -> list[str]:
    return [
        *(sys.executable, "-m", "servery_predictor.cli", f"--runtime={runtime}", "--model_name=iris"),
        *(f"--model_dir={model_dir}", "--host=127.0.0.1", *flags),
    ]


@asynccontextmanager
async def running(
    model_dir: Path, port: int, grpc_port: int, *flags: str, workers: int = 3, runtime: str = "sklearn"
) -> AsyncIterator[Running]:
    flags = (f"--workers={workers}", f"--http_port={port}", f"--grpc_port={grpc_port}", *flags)
    process = await asyncio.create_subprocess_exec(
        *arguments(model_dir, *flags, runtime=runtime),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(_follow(process.stderr, loaded))
    async with Client() as client:
        crew = Running(process, f"http://127.0.0.1:{port}", client)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await loaded
            await crew.until("servery_predictor_workers", workers)
            yield crew
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.wait()
                await reading


async def _follow(log: asyncio.StreamReader, loaded: asyncio.Future[None]) -> None:
    lines = []
    async for line in log:
        lines.append(line)
        if b"all workers have loaded" in line:
            loaded.set_result(None)
    if not loaded.done():
        loaded.set_exception(AssertionError(b"".join(lines).decode()))


@pytest.fixture
def ports() -> list[int]:
    return free_ports(2)


@pytest.fixture
async def crew(iris: Path, ports: list[int]) -> AsyncIterator[Running]:
    async with running(iris, *ports) as crew:
        yield crew


async def test_numbers_are_those_of_all_workers_and_survive_one(crew: Running) -> None:
    for _ in range(30):
        assert (await crew.ask("/v1/models/iris:predict", BODY))[0] == 200
    assert await crew.count("servery_predictor_requests_total") == 30
    assert await crew.count("nv_inference_request_success") == 30
    before = crew.workers()
    assert len(before) == 3
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    await crew.until("servery_predictor_worker_deaths_total", 1)
    await crew.until("servery_predictor_workers", 3)
    after = crew.workers()
    assert victim not in after
    assert before - {victim} < after
    assert await crew.count("servery_predictor_requests_total") == 30
    for _ in range(30):
        assert (await crew.ask("/v1/models/iris:predict", BODY))[0] == 200
    assert await crew.count("servery_predictor_requests_total") == 60


COUNTING = b"""
from prometheus_client import Counter, Gauge

SEEN = Counter("flowers_seen", "Rows that were asked for.", ["place"])
OPEN = Gauge("flowers_open", "Models that are there.", multiprocess_mode="livesum")


class Model:
    def load(self, artifact):
        OPEN.set(1)

    def predict(self, inputs):
        (rows,) = inputs.values()
        SEEN.labels("here").inc(len(rows))
        return rows
"""


async def test_what_a_models_own_code_counts_is_shown_of_all_workers(
    tmp_path: Path, ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = tmp_path / "model", tmp_path / "numbers"
    for made in (model, folder):
        made.mkdir()
    (model / "model.py").write_bytes(COUNTING)
    (folder / "gauge_livesum_1.db").write_bytes(b"of a server before")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    async with running(model, *ports, runtime="python", workers=2) as crew:
        for _ in range(10):
            assert (await crew.ask("/v1/models/iris:predict", BODY))[0] == 200
        assert await crew.count("flowers_seen_total") == 10
        assert await crew.count("flowers_open") == 2
        os.kill(min(crew.workers()), signal.SIGKILL)
        await crew.until("servery_predictor_worker_deaths_total", 1)
        await crew.until("flowers_open", 2)
        assert await crew.count("flowers_seen_total") == 10


async def test_a_load_and_an_unload_reach_every_worker(crew: Running) -> None:
    assert (await crew.ask("/v2/repository/models/iris/unload", b"{}"))[0] == 200
    assert {(await crew.ask("/v2/models/iris/ready"))[0] for _ in range(40)} == {503}
    os.kill(min(crew.workers()), signal.SIGKILL)
    await crew.until("servery_predictor_worker_deaths_total", 1)
    await crew.until("servery_predictor_workers", 3)
    # The new one, too: it was forked from a parent that remembers.
    assert {(await crew.ask("/v2/models/iris/ready"))[0] for _ in range(40)} == {503}
    assert (await crew.ask("/v2/repository/models/iris/load", b"{}"))[0] == 200
    assert {(await crew.ask("/v2/models/iris/ready"))[0] for _ in range(40)} == {200}
    status, body = await crew.ask("/v2/repository/models/other/load", b"{}")
    assert (status, "this server has: iris" in body.decode()) == (404, True)


async def test_loads_that_are_asked_for_at_once_all_end(crew: Running) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        answers = await asyncio.gather(*(crew.ask("/v2/repository/models/iris/load", b"") for _ in range(6)))
    assert answers == [(200, b'{"name":"iris","load":true}')] * 6


async def test_what_clients_set_in_one_worker_holds_in_all_of_them_and_in_the_next(
    iris: Path, tmp_path: Path, ports: list[int]
) -> None:
    rows = np.array([[6.8, 2.8, 4.8, 1.4]])
    memory = SharedMemory(f"servery-crew-{os.getpid()}", create=True, size=rows.nbytes)
    memory.buf[: rows.nbytes] = rows.tobytes()
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": rows.nbytes}
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "parameters": parameters}
    body = orjson.dumps({"inputs": [tensor]})
    traces = tmp_path / "traces"
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "25"}
    try:
        async with running(iris, *ports, "--allow_client_shm=true", f"--trace_file={traces}") as crew:
            told = orjson.dumps({"key": memory.name, "byte_size": rows.nbytes})
            assert (await crew.ask("/v2/systemsharedmemory/region/r/register", told))[0] == 200
            assert (await crew.ask("/v2/trace/setting", orjson.dumps(settings)))[0] == 200
            assert {(await crew.ask("/v2/models/iris/infer", body))[0] for _ in range(20)} == {200}
            os.kill(min(crew.workers()), signal.SIGKILL)
            await crew.until("servery_predictor_worker_deaths_total", 1)
            await crew.until("servery_predictor_workers", 3)
            assert {(await crew.ask("/v2/models/iris/infer", body))[0] for _ in range(20)} == {200}
            lines = orjson.loads(traces.read_bytes())
            assert [line["id"] for line in lines if "model_name" in line] == list(range(1, 26))
            for _ in range(10):
                (stats,) = orjson.loads((await crew.ask("/v2/models/iris/stats"))[1])["model_stats"]
                assert stats["inference_stats"]["success"]["count"] == stats["inference_count"] == 40
            assert (await crew.ask("/v2/systemsharedmemory/unregister", b""))[0] == 200
            assert {(await crew.ask("/v2/models/iris/infer", body))[0] for _ in range(20)} == {404}
    finally:
        memory.close()
        memory.unlink()


async def test_a_load_that_fails_is_told_and_the_old_model_goes_on_answering(
    iris: Path, tmp_path: Path, ports: list[int]
) -> None:
    (tmp_path / "model.joblib").write_bytes((iris / "model.joblib").read_bytes())
    async with running(tmp_path, *ports) as crew:
        (tmp_path / "model.joblib").write_bytes(b"no pickle")
        status, body = await crew.ask("/v2/repository/models/iris/load", b"{}")
        assert status == 503
        assert "model.joblib: cannot be unpickled" in orjson.loads(body)["error"]
        assert {(await crew.ask("/v1/models/iris:predict", BODY))[0] for _ in range(20)} == {200}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM], ids=["renewal", "end"])
async def test_a_renewal_and_an_end_lose_no_answer(
    crew: Running, number: signal.Signals, eventually: Eventually
) -> None:
    before = crew.workers()
    statuses: list[int] = []
    over = asyncio.Event()

    enough = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            try:
                statuses.append((await crew.ask("/v1/models/iris:predict", BODY))[0])
            except ConnectFailed:
                # Nobody listens any more: that, and only that, is how it may end.
                assert number == signal.SIGTERM
                over.set()
            if len(statuses) > 50:
                enough.set()

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask())
        await enough.wait()
        crew.process.send_signal(number)
        if number == signal.SIGHUP:
            await eventually(lambda: not crew.workers() & before and len(crew.workers()) == 3)
            over.set()
    assert set(statuses) == {200}
    if number == signal.SIGTERM:
        assert await asyncio.wait_for(crew.process.wait(), PATIENCE_SECONDS) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in before)


async def test_workers_end_with_their_supervisor(crew: Running, eventually: Eventually) -> None:
    workers = crew.workers()
    crew.process.kill()
    await crew.process.wait()
    await eventually(lambda: not any(_is_alive(pid) for pid in workers))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("runtime", "files", "words"),
    [
        pytest.param("sklearn", {"model.joblib": b"no pickle"}, "cannot be unpickled", id="before-the-fork"),
        pytest.param("python", {"model.py": b"raise KeyError('no such thing')"}, "no such thing", id="in-a-worker"),
        pytest.param("triton", SEQUENCES, "keeps sequences", id="sequences-over-workers"),
    ],
)
async def test_a_model_that_does_not_load_ends_all(
    runtime: str, files: dict[str, bytes], words: str, tmp_path: Path
) -> None:
    folder, log = tmp_path / "model", tmp_path / "termination-log"
    folder.mkdir()
    log.touch()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    flags = ("--workers=2", "--http_port=0", "--grpc_port=0", f"--termination-log={log}")
    process = await asyncio.create_subprocess_exec(
        *arguments(folder, *flags, runtime=runtime), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, said = await process.communicate()
    assert process.returncode == 1, said.decode()
    assert words in log.read_text()


async def test_workers_share_the_models_memory(tmp_path: Path, ports: list[int]) -> None:
    megabytes = 64
    features = np.random.default_rng(0).random((megabytes * 2**20 // 32, 4))
    model = KNeighborsClassifier(1, algorithm="brute").fit(features, features[:, 0] > 0.5)
    joblib.dump(model, tmp_path / "model.joblib")
    async with running(tmp_path, *ports) as crew:
        for _ in range(12):
            assert (await crew.ask("/v1/models/iris:predict", BODY))[0] == 200
        private = {pid: _kilobytes(pid, "Private_Clean", "Private_Dirty") // 1024 for pid in crew.workers()}
        assert all(own < megabytes for own in private.values()), private
        assert _kilobytes(min(private), "Rss") // 1024 > megabytes


def _kilobytes(pid: int, *fields: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in fields)


async def test_a_port_that_somebody_has_is_refused(iris: Path, ports: list[int]) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", ports[0]))
        held.listen()
        process = await asyncio.create_subprocess_exec(
            *arguments(iris, "--workers=2", f"--http_port={ports[0]}", "--grpc_port=0"), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, said = await process.communicate()
    assert process.returncode == 1
    assert "Address already in use" in said.decode()


async def test_grpc_is_served_by_workers_too(crew: Running, ports: list[int]) -> None:
    tensor: Any = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1, 4])
    tensor.contents.fp64_contents.extend([6.8, 2.8, 4.8, 1.4])
    for _ in range(10):
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}", options=options) as channel:
            stub = stubs.GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
            answer = await stub.ModelInfer(pb.ModelInferRequest(model_name="iris", inputs=[tensor]))
            assert list(answer.outputs[0].contents.int64_contents) == [1]
    assert await crew.count("servery_predictor_requests_total") == 10
