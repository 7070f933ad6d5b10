"""What the payload log costs: the agent with it, beside the agent without, and Go's ``httputil.ReverseProxy`` without any.

Run: ``uv run python bench/agent_logger.py [--seconds 3] [--repetitions 3] [--connections 32] [--bodies 60 65536]``.
Needs ``wrk`` and ``go``.

As ``bench/agent.py``: proxies on core 0, the server behind on core 1, load on the others, and the sink, which answers 204
to every event, beside the load. ``per core`` is requests by the second of CPU time of the agent and of the process that
delivers together, until every event is delivered: what is put off is counted. With the sink down, which cuts its
connections, events wait on disk, and nothing is waited for. ``ratio`` is to Go's plain proxy in the same repetition.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent import CORES, PLAIN, PROXY_CORE, SERVER_CORE, Subject, Turn, free_port, on_core, script, turn, wait_for

SINK_CORE = CORES[-1]
SECONDS = 600


class _Sink(asyncio.Protocol):
    """Answers each event; while it is down it cuts connections instead."""

    is_down = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        end = data.find(b"\r\n\r\n") + 4
        at = data.rfind(b"content-length: ", 0, end) + 16
        if end < 4 or len(data) < end + int(data[at : data.index(b"\r", at)]):
            self._held = data
            return
        self._held = b""
        if _Sink.is_down:
            self._transport.abort()  # type: ignore[attr-defined]
        else:
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")  # type: ignore[attr-defined]


async def _serve_sink(port: int) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, setattr, _Sink, "is_down", True)
    loop.add_signal_handler(signal.SIGUSR2, setattr, _Sink, "is_down", False)
    await loop.create_server(_Sink, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Logging(Subject):
    """An agent that logs; its deliverer counts with it."""

    metrics_port: int

    def metric(self, name: str) -> float:
        """Return a value that it shows; several of one name add up."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split()[0] == name)

    @property
    def _pids(self) -> list[int]:
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def cpu_seconds(self) -> float:
        """Return what both processes have used."""
        ticks = 0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # Of deliverers that ended, the agent has the time.
            ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Return what both hold; what they share is counted once."""
        found = 0
        for pid in self._pids:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return found / 1024

    def drained(self) -> float:
        """Return the seconds until all is delivered."""
        began = time.monotonic()
        while self.metric("servery_agent_payload_waiting_events"):
            if time.monotonic() - began > SECONDS:
                raise RuntimeError("the log is not drained")
            time.sleep(0.05)
        return time.monotonic() - began


@contextlib.contextmanager
def subjects(folder: Path) -> Iterator[tuple[Mapping[str, Subject], subprocess.Popen[bytes]]]:
    """Start everything; yield what can be asked by its name, and the sink."""
    go = folder / "proxy"
    source = Path(__file__).parent / "proxying" / "proxy.go"
    subprocess.run(["go", "build", "-o", go, source], check=True, env={**os.environ, "GO111MODULE": "off"})
    port, sink, metrics = free_port(), free_port(), free_port()
    ports = {name: free_port() for name in ("go", "plain", "logging")}
    agent = [sys.executable, "-m", "servery_agent.cli", "--host=127.0.0.1", f"--component-port={port}"]
    log = [f"--log-url=http://127.0.0.1:{sink}/", f"--log-spool-path={folder}/spool", "--log-spool-bytes=20000000000"]
    log += ["--inference-service=iris", "--namespace=demo", "--component=predictor", "--log-queue-bytes=67108864"]
    started = {
        "behind": on_core(
            SERVER_CORE, sys.executable, Path(__file__).parent / "agent.py", "--serve", PLAIN, str(port), f"{folder}/s"
        ),
        "sink": on_core(SINK_CORE, sys.executable, __file__, "--sink", str(sink)),
        "go": on_core(PROXY_CORE, str(go), f"127.0.0.1:{ports['go']}", f"127.0.0.1:{port}", GOMAXPROCS="1"),
        "plain": on_core(PROXY_CORE, *agent, f"--port={ports['plain']}", "--metrics-port=0"),
        "logging": on_core(PROXY_CORE, *agent, f"--port={ports['logging']}", f"--metrics-port={metrics}", *log),
    }
    try:
        found: dict[str, Subject] = {name: Subject(ports[name], started[name]) for name in ("go", "plain")}
        found["logging"] = Logging(ports["logging"], started["logging"], metrics)
        for subject in found.values():
            wait_for(subject, PLAIN)
        yield found, started["sink"]
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait()


def logged(subject: Logging, lua: Path, connections: int, seconds: float) -> tuple[Turn, float, float]:
    """Return a turn, the requests per second of CPU time until all was delivered, and the seconds that took."""
    before, events = subject.cpu_seconds(), subject.metric("servery_agent_payload_events_total")
    found = turn(subject, lua, connections, seconds)
    waited = subject.drained()
    requests = (subject.metric("servery_agent_payload_events_total") - events) / 2
    return found, requests / (subject.cpu_seconds() - before), waited


def main() -> None:
    """Print the machine, and a table for each body."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    flags.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    flags.add_argument("--repetitions", type=int, default=3)
    flags.add_argument("--connections", type=int, default=32)
    flags.add_argument("--bodies", type=int, nargs="+", default=[60, 65536], help="bytes")
    options = flags.parse_args()
    if options.sink:
        import uvloop

        uvloop.run(_serve_sink(options.sink))
        return
    print(
        f"{platform.machine()}, {len(CORES)} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )
    for size in options.bodies:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with subjects(folder) as (asked, sink):
                report(asked, script(folder, size, PLAIN), size, options, sink)


def report(
    asked: Mapping[str, Subject], lua: Path, size: int, options: argparse.Namespace, sink: subprocess.Popen[bytes]
) -> None:
    """Print one table."""
    logging = asked["logging"]
    assert isinstance(logging, Logging)
    print(f"\n{size} bytes, {options.connections} connections\n\n| | requests/s | per core | ratio | p50 | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    turns: dict[str, list[tuple[Turn, float]]] = {name: [] for name in ("go", "plain", "sink up", "sink down")}
    waits: list[float] = []
    for _ in range(options.repetitions):
        for name in ("go", "plain"):
            found = turn(asked[name], lua, options.connections, options.seconds)
            turns[name].append((found, found.per_core))
        found, per_core, waited = logged(logging, lua, options.connections, options.seconds)
        turns["sink up"].append((found, per_core))
        sink.send_signal(signal.SIGUSR1)
        found = turn(logging, lua, options.connections, options.seconds)
        turns["sink down"].append((found, found.per_core))
        sink.send_signal(signal.SIGUSR2)
        waits.append(waited)
        logging.drained()
    for name, rows in turns.items():
        ratio = statistics.median(mine / go for (_, mine), (_, go) in zip(rows, turns["go"], strict=True))
        rate, p50, p99 = (statistics.median(getattr(one, field) for one, _ in rows) for field in ("rate", "p50", "p99"))
        per_core = statistics.median(one for _, one in rows)
        print(f"| {name} | {rate:,.0f} | {per_core:,.0f} | {ratio:.2f} | {p50:.2f} | {p99:.2f} |")
    accepted = logging.metric("servery_agent_payload_events_total")
    delivered = logging.metric("servery_agent_payload_events_delivered_total")
    dropped = logging.metric("servery_agent_payload_events_dropped_total")
    print(f"\n{accepted:,.0f} events accepted, {delivered:,.0f} delivered, {dropped:,.0f} dropped; ", end="")
    print(
        f"drained {statistics.median(waits):.1f} s after the load; both processes hold {logging.resident_mib():.0f} MiB"
    )


if __name__ == "__main__":
    main()
