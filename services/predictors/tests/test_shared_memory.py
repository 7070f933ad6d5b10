"""Shared memory: Triton's published examples of it, what is wrong told in Triton's words, and every worker knowing it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.shared_memory import SharedMemory as Object
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from servery_http.client import Client
from servery_predictor.extensions import cuda
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.extensions.shared_memory import SharedMemory, SharedMemoryError
from servery_predictor.server import Predictor
from servery_sdk.errors import ServeryError
from servery_sdk.protocol.shared import Span
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub as Stub

Start = Callable[..., Awaitable[Predictor]]
RunClient = Callable[..., Awaitable[str]]
Ask = Callable[..., Awaitable[tuple[int, Any]]]
ROWS = np.array([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]])
SIZE = ROWS.nbytes


@pytest.fixture
def key() -> str:
    return f"servery-test-{os.getpid()}"


@pytest.fixture
def memory(key: str) -> Iterator[Object]:
    """128 bytes: the rows of irises, and room for their classes."""
    made = Object(key, create=True, size=2 * SIZE)
    made.buf[:SIZE] = ROWS.tobytes()
    yield made
    made.close()
    made.unlink()


@pytest.fixture
async def sharing(start: Start, iris: Path) -> Predictor:
    return await start(iris, allow_client_shm=True)


@pytest.fixture
def ask(client: Client, sharing: Predictor, rest_of: Callable[..., Ask]) -> Ask:
    return rest_of(client, sharing.http.url)


def place(region: str = "r", size: Any = SIZE, offset: Any = None) -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_byte_size": size,
        **({} if offset is None else {"shared_memory_offset": offset}),
    }


def body(input_: dict[str, Any], output: dict[str, Any] | None = None) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP64", "parameters": input_}
    return {"inputs": [tensor], **({} if output is None else {"outputs": [{"name": "output-0", "parameters": output}]})}


@pytest.mark.parametrize("front", ["fast", "grpcio"])
async def test_tritons_published_examples_work(
    start: Start, triton_models: Path, run_client: RunClient, front: str, key: str
) -> None:
    predictor = await start(triton_models, runtime="triton", allow_client_shm=True, grpc_front=front)
    assert predictor.grpc is not None
    await run_client("http_shm.py", f"127.0.0.1:{predictor.http.port}", key)
    await run_client("grpc_shm.py", f"127.0.0.1:{predictor.grpc.port}", key)


async def test_the_example_client_reads_classes_from_its_region(start: Start, run_client: RunClient) -> None:
    examples = Path(__file__).parents[3] / "examples"
    predictor = await start(examples / "sklearn-iris" / "model", allow_client_shm=True)
    program = examples / "shared-memory" / "client.py"
    assert await run_client(str(program), f"127.0.0.1:{predictor.http.port}", "iris") == "[1, 0]\n"


async def test_what_lies_in_a_region_is_read_and_written_at_its_offsets(ask: Ask, memory: Object, key: str) -> None:
    registered = await ask(
        "/v2/systemsharedmemory/region/r/register", {"key": f"/{key}", "offset": 8, "byte_size": 2 * SIZE - 8}
    )
    assert registered == (200, {})
    memory.buf[24 : 24 + SIZE] = ROWS.tobytes()
    status, answer = await ask("/v2/models/iris/infer", body(place(offset=16), place(size=40, offset=80)))
    assert (status, answer["outputs"]) == (
        200,
        [
            {
                "name": "output-0",
                "datatype": "INT64",
                "shape": [2],
                "parameters": {
                    "shared_memory_region": "r",
                    "shared_memory_offset": 80,
                    "shared_memory_byte_size": 16,
                },
            }
        ],
    )
    assert np.frombuffer(memory.buf[88:104], np.int64).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        pytest.param(body(place("q")), 404, "Unable to find shared memory region: 'q'", id="unknown"),
        pytest.param(body(place(offset=2 * SIZE)), 400, "Invalid offset for shared memory region: 'r'", id="offset"),
        pytest.param(
            body(place(offset=SIZE + 1)), 400, "Invalid offset + byte size for shared memory region: 'r'", id="end"
        ),
        pytest.param(
            body(place(size=2**63)), 400, "Invalid offset + byte size for shared memory region: 'r'", id="huge"
        ),
        pytest.param(body(place(size=-1)), 400, "'shared_memory_byte_size' of 'x' must be a count", id="negative"),
        pytest.param(body(place(size=40)), 400, "takes 64 bytes, 40 were sent", id="less-than-the-shape"),
        pytest.param(
            body({"shared_memory_region": "r"}),
            400,
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' for 'x'",
            id="no-size",
        ),
        pytest.param(
            body(place(), place(size=8)),
            400,
            "shared memory size specified with the request for output 'output-0' (8 bytes) should be at least 16 bytes",
            id="small-output",
        ),
        pytest.param(body(place(), place("q")), 404, "Unable to find shared memory region: 'q'", id="output-nowhere"),
        pytest.param(
            {"inputs": [{**body(place())["inputs"][0], "data": ROWS.ravel().tolist()}]},
            400,
            "has data, and shared_memory_region beside it",
            id="both",
        ),
        pytest.param(
            body(place(), {"classification": 2}), 400, "the classification extension is off", id="classification"
        ),
    ],
)
async def test_what_is_wrong_is_told_over_rest(
    ask: Ask, memory: Object, key: str, sent: Any, status: int, words: str
) -> None:
    await ask("/v2/systemsharedmemory/region/r/register", {"key": key, "byte_size": 2 * SIZE})
    found, answer = await ask("/v2/models/iris/infer", sent)
    assert found == status
    assert words in answer["error"]
    assert (await ask("/v2/models/iris/infer", body(place())))[1]["outputs"][0]["data"] == [1, 1]


def message(parameters: dict[str, Any], output: dict[str, Any] | None = None) -> pb.ModelInferRequest:
    asked = pb.ModelInferRequest(model_name="iris")
    tensor = asked.inputs.add(name="x", datatype="FP64", shape=[2, 4])
    told = [(tensor.parameters, parameters)]
    if output is not None:
        told.append((asked.outputs.add(name="output-0").parameters, output))
    for target, values in told:
        for name, value in values.items():
            setattr(target[name], "string_param" if isinstance(value, str) else "int64_param", value)
    return asked


@pytest.mark.parametrize("front", ["fast", "grpcio"])
async def test_what_is_wrong_is_told_over_grpc(start: Start, iris: Path, memory: Object, key: str, front: str) -> None:
    predictor = await start(iris, allow_client_shm=True, grpc_front=front)
    assert predictor.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
        stub = Stub(channel)
        await stub.SystemSharedMemoryRegister(
            pb.SystemSharedMemoryRegisterRequest(name="r", key=key, byte_size=2 * SIZE)
        )
        both = message(place())
        both.raw_input_contents.append(ROWS.tobytes())
        for asked, code, words in (
            (message(place("q")), grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'q'"),
            (message(place(), place("q")), grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'q'"),
            (message(place(offset=SIZE + 1)), grpc.StatusCode.INVALID_ARGUMENT, "Invalid offset + byte size"),
            (message(place(), place(size=8)), grpc.StatusCode.INVALID_ARGUMENT, "should be at least 16 bytes"),
            (message(place(), {"classification": 1}), grpc.StatusCode.INVALID_ARGUMENT, "classification extension is"),
            (both, grpc.StatusCode.INVALID_ARGUMENT, "has contents, and shared_memory_region beside"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ModelInfer(asked)
            assert (refused.value.code(), words in (refused.value.details() or "")) == (code, True)
        answer = await stub.ModelInfer(message(place(), place(offset=SIZE)))
        assert answer.outputs[0].parameters["shared_memory_byte_size"].int64_param == 16
        assert np.frombuffer(memory.buf[SIZE : SIZE + 16], np.int64).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("region", "sent", "words"),
    [
        ("r", {"byte_size": 8}, "Shared memory register request has no 'key' field"),
        ("r", {"key": "KEY"}, "Shared memory register request has no 'byte_size' field"),
        ("r", {"key": "KEY", "byte_size": "8"}, "'byte_size' must be a number that is not negative, found '8'"),
        ("r", {"key": "KEY", "byte_size": 8, "offset": -1}, "'offset' must be a number that is not negative"),
        ("r", {"key": "KEY", "byte_size": 129}, "failed to register shared memory region 'r': invalid args"),
        (
            "r",
            {"key": "KEY", "offset": 8, "byte_size": 128},
            "failed to register shared memory region 'r': invalid args",
        ),
        ("r", {"key": "nowhere", "byte_size": 8}, "Unable to open shared memory region: 'nowhere'"),
        (
            "r",
            {"key": "../../etc/hostname", "byte_size": 1},
            "Unable to open shared memory region: '../../etc/hostname'",
        ),
        ("r", {"key": "..", "byte_size": 1}, "Unable to open shared memory region: '..'"),
        ("taken", {"key": "KEY", "byte_size": 8}, "shared memory region 'taken' already in manager"),
        ("r", b"[]", "the body must be a JSON object, found list"),
        ("r", b"{", "failed to parse the request JSON buffer"),
    ],
)
async def test_what_cannot_be_registered_is_told(
    ask: Ask, memory: Object, key: str, region: str, sent: Any, words: str
) -> None:
    await ask("/v2/systemsharedmemory/region/taken/register", {"key": key, "byte_size": 8})
    named = {**sent, "key": sent["key"].replace("KEY", key)} if isinstance(sent, dict) and "key" in sent else sent
    status, answer = await ask(f"/v2/systemsharedmemory/region/{region}/register", named)
    assert status == 400
    assert words in answer["error"]
    assert [one["name"] for one in (await ask("/v2/systemsharedmemory/status"))[1]] == ["taken"]


async def test_a_link_out_of_the_folder_is_not_followed(ask: Ask, key: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 64)
    link = Path("/dev/shm") / f"{key}-link"
    link.symlink_to(tmp_path / "secret")
    try:
        status, answer = await ask("/v2/systemsharedmemory/region/r/register", {"key": link.name, "byte_size": 64})
    finally:
        link.unlink()
    assert (status, answer) == (400, {"error": f"Unable to open shared memory region: '{link.name}'"})


async def test_memory_that_its_client_cuts_short_ends_a_request_and_not_the_server(
    ask: Ask, memory: Object, key: str
) -> None:
    await ask("/v2/systemsharedmemory/region/r/register", {"key": key, "byte_size": 2 * SIZE})
    os.truncate(Path("/dev/shm") / key, 10)
    written = body({}, place())
    written["inputs"][0]["data"] = ROWS.ravel().tolist()
    for sent in (body(place()), written):
        answer = await ask("/v2/models/iris/infer", sent)
        assert answer == (400, {"error": "shared memory region 'r' has become smaller than it was"})
    os.truncate(Path("/dev/shm") / key, 2 * SIZE)


async def test_status_tells_one_or_all_and_what_is_unregistered_is_gone(ask: Ask, memory: Object, key: str) -> None:
    for name in ("a", "b"):
        await ask(f"/v2/systemsharedmemory/region/{name}/register", {"key": key, "offset": 8, "byte_size": SIZE})
    told = [{"name": name, "key": key, "offset": 8, "byte_size": SIZE} for name in ("a", "b")]
    assert await ask("/v2/systemsharedmemory/status") == (200, told)
    assert await ask("/v2/systemsharedmemory/region/b/status") == (200, told[1:])
    assert await ask("/v2/systemsharedmemory/region/c/status") == (
        404,
        {"error": "Unable to find system shared memory region: 'c'"},
    )
    assert await ask("/v2/cudasharedmemory/region/a/status") == (
        404,
        {"error": "The region named 'a' is registered as system shared memory, not CUDA shared memory"},
    )
    # Not that of another kind.
    assert await ask("/v2/cudasharedmemory/unregister", {}) == (200, {})
    assert await ask("/v2/systemsharedmemory/region/a/unregister", {}) == (200, {})
    assert await ask("/v2/systemsharedmemory/status") == (200, told[1:])
    assert (await ask("/v2/models/iris/infer", body(place("a"))))[0] == 404
    assert await ask("/v2/systemsharedmemory/region/a/unregister", {}) == (200, {})
    assert await ask("/v2/systemsharedmemory/unregister", {}) == (200, {})
    assert await ask("/v2/systemsharedmemory/status") == (200, [])


async def test_without_a_gpu_the_answers_are_those_of_triton_without_one(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "is_here", lambda: False)
    sent = {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8}
    assert await ask("/v2/cudasharedmemory/region/g/register", sent) == (
        400,
        {"error": "failed to register CUDA shared memory region: 'g', GPUs not supported"},
    )
    assert await ask("/v2/cudasharedmemory/status") == (200, [])
    assert (await ask("/v2/cudasharedmemory/region/g/status"))[1] == {
        "error": "Unable to find cuda shared memory region: 'g'"
    }
    assert (await ask("/v2/cudasharedmemory/region/g/register", {**sent, "raw_handle": {"b64": "?"}}))[1] == {
        "error": "'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t"
    }


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("status", None),
        ("region/r/register", {"key": "k", "byte_size": 1}),
        ("unregister", {}),
    ],
)
async def test_nobody_shares_memory_with_a_server_that_was_not_told_to(rest: Ask, path: str, sent: Any) -> None:
    status, answer = await rest(f"/v2/systemsharedmemory/{path}", sent)
    assert status == 503
    assert "start it with --allow-client-shm=true" in answer["error"]
    assert (await rest("/v2/models/iris/infer", body(place())))[0] == 503
    assert not any("shared_memory" in name for name in (await rest("/v2"))[1]["extensions"])


def test_one_worker_registers_and_another_reads_and_forgets(memory: Object, key: str) -> None:
    ledger = Ledger()
    one, other = (SharedMemory(ledger, is_allowed=True) for _ in range(2))
    one.register_system("r", key, 0, 2 * SIZE)
    assert other.read(Span(region="r", offset=0, size=SIZE)) == ROWS.tobytes()
    other.unregister("r")
    with pytest.raises(ServeryError, match="Unable to find shared memory region: 'r'"):
        one.read(Span(region="r", offset=0, size=SIZE))
    one.register_system("r", key, 8, SIZE)
    assert other.read(Span(region="r", offset=0, size=8)) == ROWS.tobytes()[8:16]
    for each in (one, other):
        each.close()
    ledger.close()


def test_memory_made_anew_under_a_registered_key_is_not_what_was_registered(key: str) -> None:
    ledger = Ledger()
    one, other = (SharedMemory(ledger, is_allowed=True) for _ in range(2))
    first = Object(key, create=True, size=8)
    one.register_system("r", key, 0, 8)
    first.unlink()
    second = Object(key, create=True, size=8)
    second.buf[:8] = b"not this"
    with pytest.raises(SharedMemoryError, match=f"Unable to open shared memory region: '{key}'"):
        other.read(Span(region="r", offset=0, size=8))
    assert one.read(Span(region="r", offset=0, size=8)) == bytes(8)
    one.close()
    other.close()
    ledger.close()
    for made in (first, second):
        made.close()
    second.unlink()


def test_a_file_is_closed_when_its_region_is_forgotten(memory: Object, key: str) -> None:
    ledger = Ledger()
    one, other = (SharedMemory(ledger, is_allowed=True) for _ in range(2))

    def open_files() -> int:
        return sum(str(file.resolve()).endswith(key) for file in Path("/proc/self/fd").iterdir())

    before = open_files()
    one.register_system("r", key, 0, 8)
    other.read(Span(region="r", offset=0, size=8))
    assert open_files() == before + 2
    one.unregister("")
    other.refresh()
    assert open_files() == before
    ledger.close()


def test_a_change_that_fails_changes_nothing() -> None:
    ledger = Ledger()
    with ledger.change() as document:
        document["long"] = "x" * 10_000
    version = ledger.version

    def fail() -> None:
        with ledger.change() as document:
            document["long"] = "y"
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert ledger.version == version
    assert ledger.read() == {"long": "x" * 10_000}
    with ledger.change() as document:
        document["long"] = "short"
    assert ledger.read() == {"long": "short"}
    assert ledger.version == version + 1
    ledger.close()
