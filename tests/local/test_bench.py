"""The benchmarks that check what they measure run, for a moment each; their numbers mean nothing here."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
PATIENCE_SECONDS = 240


def bench(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCH / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            # Not killed: it ends what it has started.
            process.send_signal(signal.SIGINT)
            raise
    assert process.returncode == 0, printed
    return printed


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("runtime", "workers", "front"), [("sklearn", 1, "fast"), ("python", 2, "fast")], ids=["one worker", "two workers"]
)
def test_a_short_soak_loses_nothing_and_leaves_nothing_open(runtime: str, workers: int, front: str) -> None:
    printed = bench("soak.py", "0.05", "--runtimes", runtime, "--workers", str(workers))
    assert f"{front} gRPC front" in printed
    for protocol in ("v1", "v2 JSON", "v2 binary", "gRPC"):
        assert re.search(rf"^ +[\d,]+  {protocol}$", printed, re.MULTILINE), printed
    assert "lost: 0" in printed
    assert "wrong: 0" in printed


@pytest.mark.timeout(300)
def test_a_short_soak_of_the_grpc_port_is_sound() -> None:
    printed = bench("grpc_soak.py", "0.1")
    assert "server: alive, exit code 0, 0 tracebacks in its log" in printed


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("wrk") is None, reason="bench/workers.py asks with wrk, which is not installed")
def test_two_workers_are_measured_beside_one() -> None:
    printed = bench(
        "workers.py",
        "--workers",
        "2",
        "--seconds",
        "1",
        "--repetitions",
        "1",
        "--megabytes",
        "200",
        "--connections",
        "8",
    )
    assert re.search(r"^\| iris \| [\d,]+ \| [\d,]+ \| [\d.]+ \|", printed, re.MULTILINE), printed
    held = re.search(r"^\| 2 \| \d+ \| \d+ \| ([\d.]+) times", printed, re.MULTILINE)
    assert held is not None, printed
    assert 0.8 < float(held[1]) < 1.5, printed
