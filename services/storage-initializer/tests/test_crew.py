"""Hundreds of small objects, of which processes bring the most: as whole, and said as well, as by threads alone."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import misbehaving
import pytest
from misbehaving import Ask, Fault, Locating, Misbehaving, served
from servery_storage import hand
from servery_storage.carrier import Carrier
from servery_storage.crew import LEAST_OBJECTS, Crew, size_of
from servery_storage.engine import Engine, FetchFailed
from servery_storage.lock import held
from servery_storage.place import RECORD_PREFIX
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from servery_storage.staging import Staging

COUNT = LEAST_OBJECTS + 50
SIZE = 500
SMALL = {f"/llm/parts/{number:03}.bin": random.Random(number).randbytes(SIZE) for number in range(COUNT)}
MODEL = {**SMALL, "/llm/weights.bin": random.Random(0).randbytes(300_000), "/llm/empty": b""}
WHOLE = {path.removeprefix("/llm/"): content for path, content in MODEL.items()}
FAULTY = "/llm/parts/200.bin"


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


@pytest.fixture
def site() -> Iterator[Misbehaving]:
    with served() as site:
        site.objects |= MODEL
        yield site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def make_engine(site: Misbehaving, provider: Locating | None = None, **options: Any) -> Engine:
    settings = {"piece_bytes": 64 * 1024, "backoff_seconds": 0.0, **options}
    return Engine({"bad": provider or Locating(site.url, site.objects)}, Settings(**settings))


async def fetch(engine: Engine, target: Path) -> list[dict[str, Any]]:
    """Return what was said."""
    said = io.StringIO()
    await engine.fetch("bad://x/llm", target, JsonLines(said))
    return [json.loads(line) for line in said.getvalue().splitlines()]


def tree(target: Path) -> dict[str, bytes]:
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file() and not path.name.startswith(RECORD_PREFIX)
    }


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that threads ask for."""
    asked: list[str] = []
    carry = Carrier.carry

    def noted(self: Carrier, piece: Any, assembly: Any) -> bool:
        asked.append(piece.entry.source)
        return carry(self, piece, assembly)

    monkeypatch.setattr(Carrier, "carry", noted)
    return asked


async def test_processes_bring_what_is_small_and_threads_the_rest(
    site: Misbehaving, target: Path, taken: list[str]
) -> None:
    *_, fetched = await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert set(taken) == {"/llm/weights.bin", "/llm/empty"}
    assert sorted(ask.path for ask in site.asked if ask.path in SMALL) == sorted(SMALL), "each is asked for once"
    assert (fetched["fetched_bytes"], fetched["retries"]) == (sum(map(len, MODEL.values())), 0)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("options", [{"max_processes": 0}, {"max_bytes_per_second": 10**9}, {"max_connections": 3}])
async def test_threads_bring_all_where_they_are_to(
    site: Misbehaving, target: Path, taken: list[str], options: dict[str, int]
) -> None:
    await fetch(make_engine(site, **options), target)
    assert tree(target) == WHOLE
    assert set(taken) == set(MODEL)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=302, headers={"location": FAULTY}),
        Fault(cut_after=0),
        Fault(cut_after=SIZE // 2),
        Fault(flip=True),
        Fault(status=200, body=b"an error page"),
    ],
    ids=["busy", "sent-on", "no-answer", "cut", "wrong", "another-length"],
)
async def test_what_a_process_does_not_bring_threads_do(
    site: Misbehaving, target: Path, taken: list[str], fault: Fault
) -> None:
    once = iter([fault])
    site.rule = lambda ask: next(once, None) if ask.path == FAULTY else None
    *_, fetched = await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert FAULTY in taken
    assert fetched["retries"] >= 1


async def test_server_that_fails_for_all_is_said_as_by_threads(site: Misbehaving, target: Path) -> None:
    site.rule = lambda ask: Fault(status=403) if ask.path in SMALL else None
    with pytest.raises(FetchFailed, match=r"bad://x/llm: /llm/parts/\d+\.bin: the server answered 403"):
        await fetch(make_engine(site), target)
    assert list(target.parent.iterdir()) == []


async def test_bytes_that_stay_wrong_are_said(site: Misbehaving, target: Path) -> None:
    site.rule = lambda ask: Fault(flip=True) if ask.path == FAULTY else None
    with pytest.raises(FetchFailed, match=r"'/llm/parts/200\.bin': its sha256:\w+ came as sha256:\w+"):
        await fetch(make_engine(site), target)
    assert len([ask for ask in site.asked if ask.path == FAULTY]) == Settings().max_mismatches


async def test_credentials_that_run_out_are_renewed(site: Misbehaving, target: Path) -> None:
    site.rule = lambda ask: Fault(status=401) if ask.number > 99 and ask.headers["authorization"] == "old" else None
    await fetch(make_engine(site, Locating(site.url, site.objects, token="old", renewed="new")), target)
    assert tree(target) == WHOLE


