"""What the payload log does when its sink is slow, down and restarted and its agent killed: counts, then p99.

Run: ``uv run python bench/agent_logger_faults.py [--events 100000] [--down-seconds 60] [--rounds 20] [--turn-seconds 3]``.
Needs ``go`` and ``wrk``. It ends by itself, after some six minutes, and speaks to 127.0.0.1 alone; it exits 1 where a
verdict is no.

Counts: requests at an equal rate, each with an id of its own. For a fifth of them the sink takes 20 ms for each event,
which is a quarter of what comes; then it is killed and stays away; in the middle of that the agent is killed (SIGKILL)
under load and started again; then the sink is started again, and what waits is delivered. The sink writes down each event
before it answers. Of every request that was answered, both halves must be in that, or in what the agent counted as dropped.

p99: an agent without a logger, another without one, which shows what the machine does to two that are alike, and one that
logs to a sink that is not there. Each is asked by turns at one rate, half of what wrk gets from the one that logs, by a load
that waits for no answer (``proxying/openloop.go``). A ratio is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import (
    CORES,
    LOAD_CORES,
    PATH,
    PLAIN,
    PROXY_CORE,
    SERVER_CORE,
    Subject,
    free_port,
    on_core,
    script,
    turn,
    wait_for,
)

SLOW_SECONDS = 0.02
RATE = 500.0
CLIENTS = 64
DRAIN_SECONDS = 120.0
P99_RATIO = 1.1
REASONS = ("crash", "queue_full", "spool_full", "disk")


class _Sink(asyncio.Protocol):
    """Writes down the id and the half of each event, then answers; the system keeps it when this process is killed."""

    file = -1
    pause_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(fields[b"content-length"]):
            return
        self._held = b""
        os.write(self.file, b"%b %b\n" % (fields[b"ce-id"], fields[b"ce-type"].rpartition(b".")[2]))
        asyncio.get_running_loop().call_later(self.pause_seconds, self._answer)

    def _answer(self) -> None:
        self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")  # type: ignore[attr-defined]


async def _serve_sink(port: int, path: str, pause_seconds: float) -> None:
    _Sink.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _Sink.pause_seconds = pause_seconds
    await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


@dataclass(slots=True)
class Load:
    """Requests at an equal rate; what was answered, by its number."""

    port: int
    count: int
    answered: set[int]
    failed: int = 0

    async def run(self) -> None:
        """Ask until ``count`` requests are answered; one that fails is not asked again."""
        began = time.monotonic()
        numbers = itertools.takewhile(lambda _: len(self.answered) < self.count, itertools.count())

        async def client() -> None:
            connection = None
            for number in numbers:
                await asyncio.sleep(began + number / RATE - time.monotonic())
                try:
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", self.port)
                    await _ask(*connection, number)
                    self.answered.add(number)
                except (OSError, asyncio.IncompleteReadError):
                    self.failed += 1
                    connection = None

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    body = b'{"instances": [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]}'
    head = b"POST %b HTTP/1.1\r\nhost: bench\r\nce-id: %d\r\ncontent-length: %d\r\n\r\n" % (
        PATH.encode(),
        number,
        len(body),
    )
    writer.write(head + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    status = int(answer.split(b" ", 2)[1])
    length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    if status != 200:
        raise ConnectionError(f"status {status}")


@contextlib.contextmanager
def echo(folder: Path) -> Iterator[int]:
    """Start the server behind; yield its port."""
    port = free_port()
    command = (sys.executable, str(Path(__file__).parent / "agent.py"), "--serve", PLAIN, str(port), f"{folder}/s")
    process = on_core(SERVER_CORE, *command)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def agent(port: int, metrics_port: int, behind: int, *more: str) -> Subject:
    """Start an agent; return it once it answers."""
    command = [sys.executable, "-m", "servery_agent.cli", "--host=127.0.0.1", f"--component-port={behind}"]
    process = on_core(PROXY_CORE, *command, f"--port={port}", f"--metrics-port={metrics_port}", *more)
    subject = Subject(port, process)
    wait_for(subject, PLAIN)
    return subject


def metric(metrics_port: int, name: str) -> float:
    """Return a value that an agent shows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def sink(port: int, path: Path, pause_seconds: float) -> subprocess.Popen[bytes]:
    """Start a sink."""
    return on_core(CORES[-1], sys.executable, __file__, "--sink", str(port), str(path), str(pause_seconds))


