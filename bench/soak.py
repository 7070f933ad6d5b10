"""Asks real predictors for minutes, in all protocols and as badly as clients do, and checks every answer.

Run: ``uv run python bench/soak.py [minutes, 30 unless said] [--workers 1 3] [--runtimes sklearn python]
[--fronts fast grpcio]``. It uses 127.0.0.1 alone and ends by itself: with 1 if an answer was lost or wrong, if memory
grows, or if anything stays open.

One ``servery-predictor`` runs for each runtime and number of workers, by turns with each gRPC front, all at the same
time; each has a process of clients (``soaking/clients.py``: v1, v2 JSON, v2 binary and gRPC; pipelines; slow senders and
readers; silence; hanging up anywhere; wrong requests; loads, unloads and loads that fail, meanwhile). An answer tells
which input it is to and which version of the model made it (``soaking/models.py``), so all are checked for both.

First comes a warm-up, and then a quiet moment, in which what is open is counted: after the soak it must be no more. The
slope is that of a line through all measurements of a process's RSS but those of the first fifth, with the workers'
memory added up; it is judged where that line is four minutes long at least.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from predictor import free_port, machine, serving
from soaking.clients import MODEL, Target, run
from soaking.models import known
from soaking.tally import Tally
from up import family, resident_mib

MOST_KIB_PER_MINUTE = 256.0
"""Of one server, for each of its processes: what fragments in the allocator is less after minutes, what leaks is more."""
JUDGED_SECONDS = 240.0
"""Loads beside loads make RSS swing by some MiB, and a shorter line follows the last swing."""
SAMPLE_SECONDS = 5.0
QUIET_SECONDS = 20.0
"""After the last client: until then, what is open must have been closed."""
FEW = 4
"""Descriptors that ``grpcio`` opens when it likes."""

STARTER = """
import asyncio, os, pathlib, signal
from servery_predictor.cli import main
def count(number, frame):
    try:
        tasks = len(asyncio.all_tasks())
    except RuntimeError:
        return  # no loop: a supervisor
    place = pathlib.Path(os.environ["SOAK_TASKS"], str(os.getpid()))
    place.with_suffix(".new").write_text(str(tasks))
    place.with_suffix(".new").rename(place)
