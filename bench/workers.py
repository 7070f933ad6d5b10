"""Requests per second of one worker and of several, on a model that weighs and on iris, and what a large model costs.

Run: ``uv run python bench/workers.py [--workers 4] [--seconds 3] [--megabytes 300]``. Needs ``wrk`` and ``taskset``.

One worker has a core, several have one each. ``wrk`` has the cores that are left, or shares all where none is left (it
says which); then it takes from several workers what it does not take from one, and so the ratio of rates on a quick model
is that of the machine, not of the server. What the server itself costs is told apart: the processor time, user and
system, of all its processes for each request. A second of a core divided by it is what a core can answer, and the last
column is the bound that follows: what several workers give, each with a core to itself and connections dealt out evenly,
of what one gives. It holds what workers cost each other (caches, the kernel, locks of memory), and not a load that is
dealt out unevenly: the shares of the workers say how even it was. Each worker has as many connections as the one alone:
with fewer, fewer requests would share a call of the model, and each cost more. The support vector machine of 7,400 vectors
takes 5 ms for the 24 rows that it is asked for at a time, in its core's own caches: ``wrk`` and sockets are a hundredth
of that, so that there the ratio of rates itself is the server's, on cores that are shared too. It is said
in words below the table, beside the aim and what ``wrk`` took of all cores. Both servers run at once and are asked by turns; a ratio is the median of the repetitions' ratios.

Memory is asked of ``/proc/PID/smaps_rollup`` after every worker has answered: PSS counts a page of k processes as 1/k in
each, so that the sum counts each page once; USS is what one process has alone. The model's own part is what a large
model adds to the sum that a small one needs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from predictor import REPETITIONS, Case, Measured, Running, ask, cases, free_port, machine, predictor, ready, serving
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from up import cpu_seconds, family

HEAVY_ROWS = 40_000
VECTORS, VECTORS_ROWS, VECTORS_CONNECTIONS = 8_000, 24, 8
AIM = 3.5
_ROW_BYTES = 10 * 8
"""Of a nearest neighbour's fitted data: four features and a class, and in the tree the features and an index."""


def nearest(rows: int, algorithm: str) -> KNeighborsClassifier:
    """Return a model of so many rows: ``brute`` looks at each of them, a ``kd_tree`` at few and needs no room for it."""
    features = np.random.default_rng(0).random((rows, 4))
    return KNeighborsClassifier(1, algorithm=algorithm, leaf_size=1000).fit(features, np.arange(rows) % 2)


def vectors() -> SVC:
    """Return a machine that has learnt nothing: of labels without a rule nearly every row becomes a support vector."""
    random = np.random.default_rng(0)
    return SVC(gamma=50.0).fit(random.random((VECTORS, 4)), random.integers(0, 2, VECTORS))


def rows(count: int) -> Case:
    """Return a request for so many rows."""
    data = np.random.default_rng(1).random((count, 4)).tolist()
    tensor = {"name": "x", "shape": [count, 4], "datatype": "FP64", "data": data}
    return Case(name=f"{count} rows", path="/v2/models/iris/infer", body=json.dumps({"inputs": [tensor]}).encode())


def saved(estimator: Any, folder: Path) -> Path:
    """Return the folder, which now has the estimator as its model."""
    folder.mkdir()
    joblib.dump(estimator, folder / "model.joblib")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Who runs where.

    Attributes:
        servers: The first is that of one worker alone.
        load: As ``taskset`` takes them.
        apart: Whether the load has cores of its own.
    """

    servers: Sequence[int]
    load: str
    apart: bool


def cores(workers: int) -> Cores:
    """Return a core for each worker, and the rest for the load."""
    every = sorted(os.sched_getaffinity(0))
    rest = every[workers:]
    return Cores(servers=every[:workers], load=",".join(map(str, rest or every)), apart=bool(rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How ``wrk`` asks.

    Attributes:
        connections: To each worker.
    """

    case: Case
    connections: int
    seconds: int
    repetitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Several workers beside one.

    Attributes:
        times: The ratio of their rates.
        asker: What ``wrk`` took while it asked several, of all cores.
    """

    times: float
    asker: float


def throughput(name: str, model: Path, workers: int, load: Load, scratch: Path) -> Compared:
    """Print what one worker and several answer, what a request costs them, and their ratios; return the plain ones."""
    where, case = cores(workers), load.case
    askers: list[float] = []
    found: dict[int, list[Measured]] = {1: [], workers: []}
    shares: list[list[float]] = []
    with ExitStack() as stack:
        servers = {
            count: stack.enter_context(started(model, count, set(where.servers[:count]))) for count in (1, workers)
        }
        for _ in range(load.repetitions):
            for count, server in servers.items():

                def one(seconds: int, port: int = server.http, connections: int = count * load.connections) -> Measured:
                    return ask(port, case, connections, seconds, scratch, where.load)

                one(1)
                # Its own process only watches the workers.
                before = {pid: cpu_seconds(pid) for pid in family(server.pid) if pid != server.pid}
                asked, began = _ended_seconds(), time.monotonic()
                found[count].append(server.worked(one, load.seconds))
                if count > 1:
                    took = (_ended_seconds() - asked) / (time.monotonic() - began)
                    askers.append(took / len(os.sched_getaffinity(0)))
                if count > 1:
                    shares.append(_shares(before))
    pairs = list(zip(found[1], found[workers], strict=True))
    alone, together = (statistics.median(one.cpu_us for one in found[count]) for count in (1, workers))
    rates = " | ".join(f"{statistics.median(one.rate for one in found[count]):,.0f}" for count in (1, workers))
    times = statistics.median(many.rate / one.rate for one, many in pairs)
    bound = statistics.median(workers * one.cpu_us / many.cpu_us for one, many in pairs)
    even = ", ".join(f"{statistics.median(each):.0%}" for each in zip(*shares, strict=True))
    print(
        f"| {name} | {rates} | {times:.2f} | {alone:.0f}, {1e6 / alone:,.0f}/s | {together:.0f}, {1e6 / together:,.0f}/s "
        f"| {even} | {bound:.2f} |",
        flush=True,
    )
    return Compared(times=times, asker=statistics.median(askers))


def _ended_seconds() -> float:
    """Return what our children that have ended used: ``wrk``, since the servers go on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _shares(before: Mapping[int, float]) -> list[float]:
    """Return each worker's part of what all worked since, the busiest first."""
    worked = sorted((cpu_seconds(pid) - seconds for pid, seconds in before.items()), reverse=True)
    return [one / sum(worked) for one in worked]