async def counts(folder: Path, behind: int, events: int, down_seconds: float) -> bool:
    """Print what became of the events; return whether none is missing."""
    ports = {name: free_port() for name in ("agent", "metrics", "sink")}
    written = folder / "events"
    log = (f"--log-url=http://127.0.0.1:{ports['sink']}/", f"--log-spool-path={folder}/spool")
    receiver = sink(ports["sink"], written, SLOW_SECONDS)
    subject = agent(ports["agent"], ports["metrics"], behind, *log)
    load = Load(ports["agent"], events // 2, set())
    try:
        loading = asyncio.create_task(load.run())
        await asyncio.sleep(events / 2 / RATE / 5)
        print(
            f"after {len(load.answered):,} answers: the sink, which was slow, has {_lines(written):,} events and is killed"
        )
        receiver.kill()
        receiver.wait()
        went = time.monotonic()
        await asyncio.sleep(down_seconds / 2)
        waiting = metric(ports["metrics"], "servery_agent_payload_waiting_events")
        print(f"after {len(load.answered):,} answers: {waiting:,.0f} events wait, and the agent is killed")
        subject.process.send_signal(signal.SIGKILL)
        subject.process.wait()
        subject = await asyncio.to_thread(agent, ports["agent"], ports["metrics"], behind, *log)
        await asyncio.sleep(down_seconds - (time.monotonic() - went))
        away = time.monotonic() - went
        receiver = sink(ports["sink"], written, 0.0)
        print(f"after {len(load.answered):,} answers: the sink was down for {away:.0f} s and is started again")
        await loading
        until = time.monotonic() + DRAIN_SECONDS
        await asyncio.to_thread(_drained, ports["metrics"], until)
        dropped = {
            reason: int(metric(ports["metrics"], f'servery_agent_payload_events_dropped_total{{reason="{reason}"}}'))
            for reason in REASONS
        }
        print(f"all was delivered {time.monotonic() - until + DRAIN_SECONDS:.0f} s after the last request")
    finally:
        subject.process.terminate()
        subject.process.wait()
        receiver.kill()
        receiver.wait()
    return verdict(load, written, dropped)


def _drained(metrics_port: int, until: float) -> None:
    while metric(metrics_port, "servery_agent_payload_waiting_events") and time.monotonic() < until:
        time.sleep(0.2)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def verdict(load: Load, written: Path, dropped: dict[str, int]) -> bool:
    """Print the counts; return whether every event was delivered or counted."""
    delivered = Counter(written.read_text().splitlines())
    expected = {f"{number} {half}" for number in load.answered for half in ("request", "response")}
    missing = len(expected - delivered.keys())
    again = sum(delivered.values()) - len(delivered)
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
    print(f"\n{len(load.answered):,} requests were answered; {load.failed:,} met the killed agent and are not counted")
    print(f"{len(expected):,} events of answered requests: {len(expected) - missing:,} delivered, {missing} not")
    print(f"{again} events were delivered again; counted as dropped: {reasons}")
    is_right = missing <= sum(dropped.values())
    print(f"every event delivered at least once, or counted: {_said(is_right)}")
    return is_right


def _said(is_right: bool) -> str:
    return "yes" if is_right else "NO"


def asked(loader: Path, subject: Subject, rate: float, seconds: float) -> list[int]:
    """Return each latency of a turn, in microseconds.

    Raises:
        RuntimeError: An answer was not 200.
    """
    command = [loader, f"127.0.0.1:{subject.port}", PATH, str(rate), str(seconds), "32", "60"]
    said = subprocess.run(
        ["taskset", "-c", LOAD_CORES, *command], check=True, capture_output=True, text=True, timeout=seconds + 60
    )
    first, *rest = said.stdout.splitlines()
    if first.split()[1] != "0":
        raise RuntimeError(f"port {subject.port}: {first}")
    return sorted(map(int, rest))


def percentile(latencies: list[int], part: float) -> float:
    """Return a percentile of sorted microseconds, in milliseconds."""
    return latencies[int(part * len(latencies))] / 1000


def latencies(folder: Path, behind: int, rounds: int, seconds: float) -> bool:
    """Print p50 and p99 with and without the logger; return whether the aim is met."""
    loader, source = folder / "openloop", Path(__file__).parent / "proxying" / "openloop.go"
    subprocess.run(["go", "build", "-o", loader, source], check=True, env={**os.environ, "GO111MODULE": "off"})
    nobody, metrics = free_port(), free_port()
    log = (f"--log-url=http://127.0.0.1:{nobody}/", f"--log-spool-path={folder}/down", "--log-spool-bytes=20000000000")
    subjects = {
        "no logger": agent(free_port(), 0, behind),
        "no logger, again": agent(free_port(), 0, behind),
        "sink down": agent(free_port(), metrics, behind, *log),
    }
    try:
        best = turn(subjects["sink down"], script(folder, 60, PLAIN), 32, 2.0).rate
        rate = best / 2
        print(
            f"\nwrk gets {best:,.0f} requests/s of the agent whose sink is down; all are asked {rate:,.0f} times a second"
        )
        found: dict[str, list[list[int]]] = {name: [] for name in subjects}
        for _ in range(rounds):
            # In no fixed order: what the machine does in steps of its own meets all alike.
            for name in random.sample(list(subjects), k=len(subjects)):
                found[name].append(asked(loader, subjects[name], rate, seconds))
        dropped = metric(metrics, "servery_agent_payload_events_dropped_total")
        is_up = metric(metrics, "servery_agent_payload_sink_up")
    finally:
        for subject in subjects.values():
            subject.process.terminate()
            subject.process.wait()
    print("\n| | requests | p50 ms | p99 ms, median of turns | p99 of all | p99 ratio |\n|" + " --- |" * 6)
    ratios = {}
    for name, turns in found.items():
        each = [percentile(one, 0.99) for one in turns]
        beside = [percentile(one, 0.99) for one in found["no logger"]]
        ratios[name] = statistics.median(mine / other for mine, other in zip(each, beside, strict=True))
        every = sorted(one for some in turns for one in some)
        print(
            f"| {name} | {len(every):,} | {percentile(every, 0.5):.2f} | {statistics.median(each):.2f} "
            f"| {percentile(every, 0.99):.2f} | {ratios[name]:.2f} |"
        )
    print(f"\n{dropped:.0f} events dropped; the log says that its sink is {'up' if is_up else 'down'}")
    is_right = ratios["sink down"] <= P99_RATIO
    print(f"p99 with the sink down at most {P99_RATIO} times that without a logger: {_said(is_right)}")
    return is_right


def main() -> None:
    """Print the machine, the counts and the latencies."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--sink", nargs=3, help=argparse.SUPPRESS)
    flags.add_argument("--events", type=int, default=100_000)
    flags.add_argument("--down-seconds", type=float, default=60.0)
    flags.add_argument("--rounds", type=int, default=20)
    flags.add_argument("--turn-seconds", type=float, default=3.0)
    options = flags.parse_args()
    if options.sink:
        asyncio.run(_serve_sink(int(options.sink[0]), options.sink[1], float(options.sink[2])))
        return
    print(
        f"{platform.machine()}, {len(CORES)} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as name, echo(Path(name)) as behind:
        folder = Path(name)
        verdicts = [asyncio.run(counts(folder, behind, options.events, options.down_seconds))]
        verdicts.append(latencies(folder, behind, options.rounds, options.turn_seconds))
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    raise SystemExit(not all(verdicts))


if __name__ == "__main__":
    main()
