from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import misbehaving
import pytest
from misbehaving import Misbehaving, served
from servery_sdk.digests import DigestAlgorithm, digest_of
from servery_sdk.storage import StorageEntry
from servery_storage import cache as caches
from servery_storage.assembly import Assembly
from servery_storage.cache import Cache
from servery_storage.plan import Piece

MODEL = {"/llm/weights.bin": random.Random(1).randbytes(300_000), "/llm/config.json": b'{"layers": 2}'}
CHILD = """
import asyncio, sys
from pathlib import Path
from misbehaving import Locating
from servery_storage.engine import Engine
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings

async def main(url, cache, *targets):
    async def one(target):
        engine = Engine({"bad": Locating(url, MODEL)}, Settings(cache=Path(cache), piece_bytes=65536))
        await engine.fetch("bad://x/llm", Path(target), JsonLines())
    await asyncio.gather(*map(one, targets))

import random
MODEL = {"/llm/weights.bin": random.Random(1).randbytes(300_000), "/llm/config.json": b'{"layers": 2}'}
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def site() -> Iterator[Misbehaving]:
    with served() as site:
        site.objects |= MODEL
        yield site


async def test_two_processes_and_ten_pods_fetch_a_model_once(site: Misbehaving, tmp_path: Path) -> None:
    pods = [tmp_path / f"pod-{number}" / "models" for number in range(10)]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CHILD,
            site.url,
            str(tmp_path / "cache"),
            *map(str, part),
            env={**os.environ, "PYTHONPATH": str(Path(misbehaving.__file__).parent)},
            stderr=asyncio.subprocess.DEVNULL,
        )
        for part in (pods[:5], pods[5:])
    ]
    assert [await process.wait() for process in processes] == [0, 0]
    for pod in pods:
        assert (pod / "weights.bin").read_bytes() == MODEL["/llm/weights.bin"]
        assert (pod / "config.json").read_bytes() == MODEL["/llm/config.json"]
    asked = Counter((ask.path, ask.start) for ask in site.asked)
    assert set(asked.values()) == {1}


@pytest.fixture
def entry() -> StorageEntry:
    return StorageEntry(path="a", source="bucket/a", size_bytes=3, version="1")


@pytest.fixture
def key(entry: StorageEntry) -> str:
    return Cache.key("s3", entry)


def stored(tmp_path: Path, content: bytes = b"abc") -> str:
    path = tmp_path / f"stored-{len(list(tmp_path.iterdir()))}"
    path.write_bytes(content)
    return str(path)


def refusing(number: int) -> object:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("way", ["clone", "link", "copy"])
def test_object_is_handed_out_as_the_volume_can(
    tmp_path: Path, key: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's volume may do only some: those before the one in question refuse, as other volumes do."""
    if way == "clone":

        def clone(written: int, request: int, read: int) -> None:
            os.write(written, os.pread(read, 10**6, 0))

        monkeypatch.setattr(fcntl, "ioctl", clone)
    else:
        monkeypatch.setattr(fcntl, "ioctl", refusing(errno.EOPNOTSUPP))
    if way == "copy":
        monkeypatch.setattr(os, "link", refusing(errno.EXDEV))
    cache, target = Cache(tmp_path / "cache"), str(tmp_path / "target")
    cache.give(key, stored(tmp_path))
    assert cache.take(key, target)
    assert Path(target).read_bytes() == b"abc"
    assert (Path(target).stat().st_nlink > 1) is (way == "link")


def test_object_that_is_not_there_is_not_taken(tmp_path: Path, key: str) -> None:
    assert not Cache(tmp_path / "cache").take(key, str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def test_object_that_a_pod_wrote_into_is_dropped(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", refusing(errno.EOPNOTSUPP))
    cache, pod = Cache(tmp_path / "cache"), tmp_path / "pod"
    cache.give(key, stored(tmp_path))
    assert cache.take(key, str(pod))
    with pod.open("r+b") as file:
        file.write(b"xyz")
    os.utime(pod, ns=(0, 1))
    assert not cache.take(key, str(tmp_path / "other"))
    assert cache.used_bytes() == 0


def test_object_that_is_fetched_anew_leaves_the_links_of_others_alone(tmp_path: Path, entry: StorageEntry) -> None:
    """Who was killed between taking an object and noting it leaves a link to what other pods read."""
    others, left = tmp_path / "others", tmp_path / "left"
    others.write_bytes(b"abc")
    left.hardlink_to(others)
    piece = Piece(entry, 0, 3)
    assembly = Assembly(entry, str(left), (piece,), (piece,))
    assembly.open(None)
    assembly.write(memoryview(b"x"), 0)
    assembly.close()
    assert others.read_bytes() == b"abc"


def test_least_recently_used_goes_when_room_is_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=7)
    for number, key in enumerate(["a", "b"]):
        cache.give(key, stored(tmp_path))
        os.utime(tmp_path / "cache" / "objects" / f"{key}.note", (number, number))
    assert cache.take("a", str(tmp_path / "target"))
    cache.give("c", stored(tmp_path))
    assert [cache.take(key, str(tmp_path / "target")) for key in ("a", "b", "c")] == [True, False, True]
    cache.give("large", stored(tmp_path, b"12345678"))
    assert cache.used_bytes() == 6


def test_equal_bytes_of_two_places_are_one_object() -> None:
    digest = digest_of(DigestAlgorithm.SHA256, b"abc")
    here = StorageEntry(path="a", source="one/a", version="1", digest=digest)
    there = StorageEntry(path="b", source="two/b", version="7", digest=digest)
    assert Cache.key("hf", here) == Cache.key("oci", there)


def test_new_version_is_another_object(entry: StorageEntry) -> None:
    newer = StorageEntry(path=entry.path, source=entry.source, size_bytes=entry.size_bytes, version="2")
    assert Cache.key("s3", entry) != Cache.key("s3", newer)
    assert Cache.key("s3", entry) != Cache.key("gcs", entry)


def test_full_volume_keeps_nothing_and_fails_nothing(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    monkeypatch.setattr(caches, "_handed", refusing(errno.ENOSPC))
    cache.give(key, stored(tmp_path))
    assert cache.used_bytes() == 0
    assert not list((tmp_path / "cache" / "objects").iterdir())
