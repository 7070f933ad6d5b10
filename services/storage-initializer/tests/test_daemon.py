"""The daemon as a process, asked over its socket."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from servery_sdk.protos.servery.storage.v1 import storage_pb2 as pb
from servery_sdk.protos.servery.storage.v1 import storage_pb2_grpc as stubs

COMMAND = "from servery_storage.commands import app; app()"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name, size in {"a": 300, "b": 400, "c": 500}.items():
        (source / name).mkdir(parents=True)
        (source / name / "model.bin").write_bytes(name.encode() * size)
        (source / name / "notes.txt").touch()
    return source


@pytest.fixture
def socket() -> Iterator[Path]:
    """A Unix socket's path may have a hundred bytes only."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "storage.sock"


class Daemon:
    def __init__(self, root: Path, socket: Path) -> None:
        self.root, self._socket = root, socket

    async def start(self) -> None:
        options = ["--socket", str(self._socket), "--root", str(self.root), "--quota-bytes", "1200"]
        options += ["--metrics-host", "127.0.0.1", "--metrics-port", "0"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, "serve", *options, stderr=asyncio.subprocess.PIPE
        )
        assert self._process.stderr is not None
        while "serving" not in (line := await self._process.stderr.readline()).decode():
            assert line, "the daemon ended"
            if b"metrics served" in line:
                self._metrics_port = json.loads(line)["port"]
        self._channel = grpc.aio.insecure_channel(f"unix:{self._socket}")
        self.stub = stubs.StorageStub(self._channel)

    async def stop(self) -> None:
        await self._channel.close()
        self._process.terminate()
        await self._process.communicate()
        assert self._process.returncode == 0

    async def fetch(self, name: str, uri: str, **patterns: list[str]) -> list[pb.FetchProgress]:
        return [told async for told in self.stub.Fetch(pb.FetchRequest(name=name, uri=uri, **patterns))]

    async def metrics(self) -> dict[str, float]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self._metrics_port}/metrics")
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    async def models(self) -> dict[str, bool]:
        return {model.name: model.is_held for model in (await self.stub.List(pb.ListRequest())).models}


@pytest.fixture
async def daemon(tmp_path: Path, socket: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path / "store", socket)
    await daemon.start()
    yield daemon
    await daemon.stop()


async def test_model_is_fetched_and_its_place_told(daemon: Daemon, source: Path) -> None:
    told = await daemon.fetch("team/a", f"file://{source}/a")
    assert (told[-1].path, told[-1].done_bytes, told[-1].total_bytes) == (str(daemon.root / "team/a"), 300, 300)
    assert (daemon.root / "team/a/model.bin").read_bytes() == b"a" * 300
    assert await daemon.models() == {"team/a": True}


async def test_patterns_are_of_one_request(daemon: Daemon, source: Path) -> None:
    await daemon.fetch("a", f"file://{source}/a", ignore_patterns=["*.txt"])
    assert not (daemon.root / "a/notes.txt").exists()


async def test_released_models_make_room_and_held_ones_do_not(daemon: Daemon, source: Path) -> None:
    for name in "ab":
        await daemon.fetch(name, f"file://{source}/{name}")
    with pytest.raises(grpc.aio.AioRpcError) as full:
        await daemon.fetch("c", f"file://{source}/c")
    assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "c: needs 500 bytes" in (full.value.details() or "")
    await daemon.stub.Release(pb.ReleaseRequest(name="a"))
    assert await daemon.models() == {"a": False, "b": True}
    await daemon.fetch("c", f"file://{source}/c")
    assert await daemon.models() == {"b": True, "c": True}
    assert not (daemon.root / "a").exists()


async def test_removed_model_is_gone_at_once(daemon: Daemon, source: Path) -> None:
    await daemon.fetch("a", f"file://{source}/a")
    await daemon.stub.Release(pb.ReleaseRequest(name="a", remove=True))
    assert await daemon.models() == {}
    assert not (daemon.root / "a").exists()
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await daemon.stub.Release(pb.ReleaseRequest(name="a"))
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", ["", "../a", "/etc", ".servery-models", "a/../../b"])
async def test_name_leads_nowhere_else(daemon: Daemon, source: Path, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as wrong:
        await daemon.fetch(name, f"file://{source}/a")
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await daemon.models() == {}


async def test_model_lies_in_no_other(daemon: Daemon, source: Path) -> None:
    await daemon.fetch("a", f"file://{source}/a")
    with pytest.raises(grpc.aio.AioRpcError, match="the folder would be within that of 'a'"):
        await daemon.fetch("a/b", f"file://{source}/b")


async def test_missing_source_is_said(daemon: Daemon, source: Path) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="no such file or directory"):
        await daemon.fetch("x", f"file://{source}/x")


async def test_next_start_knows_what_is_there(daemon: Daemon, source: Path) -> None:
    await daemon.fetch("a", f"file://{source}/a")
    await daemon.stub.Release(pb.ReleaseRequest(name="a"))
    await daemon.stop()
    await daemon.start()
    assert await daemon.models() == {"a": False}


async def test_metrics_tell_of_fetches_and_of_the_store(daemon: Daemon, source: Path) -> None:
    await daemon.fetch("a", f"file://{source}/a")
    await daemon.fetch("a", f"file://{source}/a")
    with pytest.raises(grpc.aio.AioRpcError):
        await daemon.fetch("x", f"file://{source}/x")
    found = await daemon.metrics()
    assert found['servery_storage_fetch_seconds_count{code="OK"}'] == 2
    assert found['servery_storage_fetch_seconds_count{code="INVALID_ARGUMENT"}'] == 1
    assert found['servery_storage_fetched_bytes_total{origin="source"}'] == 300
    assert found['servery_storage_fetched_bytes_total{origin="earlier"}'] == 300
    assert found['servery_storage_models{held="true"}'] == 1
    assert 300 < found["servery_storage_used_bytes"] < 1200, "the fetch's own record is there as well"
    assert found["servery_storage_quota_bytes"] == 1200
    assert found["servery_storage_running_fetches"] == 0
