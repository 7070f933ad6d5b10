"""A server that misbehaves: the model is whole or absent, and the message says what happened."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import misbehaving
import pytest
from misbehaving import Ask, Fault, Locating, Misbehaving, served
from servery_sdk.storage import Location, StorageEntry
from servery_storage import carrier
from servery_storage.engine import Engine, FetchFailed
from servery_storage.place import RECORD_PREFIX
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings

PIECE_BYTES = 64 * 1024
MODEL = {
    "/llm/weights.bin": random.Random(1).randbytes(10 * PIECE_BYTES + 17),
    "/llm/config.json": b'{"layers": 2}',
    "/llm/deep/er/tokens.txt": random.Random(2).randbytes(PIECE_BYTES),
    "/llm/empty": b"",
    "/llm-other/weights.bin": b"another model",
}
WHOLE = {path.removeprefix("/llm/"): content for path, content in MODEL.items() if path.startswith("/llm/")}


@pytest.fixture
def site() -> Iterator[Misbehaving]:
    with served() as site:
        site.objects |= MODEL
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def make_engine(site: Misbehaving, provider: Locating | None = None, **options: Any) -> Engine:
    settings = {"piece_bytes": PIECE_BYTES, "buffer_bytes": 4096, "backoff_seconds": 0.0, "max_connections": 4}
    return Engine({"bad": provider or Locating(site.url, site.objects)}, Settings(**{**settings, **options}))


async def fetch(engine: Engine, target: Path) -> None:
    await engine.fetch("bad://x/llm", target, JsonLines(io.StringIO()))


def tree(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and not path.name.startswith(RECORD_PREFIX)
    }


def once(path: str, fault: Fault, *, times: int = 1) -> Callable[[Ask], Fault | None]:
    """Return a rule that does wrong by ``path`` so many times."""
    left = iter(range(times))
    lock = threading.Lock()

    def rule(ask: Ask) -> Fault | None:
        if ask.path != path:
            return None
        with lock:
            return fault if next(left, None) is not None else None

    return rule


async def test_model_comes_in_pieces_and_without_its_sibling(site: Misbehaving, target: Path) -> None:
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert len([ask for ask in site.asked if ask.path == "/llm/weights.bin"]) == 11
    assert not [ask for ask in site.asked if "other" in ask.path]
    assert list(target.parent.iterdir()) == [target], "the staging directory is gone"


@pytest.mark.parametrize("offset", random.Random(3).sample(range(PIECE_BYTES), 10))
async def test_cut_connection_goes_on_at_the_byte_where_it_broke(site: Misbehaving, target: Path, offset: int) -> None:
    site.rule = once("/llm/deep/er/tokens.txt", Fault(cut_after=offset))
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    asked = [ask.start for ask in site.asked if ask.path == "/llm/deep/er/tokens.txt"]
    assert asked == [0, offset]


async def test_piece_that_is_cut_goes_on_within_it(site: Misbehaving, target: Path) -> None:
    at = PIECE_BYTES // 2 + 5
    site.rule = once("/llm/weights.bin", Fault(cut_after=at))
    await fetch(make_engine(site, max_connections=1), target)
    assert tree(target) == WHOLE
    asked = [ask.start for ask in site.asked if ask.path == "/llm/weights.bin"]
    assert asked[:3] == [0, at, PIECE_BYTES]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_server_that_recovers_is_asked_again(site: Misbehaving, target: Path, status: int) -> None:
    site.rule = once("/llm/weights.bin", Fault(status=status), times=3)
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE


async def test_server_that_asks_for_time_gets_it(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    stopped = threading.Event

    class Stopped(stopped):  # type: ignore[misc, valid-type]  # a class, under another name
        def wait(self, timeout: float | None = None) -> bool:
            # Threads wait for their start on such events as well.
            if timeout is not None:
                waits.append(timeout)
                return self.is_set()
            return super().wait(timeout)

    monkeypatch.setattr("servery_storage.mover.threading.Event", Stopped)
    site.rule = once("/llm/config.json", Fault(status=429, headers={"retry-after": "7"}))
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert max(waits) == 7.0


async def test_server_that_does_not_recover_is_said_and_nothing_is_there(site: Misbehaving, target: Path) -> None:
    site.rule = once("/llm/weights.bin", Fault(status=503, body=b"SlowDown"), times=10**6)
    with pytest.raises(FetchFailed, match=r"bad://x/llm: /llm/weights\.bin: the server answered 503"):
        await fetch(make_engine(site, max_attempts=3), target)
    assert not target.exists()


async def test_what_came_before_the_failure_is_not_fetched_again(site: Misbehaving, target: Path) -> None:
    last = 10 * PIECE_BYTES
    site.rule = lambda ask: Fault(status=503) if ask.start == last else None
    with pytest.raises(FetchFailed):
        await fetch(make_engine(site, max_attempts=2, max_connections=1), target)
    came, site.rule = len(site.asked), lambda ask: None
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    asked = [(ask.path, ask.start) for ask in site.asked[came:]]
    assert ("/llm/weights.bin", last) in asked
    assert ("/llm/weights.bin", 0) not in asked


async def test_wrong_bytes_are_fetched_again(site: Misbehaving, target: Path) -> None:
    site.rule = once("/llm/weights.bin", Fault(flip=True))
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE


async def test_bytes_that_stay_wrong_are_said(site: Misbehaving, target: Path) -> None:
    site.rule = once("/llm/config.json", Fault(flip=True), times=10**6)
    with pytest.raises(FetchFailed, match=r"'/llm/config\.json': its sha256:\w+ came as sha256:\w+"):
        await fetch(make_engine(site), target)
    assert not target.exists()


async def test_body_that_ends_early_is_taken_up(site: Misbehaving, target: Path) -> None:
    """By its own words the answer is whole: the length it gives is the shorter one."""
    wrong = MODEL["/llm/config.json"][:5]
    site.rule = once("/llm/config.json", Fault(status=206, headers={"content-range": "bytes 0-4/13"}, body=wrong))
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE


async def test_redirects_are_followed_and_loops_end(site: Misbehaving, target: Path) -> None:
    site.objects["/elsewhere"] = MODEL["/llm/config.json"]
    here = site.url.replace("127.0.0.1", "localhost")
    site.rule = once("/llm/config.json", Fault(status=302, headers={"location": f"{here}/elsewhere"}))
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    (sent,) = [ask for ask in site.asked if ask.path == "/elsewhere"]
    assert "authorization" not in sent.headers, "credentials are for the host that they are for"

    site.rule = once("/llm/config.json", Fault(status=302, headers={"location": "/llm/config.json"}), times=10**6)
    with pytest.raises(FetchFailed, match="more than 10 redirects"):
        await fetch(make_engine(site), target.with_name("again"))


async def test_key_of_ones_own_stays_with_its_host(site: Misbehaving, target: Path) -> None:
    """A header's name does not say that it is a secret."""

    class Keyed(Locating):
        def locate(self, entry: StorageEntry) -> Location:
            located = super().locate(entry)
            return Location(url=located.url, headers={**located.headers, "x-api-key": "secret"})

    here = site.url.replace("127.0.0.1", "localhost")
    site.objects["/elsewhere"] = MODEL["/llm/config.json"]
    site.rule = once("/llm/config.json", Fault(status=307, headers={"location": f"{here}/elsewhere"}))
    await fetch(make_engine(site, Keyed(site.url, site.objects)), target)
    (sent,) = [ask for ask in site.asked if ask.path == "/elsewhere"]
    assert "x-api-key" not in sent.headers
    assert "if-match" in sent.headers


