"""Requests per second of one core: the agent, beside Go's ``httputil.ReverseProxy`` and no agent at all.

Run: ``uv run python bench/agent.py [--seconds 2] [--repetitions 5] [--connections 8 32 64] [--bodies 60 65536]
[--cases plain batcher]``. Needs ``wrk`` and ``go``.

Go's proxy is ``bench/proxying/proxy.go``, the standard library as KServe's agent uses it, built in the run, with
GOMAXPROCS=1. All proxies run at once on core 0 and wait; the server behind, which answers with the body that came, has
core 1; ``wrk`` asks one of them at a time from the other cores, by turns in each repetition, so that what else the
machine does meets all alike. ``tcp`` and ``unix`` are how the agent reaches the server behind. With the batcher, one row is asked for,
and the server predicts one number for each row; a table says how many requests went as one on the average. Rates are medians;
``per core`` is requests by the second of the proxy's own CPU time, which other work on the machine disturbs least; a
ratio is the median of the repetitions' ratios of that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, SERVER_CORE = CORES[0], CORES[1 % len(CORES)]
LOAD_CORES = ",".join(map(str, CORES[2:] or CORES))
PATH = "/v1/models/m:predict"
PLAIN, BATCHER = "plain", "batcher"
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class _Echo(asyncio.Protocol):
    """The server behind: answers with the body that came, and knows no more of HTTP than it needs."""

    length = re.compile(rb"(?i)content-length: *(\d+)")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.pieces: list[bytes] = []
        self.left = 0

    def data_received(self, data: bytes) -> None:
        if not self.left:
            end = data.index(b"\r\n\r\n") + 4
            found = self.length.search(data, 0, end)
            self.left = int(found[1]) if found else 0
            data = data[end:]
        self.pieces.append(data)
        self.left -= len(data)
        if not self.left:
            body = self.answer(b"".join(self.pieces))
            self.pieces.clear()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body)  # type: ignore[attr-defined]

    def answer(self, body: bytes) -> bytes:
        return body


class _Predictor(_Echo):
    """Predicts 1 for each row of numbers."""

    def answer(self, body: bytes) -> bytes:
        return b'{"predictions":[%b]}' % b",".join([b"1"] * (body.count(b"[") - 1))


async def _serve(kind: str, port: int, path: str) -> None:
    loop = asyncio.get_running_loop()
    protocol = {PLAIN: _Echo, BATCHER: _Predictor}[kind]
    await loop.create_server(protocol, "127.0.0.1", port, backlog=1024)
    await loop.create_unix_server(protocol, path, backlog=1024)
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked: where, and whose CPU time counts."""

    port: int
    process: subprocess.Popen[bytes]
    metrics_port: int = 0

    def batched(self) -> tuple[float, float]:
        """Return the batches that it has sent, and the requests in them."""
        if not self.metrics_port:
            return 0.0, 0.0
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = [re.search(rf"(?m)^servery_agent_batch_requests_{what} (.+)$", text) for what in ("count", "sum")]
        batches, requests = (float(one[1]) if one else 0.0 for one in found)
        return batches, requests

    def cpu_seconds(self) -> float:
        """Return what it has used so far."""
        # By the scheduler's count, not by ticks. Source: clock_getcpuclockid(3), MAKE_PROCESS_CPUCLOCK.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def resident_mib(self) -> float:
        """Return what it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of ``wrk`` found; milliseconds. ``broken`` are connections that were, as ``wrk`` says; ``size`` is requests in a batch."""

    rate: float
    per_core: float
    p50: float
    p99: float
    broken: int
    size: float


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def on_core(core: int, *command: str, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["taskset", "-c", str(core), *command],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def subjects(folder: Path, case: str) -> Iterator[Mapping[str, Subject]]:
    """Start everything; yield what can be asked by its name."""
    go = folder / "proxy"
    source = Path(__file__).parent / "proxying" / "proxy.go"
    subprocess.run(["go", "build", "-o", go, source], check=True, env={**os.environ, "GO111MODULE": "off"})
    port, path = free_port(), str(folder / "server.sock")
    ports = {name: free_port() for name in ("go", "tcp", "unix")}
    metrics = {name: free_port() for name in ("tcp", "unix")}
    agent = [sys.executable, "-m", "servery_agent.cli", "--host=127.0.0.1"]
    agent += ["--enable-batcher"] if case == BATCHER else []
    kept = {name: [*agent, f"--port={ports[name]}", f"--metrics-port={metrics[name]}"] for name in metrics}
    started = {
        "none": on_core(SERVER_CORE, sys.executable, __file__, "--serve", case, str(port), path),
        "go": on_core(PROXY_CORE, str(go), f"127.0.0.1:{ports['go']}", f"127.0.0.1:{port}", GOMAXPROCS="1"),
        "tcp": on_core(PROXY_CORE, *kept["tcp"], f"--component-port={port}"),
        "unix": on_core(PROXY_CORE, *kept["unix"], f"--component-socket={path}"),
    }
    try:
        found = {
            name: Subject(ports.get(name, port), process, metrics.get(name, 0) if case == BATCHER else 0)
            for name, process in started.items()
        }
        for subject in found.values():
            wait_for(subject, case)
        yield found
    finally:
        for process in started.values():
            process.kill()
            process.wait()


def wait_for(subject: Subject, case: str) -> None:
    """Return once it answers rightly."""
    body, right = {PLAIN: (b"right", b"right"), BATCHER: (b'{"instances": [[1], [2]]}', b'"predictions":[1,1]}')}[case]
    while True:
        with contextlib.suppress(OSError):
            asked = urllib.request.Request(f"http://127.0.0.1:{subject.port}{PATH}", data=body, method="POST")
            with urllib.request.urlopen(asked, timeout=1) as answer:
                assert answer.read().endswith(right)
                return
        assert subject.process.poll() is None, "it ended before it answered"


def script(folder: Path, size: int, case: str) -> Path:
    file = folder / f"{size}.lua"
    row = ",".join(["6.8"] * ((size - 20) // 4))
    body = f"string.rep('x', {size})" if case == PLAIN else f"'{{\"instances\": [[{row}]]}}'"
    file.write_text(f'wrk.method = "POST"\nwrk.body = {body}\nwrk.headers["Content-Type"] = "application/json"\n')
    return file


def turn(subject: Subject, lua: Path, connections: int, seconds: float) -> Turn:
    """Return what one turn finds.

    Raises:
        RuntimeError: An answer was not 200, or the subject has ended.
    """
    before, batches, inside = subject.cpu_seconds(), *subject.batched()
    load = ["wrk", "-t2", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(lua)]
    said = subprocess.run(
        ["taskset", "-c", LOAD_CORES, *load, f"http://127.0.0.1:{subject.port}{PATH}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if "Non-2xx" in said:
        raise RuntimeError(f"port {subject.port}, {subject.process.args}: {said}")
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    if subject.process.poll() is not None:
        raise RuntimeError(f"port {subject.port}, {subject.process.args}: it ended with {subject.process.returncode}")
    used = subject.cpu_seconds() - before
    more, within = subject.batched()
    asked = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    if not asked:
        raise RuntimeError(f"port {subject.port}, {subject.process.args}: no answer in {seconds:g} s")
    rate = float(re.search(r"Requests/sec: +([\d.]+)", said)[1])  # type: ignore[index]
    p50, p99 = (_milliseconds(re.search(rf" {percent}% +([\d.]+)(us|ms|s)", said)) for percent in (50, 99))
    size = (within - inside) / max(more - batches, 1.0)
    return Turn(rate, asked / used, p50, p99, sum(map(int, broken.groups())) if broken else 0, size)


def _milliseconds(found: re.Match[str] | None) -> float:
    assert found is not None
    return float(found[1]) * UNITS[found[2]]


def main() -> None:
    """Print the machine, and a table for each body."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    flags.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    flags.add_argument("--repetitions", type=int, default=5)
    flags.add_argument("--connections", type=int, nargs="+", default=[8, 32, 64])
    flags.add_argument("--bodies", type=int, nargs="+", default=[60, 65536], help="bytes")
    flags.add_argument("--cases", nargs="+", choices=[PLAIN, BATCHER], default=[PLAIN, BATCHER])
    options = flags.parse_args()
    if options.serve:
        import uvloop

        uvloop.run(_serve(options.serve[0], int(options.serve[1]), options.serve[2]))
        return
    go = subprocess.run(["go", "version"], check=True, capture_output=True, text=True).stdout.split()[2]
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {len(CORES)} cores, load {load:.1f}, Python {platform.python_version()}, {go}")
    for case in options.cases:
        with tempfile.TemporaryDirectory() as name:
            tables(case, Path(name), options)


def tables(case: str, folder: Path, options: argparse.Namespace) -> None:
    """Print a table for each body."""
    with subjects(folder, case) as asked:
        for size in options.bodies:
            print(f"\n{case}, {size} bytes: requests/s, per core, p50 and p99 in ms, times Go's rate per core\n")
            names = list(asked)
            print("| connections | " + " | ".join(names) + " |\n|" + " --- |" * (len(names) + 1))
            broken: Counter[str] = Counter()
            for connections in options.connections:
                lua = script(folder, size, case)
                turns = [
                    {one: turn(asked[one], lua, connections, options.seconds) for one in names}
                    for _ in range(options.repetitions)
                ]
                broken.update({one: sum(found[one].broken for found in turns) for one in names})
                print(f"| {connections} | " + " | ".join(cell(turns, one) for one in names) + " |", flush=True)
            print(f"\nConnections that broke: {', '.join(f'{one} {broken[one]}' for one in names)}")
        held = ", ".join(f"{one} {asked[one].resident_mib():.0f}" for one in ("go", "tcp", "unix"))
        print(f"\nMemory at the end, MiB: {held}")


def cell(turns: list[dict[str, Turn]], name: str) -> str:
    rate, per_core, p50, p99, size = (
        statistics.median(getattr(turn[name], field) for turn in turns)
        for field in ("rate", "per_core", "p50", "p99", "size")
    )
    if name == "none":
        return f"{rate:,.0f}, {p50:.2g}/{p99:.2g}"
    ratio = statistics.median(turn[name].per_core / turn["go"].per_core for turn in turns)
    beside = "" if name == "go" else f" ({ratio:.2f}x)"
    beside += f", {size:.0f} as one" if size else ""
    return f"{rate:,.0f}, {per_core:,.0f} per core, {p50:.2g}/{p99:.2g}{beside}"


if __name__ == "__main__":
    main()
