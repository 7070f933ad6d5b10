"""A server whose models come and go by their names: KServe's repository API, and ``servery.model.v1``."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from servery_http.client import Client
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor, data_plane
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protos.servery.model.v1 import model_pb2 as pb
from servery_sdk.protos.servery.model.v1 import model_pb2_grpc as stubs

PATIENCE_SECONDS = 20
ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
Start = Callable[..., Awaitable[Predictor]]


@pytest.fixture
def folder(tmp_path: Path, iris: Path) -> Path:
    folder = tmp_path / "models"
    for name in ("red", "blue"):
        shutil.copytree(iris, folder / name)
    return folder


@pytest.fixture
async def many(start: Start, folder: Path) -> Predictor:
    return await start(folder, multi_model_server=True)


@pytest.fixture
def rest(client: Client, many: Predictor, rest_of: Any) -> Any:
    return rest_of(client, many.http.url)


@pytest.fixture
async def stub(many: Predictor) -> AsyncIterator[stubs.ModelRepositoryStub]:
    assert many.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{many.grpc.port}") as channel:
        yield stubs.ModelRepositoryStub(channel)


async def test_server_is_ready_with_no_model_and_loads_by_name(rest: Any) -> None:
    assert await rest("/v2/health/ready") == (200, {"ready": True})
    assert await rest("/v1/models") == (200, {"models": []})
    assert (await rest("/v1/models/red:predict", ROWS))[0] == 404
    for name in ("red", "blue"):
        assert await rest(f"/v2/repository/models/{name}/load", b"") == (200, {"name": name, "load": True})
        assert await rest(f"/v1/models/{name}:predict", ROWS) == (200, {"predictions": [0]})
    assert await rest("/v1/models") == (200, {"models": ["blue", "red"]})


async def test_unloaded_model_is_forgotten_and_can_come_again(rest: Any, folder: Path) -> None:
    await rest("/v2/repository/models/red/load", b"")
    assert await rest("/v2/repository/models/red/unload", b"") == (200, {"name": "red", "unload": True})
    assert await rest("/v1/models") == (200, {"models": []})
    assert (await rest("/v2/repository/models/red/unload", b""))[0] == 404
    assert (await rest("/v2/repository/models/red/load", b""))[0] == 200
    assert (await rest("/v1/models/red:predict", ROWS))[0] == 200


async def test_what_is_broken_says_why_and_the_others_answer(rest: Any, folder: Path) -> None:
    (folder / "broken").mkdir()
    await rest("/v2/repository/models/red/load", b"")
    status, answer = await rest("/v2/repository/models/broken/load", b"")
    assert (status, str(folder / "broken") in answer["error"]) == (503, True)
    assert await rest("/v2/health/ready") == (200, {"ready": True})
    states = {model["name"]: model["state"] for model in (await rest("/v2/repository/index", b""))[1]}
    assert states == {"broken": "UNAVAILABLE", "red": "READY"}


@pytest.mark.parametrize("name", ["..", ".", "", "../iris", "/etc", ".hidden", "none"])
async def test_name_leads_nowhere_else(stub: Any, folder: Path, name: str) -> None:
    (folder / ".hidden").mkdir()
    with pytest.raises(grpc.aio.AioRpcError, match="does not exist: no such folder") as wrong:
        await stub.Load(pb.LoadRequest(name=name))
    assert wrong.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_each_state_as_it_changes(stub: Any, folder: Path) -> None:
    watch = stub.Watch(pb.WatchRequest()).__aiter__()
    seen: list[dict[str, tuple[int, str]]] = []

    async def until(wanted: dict[str, tuple[int, str]]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not seen or seen[-1] != wanted:
                seen.append({model.name: (model.state, model.tag) for model in (await anext(watch)).models})

    await until({})
    await stub.Load(pb.LoadRequest(name="red", tag="first"))
    await until({"red": (pb.LOADED, "first")})
    assert {"red": (pb.LOADING, "")} in seen
    await stub.Load(pb.LoadRequest(name="red", tag="second"))
    await until({"red": (pb.LOADED, "second")})
    (folder / "broken").mkdir()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Load(pb.LoadRequest(name="broken", tag="x"))
    # Not UNAVAILABLE, which would be the server's own.
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    await until({"red": (pb.LOADED, "second"), "broken": (pb.FAILED, "")})
    await stub.Unload(pb.UnloadRequest(name="red"))
    await until({"broken": (pb.FAILED, "")})


async def test_drain_ends_who_watches(folder: Path) -> None:
    predictor = Predictor(
        Settings(
            runtime="sklearn", model_dir=folder, multi_model_server=True, host="127.0.0.1", http_port=0, grpc_port=0
        ),
        plugins.load().runtimes["servery-sklearn"],
        Metrics(CollectorRegistry()),
    )
    await predictor.start()
    assert predictor.grpc is not None
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        watch = stubs.ModelRepositoryStub(channel).Watch(pb.WatchRequest()).__aiter__()
        await anext(watch)
        await predictor.stop()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_models_of_a_triton_repository_are_found_by_name(
    start: Start, client: Client, rest_of: Any, triton_models: Path
) -> None:
    predictor = await start(triton_models, runtime="triton", multi_model_server=True)
    rest = rest_of(client, predictor.http.url)
    assert (await rest("/v2/repository/models/simple/load", b""))[0] == 200
    tensors = [{"name": f"INPUT{n}", "datatype": "INT32", "shape": [1, 16], "data": [n + 1] * 16} for n in (0, 1)]
    status, answer = await rest("/v2/models/simple/infer", {"inputs": tensors})
    assert (status, answer["outputs"][0]["data"]) == (200, [3] * 16)
    assert (await rest("/v2/models/repeat/infer", {"inputs": tensors}))[0] == 404


async def test_unload_and_load_at_once_leave_what_was_asked_last(many: Predictor) -> None:
    await many.repository.load("red")
    unloading = asyncio.create_task(many.repository.unload("red"))
    loading = asyncio.create_task(many.repository.load("red"))
    await asyncio.gather(unloading, loading)
    assert [entry.name for entry in many.repository.entries()] == ["red"]
    assert await many.repository.is_ready("red")


def test_several_workers_cannot_hold_models_that_come_and_go() -> None:
    with pytest.raises(ValidationError, match="found --multi-model-server"):
        Settings(runtime="sklearn", multi_model_server=True, workers=2)


def test_kserves_variable_says_so_too(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("MULTI_MODEL_SERVER", "true")
    settings = Settings(runtime="sklearn", model_dir=folder)
    plane = data_plane(settings, plugins.load().runtimes["servery-sklearn"], Metrics(CollectorRegistry()))
    assert plane.repository.holds_many