async def test_signature_in_a_uri_is_not_said(site: Misbehaving, target: Path) -> None:
    uri = "bad://x/nothing?sv=2024&sig=c2VjcmV0&X-Amz-Signature=abc"
    with pytest.raises(FetchFailed, match=r"bad://x/nothing\?sv=2024&sig=…&X-Amz-Signature=…") as failed:
        await make_engine(site).fetch(uri, target, JsonLines(io.StringIO()))
    assert "c2VjcmV0" not in str(failed.value)


async def test_trickle_is_given_up_for_a_new_connection(site: Misbehaving, target: Path) -> None:
    """The server holds back what follows the middle of the object, and the read times out."""
    hold = threading.Event()
    site.rule = once("/llm/weights.bin", Fault(hold=hold))
    try:
        await fetch(make_engine(site, timeout_seconds=0.2), target)
    finally:
        hold.set()
    assert tree(target) == WHOLE


async def test_trickle_that_never_stops_is_too_slow(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(carrier, "SLOW_BYTES_PER_SECOND", 10**12)
    with pytest.raises(FetchFailed, match=r"it came at [0-9]+ bytes a second"):
        await fetch(make_engine(site, max_attempts=2, buffer_bytes=64), target)
    assert not target.exists()


async def test_credentials_that_run_out_are_renewed(site: Misbehaving, target: Path) -> None:
    """After three requests the first token is refused."""
    site.rule = lambda ask: Fault(status=401) if ask.number > 2 and ask.headers["authorization"] == "old" else None
    provider = Locating(site.url, site.objects, token="old", renewed="new")
    await fetch(make_engine(site, provider), target)
    assert tree(target) == WHOLE
    assert {ask.headers["authorization"] for ask in site.asked} == {"old", "new"}


async def test_object_replaced_in_the_middle_is_said(site: Misbehaving, target: Path) -> None:
    engine = make_engine(site, Locating(site.url, dict(MODEL)), max_connections=1)

    def replaced(ask: Ask) -> Fault | None:
        if ask.start == 3 * PIECE_BYTES:
            site.objects["/llm/weights.bin"] = bytes(len(MODEL["/llm/weights.bin"]))
        return None

    site.rule = replaced
    with pytest.raises(FetchFailed, match=r"/llm/weights\.bin.*the object changed during the download"):
        await fetch(engine, target)
    assert not target.exists()


async def test_object_replaced_between_two_starts_is_fetched_anew(site: Misbehaving, target: Path) -> None:
    site.rule = lambda ask: Fault(status=503) if ask.start == 5 * PIECE_BYTES else None
    with pytest.raises(FetchFailed):
        await fetch(make_engine(site, max_attempts=1, max_connections=1), target)
    site.rule = lambda ask: None
    site.objects["/llm/weights.bin"] = random.Random(5).randbytes(len(MODEL["/llm/weights.bin"]))
    await fetch(make_engine(site), target)
    assert tree(target)["weights.bin"] == site.objects["/llm/weights.bin"]


async def test_full_disk_is_said_before_anything_is_fetched(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(FetchFailed, match=r"the model needs \d+ bytes more, and the volume of .* has 1000 free"):
        await fetch(make_engine(site), target)
    assert site.asked == []
    assert not target.exists()


@pytest.mark.parametrize("call", ["pwrite", "splice"])
async def test_disk_that_fills_up_is_said_and_freed(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    written = getattr(os, call)

    def full(*arguments: Any, **options: Any) -> int:
        if options.get("offset_dst", 0 if call == "splice" else arguments[-1]) > 4 * PIECE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(written(*arguments, **options))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(FetchFailed, match="the disk is full"):
        await fetch(make_engine(site), target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("end", ["connection", "file"])
async def test_where_nothing_can_be_spliced_bytes_go_through_a_buffer(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    spliced, refused = os.splice, []

    def refusing(*arguments: Any, **options: Any) -> int:
        if ("offset_dst" in options) is (end == "file"):
            refused.append(end)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return spliced(*arguments, **options)

    monkeypatch.setattr(os, "splice", refusing)
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert refused


async def test_pieces_of_one_file_are_written_one_at_a_time(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first waits a while for another to come meanwhile."""
    spliced, writing, met = os.splice, threading.Semaphore(1), threading.Event()
    begun = threading.Event()

    def watched(*arguments: Any, **options: Any) -> int:
        if "offset_dst" not in options:
            return spliced(*arguments, **options)
        if not writing.acquire(blocking=False):
            met.set()
            return spliced(*arguments, **options)
        try:
            if not begun.is_set():
                begun.set()
                met.wait(0.5)
            return spliced(*arguments, **options)
        finally:
            writing.release()

    monkeypatch.setattr(os, "splice", watched)
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert begun.is_set()
    assert not met.is_set()


async def test_server_without_ranges_is_read_whole(site: Misbehaving, target: Path) -> None:
    site.ranges = False
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE


@pytest.mark.parametrize("moment", random.Random(7).sample(range(sum(map(len, WHOLE.values()))), 10))
def test_process_killed_at_any_moment_leaves_all_or_nothing_and_the_next_goes_on(
    site: Misbehaving, target: Path, moment: int
) -> None:
    """The killed one is killed when the server has sent so many bytes."""
    started: list[subprocess.Popen[bytes]] = []

    def killing(count: int) -> None:
        if count >= moment:
            os.kill(started[0].pid, signal.SIGKILL)

    site.sent = killing
    started.append(child(site, target))
    assert started[0].wait(60) == -signal.SIGKILL
    assert tree(target) in ({}, WHOLE)
    site.sent = lambda count: None
    before = site.bytes_sent
    assert child(site, target).wait(60) == 0
    assert tree(target) == WHOLE
    assert list(target.parent.iterdir()) == [target]
    # What the killed one had whole is not sent again: of four connections at most one piece each.
    assert site.bytes_sent - before <= sum(map(len, WHOLE.values())) - moment + 5 * PIECE_BYTES


CHILD = f"""
import asyncio, sys
from pathlib import Path
from misbehaving import Locating
from servery_storage.engine import Engine
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from test_model import MODEL
settings = Settings(piece_bytes={PIECE_BYTES}, buffer_bytes=4096, backoff_seconds=0.0, max_connections=4)
asyncio.run(Engine({{"bad": Locating(sys.argv[1], MODEL)}}, settings).fetch("bad://x/llm", Path(sys.argv[2]), JsonLines()))
"""


def child(site: Misbehaving, target: Path) -> subprocess.Popen[bytes]:
    """Start another process that fetches the model."""
    model = target.parent.parent / f"{target.parent.name}-model"
    model.mkdir(exist_ok=True)
    (model / "test_model.py").write_text(f"MODEL = {MODEL!r}")
    path = os.pathsep.join([str(Path(misbehaving.__file__).parent), str(model)])
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, site.url, str(target)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )


async def test_cancelled_fetch_ends_its_threads(site: Misbehaving, target: Path) -> None:
    hold = threading.Event()
    site.rule = lambda ask: Fault(hold=hold) if ask.path == "/llm/weights.bin" else None
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def sent(count: int) -> None:
        loop.call_soon_threadsafe(begun.set)

    site.sent = sent
    running = asyncio.create_task(fetch(make_engine(site, timeout_seconds=0.5), target))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    hold.set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    assert not target.exists()