async def test_file_that_was_left_is_not_written_into(site: Misbehaving, target: Path) -> None:
    """It may be a hard link to the cache's own object."""
    staging = Staging("bad://x/llm", target)
    left = staging.files / FAULTY.removeprefix("/llm/")
    entries = [entry async for entry in Locating(site.url, MODEL).list(misbehaving.StorageUri.parse("bad://x/llm"))]
    async with held(staging.directory):
        staging.begin(entries, 64 * 1024)
        staging.close()
    shared = target.parent / "shared"
    shared.write_bytes(b"another's")
    left.hardlink_to(shared)
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE
    assert shared.read_bytes() == b"another's"


async def test_cancelled_fetch_ends_its_processes(site: Misbehaving, target: Path) -> None:
    hold, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def rule(ask: Ask) -> Fault | None:
        if ask.path != FAULTY:
            return None
        loop.call_soon_threadsafe(begun.set)
        return Fault(hold=hold)

    site.rule = rule
    running = asyncio.create_task(fetch(make_engine(site), target))
    await begun.wait()
    running.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, hand.PATIENCE_SECONDS - 1)
    finally:
        hold.set()
    assert not children()
    assert not target.exists()


def children() -> str:
    """Return the processes of this one, as the kernel lists them."""
    return "".join((task / "children").read_text() for task in Path("/proc/self/task").iterdir())


CHILD = f"""
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(misbehaving.__file__).parent)!r})
sys.path.insert(0, {str(Path(__file__).parent)!r})
os.sched_getaffinity = lambda _: {{0, 1, 2, 3}}
from misbehaving import Locating
from test_crew import MODEL
from servery_storage.engine import Engine
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
asyncio.run(Engine({{"bad": Locating(sys.argv[1], MODEL)}}, Settings()).fetch("bad://x/llm", Path(sys.argv[2]), JsonLines()))
"""


@pytest.mark.parametrize("moment", [1, 30, 200, 400])
def test_process_killed_with_its_crew_at_work_leaves_nothing_and_the_next_goes_on(
    site: Misbehaving, target: Path, moment: int
) -> None:
    """Killed at so many requests. Its crew has the lock until it has ended, and the next waits for that."""
    started: list[subprocess.Popen[bytes]] = []

    def killing(ask: Ask) -> None:
        if ask.number == moment:
            os.kill(started[0].pid, signal.SIGKILL)

    site.rule = killing
    started.append(child(site, target))
    assert started[0].wait(60) == -signal.SIGKILL
    assert tree(target) == {}
    site.rule = lambda ask: None
    assert child(site, target).wait(60) == 0
    assert tree(target) == WHOLE
    assert list(target.parent.iterdir()) == [target]


def child(site: Misbehaving, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, site.url, str(target)], stderr=subprocess.DEVNULL)


async def test_machine_of_no_more_processes_has_threads(
    site: Misbehaving, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(subprocess, "Popen", refused)
    await fetch(make_engine(site), target)
    assert tree(target) == WHOLE


def test_crew_is_of_the_cores_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert size_of(Settings()) == Settings().max_processes
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert size_of(Settings()) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert size_of(Settings()) == 0


def test_crew_without_work_ends_when_it_is_closed() -> None:
    crew = Crew()
    crew.start(3)
    assert children()
    crew.close()
    assert not children()


def test_crew_and_who_starts_it_stay_within_their_memory() -> None:
    """What a process has of its own, of all of them: the bound on memory is of all together."""
    crew = Crew()
    crew.start(4)
    try:
        of_a_thread = [Path(f"/proc/{pid}/task/{pid}/children") for pid in children().split()]
        while sum(len(path.read_text().split()) for path in of_a_thread) < 3:  # the forks
            os.sched_yield()
        pids = [*children().split(), *(pid for path in of_a_thread for pid in path.read_text().split())]
        shares = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        kib = sum(int(line.split()[1]) for share in shares for line in share.splitlines() if line.startswith("Pss:"))
        assert kib < 64 * 1024
    finally:
        crew.close()


def test_hand_says_why_it_ends(site: Misbehaving, tmp_path: Path) -> None:
    site.rule = lambda ask: Fault(status=503) if ask.path == FAULTY else None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    running = threading.Thread(target=hand.be, args=(theirs.detach(),))
    running.start()
    host, port = site.url.removeprefix("http://").split(":")
    with ours:
        ours.sendall(json.dumps(["http", host, int(port), True, "", "", ""]).encode())
        paths = ["/llm/parts/001.bin", FAULTY]
        ours.sendall(
            json.dumps([[at, str(tmp_path / str(at)), path, {}, SIZE, "md5"] for at, path in enumerate(paths)]).encode()
        )
        ((number, headers, algorithm, _),) = json.loads(ours.recv(hand.MESSAGE_BYTES))
        assert (number, headers["content-length"], algorithm) == (0, str(SIZE), "md5")
        assert json.loads(ours.recv(hand.MESSAGE_BYTES)) == f"{FAULTY}: the answer is 503, of 0 bytes"
    running.join()
    assert (tmp_path / "0").read_bytes() == SMALL[paths[0]]
    assert not (tmp_path / "1").exists()