signal.signal(signal.SIGUSR1, count)
main()
"""
"""The command itself, and a signal that lets it say how many asyncio tasks it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What a server has open, its processes together."""

    descriptors: int
    threads: int
    tasks: int
    files: int

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.threads} threads, {self.tasks} asyncio tasks, "
            f"{self.files} temporary files"
        )

    def exceeds(self, other: Open) -> bool:
        """Return whether something of this stayed open since ``other``; threads come with what load there was."""
        return self.descriptors > other.descriptors + FEW or self.tasks > other.tasks or self.files > other.files


@dataclass(slots=True)
class Soaked:
    """One server, and what was seen of it."""

    name: str
    workers: int
    pid: int
    folder: Path
    target: Target
    version: int = 1
    tally: Tally = field(default_factory=Tally)
    samples: list[tuple[float, float]] = field(default_factory=list)

    def pids(self) -> list[int]:
        """Return its processes, the one that was started first."""
        return list(family(self.pid))

    def sample(self, now: float) -> None:
        """Remember its memory, in KiB."""
        self.samples.append((now, sum(resident_mib(pid) for pid in self.pids()) * 1024))

    def open(self) -> Open:
        """Return what is open now.

        Raises:
            SystemExit: It does not say how many tasks it has.
        """
        pids = self.pids()
        told = [self.folder / "tasks" / str(pid) for pid in (pids[1:] if self.workers > 1 else pids)]
        for place in told:
            place.unlink(missing_ok=True)
            os.kill(int(place.name), signal.SIGUSR1)
        until = time.monotonic() + 10
        while not all(place.exists() for place in told):
            if time.monotonic() > until:
                raise SystemExit(f"{self.name}: does not say how many tasks it has")
            time.sleep(0.05)
        return Open(
            descriptors=sum(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for pid in pids),
            threads=sum(sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) for pid in pids),
            tasks=sum(int(place.read_text()) for place in told),
            files=sum(1 for _ in (self.folder / "tmp").rglob("*")),
        )

    def slope(self) -> tuple[float, float]:
        """Return KiB per minute of a line through the later four fifths of the samples, and its seconds."""
        began, ended = self.samples[0][0], self.samples[-1][0]
        later = np.array([one for one in self.samples if one[0] >= began + (ended - began) / 5])
        if len(later) < 2:
            return 0.0, 0.0
        return float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0]), float(later[-1, 0] - later[0, 0])


def started(
    stack: ExitStack, scratch: Path, runtimes: Sequence[str], counts: Sequence[int], fronts: Sequence[str]
) -> Iterator[Soaked]:
    """Yield a ready server for each runtime and number of workers, with the gRPC fronts by turns."""
    for (row, runtime), (column, workers) in itertools.product(enumerate(runtimes), enumerate(counts)):
        front = fronts[(row + column) % len(fronts)]
        name = f"{runtime}, {workers} worker{'s'[: workers > 1]}, {front} gRPC front"
        folder = scratch / f"{runtime}-{workers}"
        for needed in ("artifact", "tasks", "tmp"):
            (folder / needed).mkdir(parents=True)
        target = Target(runtime=runtime, http=free_port(), grpc=free_port(), artifact=folder / "artifact")
        known(runtime).publish(target.artifact, 1)
        command = [
            *(sys.executable, "-c", STARTER, f"--runtime={runtime}", f"--model_name={MODEL}", "--host=127.0.0.1"),
            *(f"--model_dir={target.artifact}", f"--http_port={target.http}", f"--grpc_port={target.grpc}"),
            *(f"--workers={workers}", f"--grpc_front={front}"),
        ]
        variables = {"SOAK_TASKS": str(folder / "tasks"), "TMPDIR": str(folder / "tmp")}
        ready = f"http://127.0.0.1:{target.http}/v2/models/{MODEL}/ready"
        process = stack.enter_context(serving(name, command, variables, ready, os.sched_getaffinity(0)))
        yield Soaked(name, workers, process.pid, folder, target)


def ask(pool: ProcessPoolExecutor, servers: Sequence[Soaked], seconds: float, *, says: bool) -> None:
    """Let all clients ask so long, and remember what they found and what memory was needed meanwhile."""
    asking: dict[Future[tuple[Tally, int]], Soaked] = {
        pool.submit(run, server.target, seconds, server.version, seed): server for seed, server in enumerate(servers)
    }
    began = time.monotonic()
    while wait(asking, timeout=min(SAMPLE_SECONDS, seconds / 10)).not_done:
        now = time.monotonic() - began
        for server in servers:
            server.sample(now)
        if says:
            memory = " | ".join(f"{server.samples[-1][1] / 1024:7.1f}" for server in servers)
            print(f"| {now:6.0f} | {memory} |", flush=True)
    for future, server in asking.items():
        found, server.version = future.result()
        server.tally.add(found)


def quiet(servers: Sequence[Soaked], before: dict[str, Open] | None = None) -> dict[str, Open]:
    """Return what is open where nobody asks; with ``before``, as soon as that is no more than then."""
    until = time.monotonic() + QUIET_SECONDS
    while True:
        time.sleep(1)
        found = {server.name: server.open() for server in servers}
        if before is None or time.monotonic() > until or not any(found[n].exceeds(before[n]) for n in found):
            return found


def report(server: Soaked, before: Open, after: Open) -> bool:
    """Print what was found; returns whether all was well."""
    tally, (slope, seconds) = server.tally, server.slope()
    most = MOST_KIB_PER_MINUTE * len(server.pids())
    judged = seconds >= JUDGED_SECONDS
    print(f"\n{server.name}")
    for title, counted in (("right", tally.right), ("left before the answer", tally.left)):
        print(f"  {title}: {counted.total():,}")
        for kind, count in sorted(counted.items()):
            print(f"    {count:>10,}  {kind}")
    print(f"  lost: {tally.lost.total()} {dict(tally.lost) or ''}")
    print(f"  wrong: {tally.wrong.total()} {dict(tally.wrong) or ''}")
    for words in tally.words:
        print(f"    {words}")
    said = f"the most is {most:.0f}" if judged else f"not judged: {JUDGED_SECONDS:.0f} s are needed"
    print(
        f"  RSS: {server.samples[0][1] / 1024:.1f} MiB at first, {server.samples[-1][1] / 1024:.1f} MiB at last; "
        f"{slope:+.0f} KiB a minute over {seconds:.0f} s ({said})"
    )
    print(f"  open before: {before}\n  open after:  {after}")
    well = not (tally.lost or tally.wrong or after.exceeds(before) or (judged and slope > most))
    print(f"  {'well' if well else 'NOT WELL'}")
    return well


def main() -> None:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 3], help="one server with each number")
    parser.add_argument("--runtimes", nargs="+", default=["sklearn", "python"], choices=["sklearn", "python"])
    parser.add_argument("--fronts", nargs="+", default=["fast", "grpcio"], choices=["fast", "grpcio"], help="by turns")
    options = parser.parse_args()
    seconds = options.minutes * 60
    print(machine())
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool,
        ExitStack() as stack,
    ):
        servers = list(started(stack, Path(scratch), options.runtimes, options.workers, options.fronts))
        ask(pool, servers, min(30.0, seconds / 5), says=False)
        before = quiet(servers)
        for server in servers:
            server.samples.clear()
        print("\nRSS in MiB, all processes of a server together\n")
        print(f"| second | {' | '.join(server.name for server in servers)} |")
        print("| --- |" + " --- |" * len(servers), flush=True)
        ask(pool, servers, seconds, says=True)
        after = quiet(servers, before)
        well = [report(server, before[server.name], after[server.name]) for server in servers]
    raise SystemExit(0 if all(well) else 1)


if __name__ == "__main__":
    main()