@contextmanager
def started(model: Path, workers: int, on: set[int]) -> Iterator[Running]:
    """Run a server of so many workers on some cores until the block ends."""
    http, grpc = free_port(), free_port()
    command = predictor(model, http, grpc, f"--workers={workers}")
    with serving(f"{workers} workers", command, {}, ready(http), on) as process:
        yield Running(pid=process.pid, http=http, grpc=grpc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of a server's processes, in MiB.

    Attributes:
        pss: All of them together, each page once.
        uss: What each has alone, the supervisor first where there is one.
    """

    pss: float
    uss: Sequence[float]


def memory(model: Path, workers: int, scratch: Path) -> Memory:
    """Return what a server needs once all its workers have answered."""
    with started(model, workers, os.sched_getaffinity(0)) as server:
        ask(server.http, cases()["v2 JSON"], 16 * workers, 2, scratch, cores(workers).load)
        found = [_rollup(pid) for pid in family(server.pid)]
    return Memory(
        pss=sum(one["Pss"] for one in found), uss=[one["Private_Clean"] + one["Private_Dirty"] for one in found]
    )


def _rollup(pid: int) -> dict[str, float]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def model_counted(workers: int, megabytes: int, scratch: Path) -> None:
    """Print what a model of so many MB needs, and how often the workers hold it."""
    small, large = saved(nearest(10, "kd_tree"), scratch / "small"), scratch / "large"
    held = (
        saved(nearest(megabytes * 1_000_000 // _ROW_BYTES, "kd_tree"), large) / "model.joblib"
    ).stat().st_size / 2**20
    print(
        f"\nA model of {held:.0f} MiB\n\n| workers | PSS of all, MiB | with a small model | the model is held | USS each |"
    )
    print("| --- | --- | --- | --- | --- |")
    for count in (1, workers):
        without, with_it = memory(small, count, scratch), memory(large, count, scratch)
        times = (with_it.pss - without.pss) / held
        each = ", ".join(f"{one:.0f}" for one in with_it.uss)
        print(f"| {count} | {with_it.pss:.0f} | {without.pss:.0f} | {times:.2f} times | {each} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3, help="of one repetition")
    parser.add_argument("--connections", type=int, default=64, help="to each worker")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--megabytes", type=int, default=300, help="of the large model")
    options = parser.parse_args()
    for needed in ("wrk", "taskset"):
        if shutil.which(needed) is None:
            raise SystemExit(f"{needed} is not installed")
    where = cores(options.workers)
    if len(where.servers) < options.workers:
        raise SystemExit(f"{options.workers} workers need as many cores; here are {len(where.servers)}")
    print(machine())
    print(
        f"workers on cores {', '.join(map(str, where.servers))}; the load on {where.load}, "
        + ("apart from them" if where.apart else "which it shares with them: there are no others")
    )
    print(
        f"v2 JSON, 2 rows, {options.connections} connections to each worker, {options.seconds} s by {options.repetitions}; "
        f"the vectors {VECTORS_ROWS} rows, {VECTORS_CONNECTIONS} connections\n"
    )
    each = "µs of a core for each, and what a core answers"
    print(
        f"| model | 1 worker, requests/s | {options.workers} workers | times | 1 worker: {each} | {options.workers} workers "
        f"| their shares | times, on cores of their own |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        data = load_iris()
        models = {
            "vectors, 5 ms a request": saved(vectors(), scratch / "vectors"),
            "0.3 ms a row": saved(nearest(HEAVY_ROWS, "brute"), scratch / "heavy"),
            "iris": saved(SVC(gamma="scale").fit(data.data, data.target), scratch / "iris"),
        }
        quick = Load(
            case=cases()["v2 JSON"],
            connections=options.connections,
            seconds=options.seconds,
            repetitions=options.repetitions,
        )
        slow = replace(quick, case=rows(VECTORS_ROWS), connections=VECTORS_CONNECTIONS)
        (heaviest, first), *others = models.items()
        compared = throughput(heaviest, first, options.workers, slow, scratch)
        for name, model in others:
            throughput(name, model, options.workers, quick, scratch)
        print(
            f"\n{heaviest}: {options.workers} workers answer {compared.times:.2f} times what one does (the aim is {AIM} of "
            f"4); wrk took {compared.asker:.1%} of all cores meanwhile",
            flush=True,
        )
        model_counted(options.workers, options.megabytes, scratch)


if __name__ == "__main__":
    main()
