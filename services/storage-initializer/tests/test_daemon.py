"""The daemon as a process, asked over its socket."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from servery_sdk.protos.servery.storage.v1 import storage_pb2 as pb
from servery_sdk.protos.servery.storage.v1 import storage_pb2_grpc as stubs
from servery_sdk.storage import StorageEntry
from servery_storage.progress import Origin
from servery_storage.telling import MOST_FILES, Told

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

    async def fetch(self, name: str, uri: str, **asked: Any) -> list[pb.FetchProgress]:
        return [told async for told in self.stub.Fetch(pb.FetchRequest(name=name, uri=uri, **asked))]

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


async def test_each_file_is_told_to_who_asks_for_files(daemon: Daemon, source: Path) -> None:
    assert not any(told.files for told in await daemon.fetch("b", f"file://{source}/b"))
    for _ in ("fetched", "there already"):
        *_, last = await daemon.fetch("a", f"file://{source}/a", tell_files=True)
        files = {file.path: (file.done_bytes, file.total_bytes, file.state) for file in last.files}
        assert files == {
            "model.bin": (300, 300, pb.FILE_STATE_FETCHED),
            "notes.txt": (0, 0, pb.FILE_STATE_FETCHED),
        }


async def test_many_files_are_told_in_several_messages_before_the_last_ends(daemon: Daemon, source: Path) -> None:
    names = {f"{number}.txt" for number in range(2 * MOST_FILES + 1)}
    for name in names:
        (source / "a" / name).touch()
    messages = await daemon.fetch("a", f"file://{source}/a", tell_files=True)
    assert len(messages) >= 3
    assert max(len(told.files) for told in messages) == MOST_FILES
    states = {file.path: file.state for told in messages for file in told.files}
    assert states == dict.fromkeys(names | {"model.bin", "notes.txt"}, pb.FILE_STATE_FETCHED)
    assert [bool(told.path) for told in messages] == [False] * (len(messages) - 1) + [True]


def test_file_is_told_again_only_where_there_is_news() -> None:
    whole, other, endless = (
        StorageEntry(path="whole", source="whole", size_bytes=4),
        StorageEntry(path="other", source="other", size_bytes=4),
        StorageEntry(path="endless", source="endless", size_bytes=None),
    )
    told = Told(tells_files=True)

    def news() -> dict[str, tuple[int, str]]:
        return {file.path: (file.done_bytes, pb.FileState.Name(file.state)) for file in told.message().files}

    assert news() == {}
    told.begin("s3://b/m", [whole, other, endless])
    assert news() == dict.fromkeys(["whole", "other", "endless"], (0, "FILE_STATE_WAITING"))
    told.advance(whole, 3)
    told.advance(endless, 9)
    assert news() == {"whole": (3, "FILE_STATE_FETCHING"), "endless": (9, "FILE_STATE_FETCHING")}
    told.advance(whole, 1)
    told.has(other, 4, Origin.CACHE)
    assert news() == {"whole": (4, "FILE_STATE_FETCHED"), "other": (4, "FILE_STATE_FETCHED")}
    told.comes_again(whole, "its checksum is another")
    assert news() == {"whole": (0, "FILE_STATE_WAITING")}
    told.advance(whole, 4)
    told.end("s3://b/m")
    assert news() == {"whole": (4, "FILE_STATE_FETCHED"), "endless": (9, "FILE_STATE_FETCHED")}
    assert news() == {}


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
