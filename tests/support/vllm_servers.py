"""Servers with vLLM's engine, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
# One engine at a time is small; the default is what the machine has.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
START_SECONDS = 300


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    grpc: str
    log: Path
    client: httpx.Client

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json()

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json()

    def number(self, series: str) -> float:
        """Return the sum of a metric's series."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == series)

    def until(self, is_so: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Ask again and again; each question takes the server its time."""
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, what


@contextmanager
def serving(folder: Path, flags: Sequence[str]) -> Iterator[Served]:
    http, grpc = free_port(), free_port()
    log = folder / f"server-{http}.log"
    command = [sys.executable, "-m", "servery_predictor.cli", "--host=127.0.0.1"]
    with log.open("wb") as told:
        process = subprocess.Popen(
            [*command, f"--http_port={http}", f"--grpc_port={grpc}", *flags],
            env={**os.environ, **ENVIRONMENT},
            stdout=told,
            stderr=told,
        )
    url = f"http://127.0.0.1:{http}"
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            served = Served(process, url, f"127.0.0.1:{grpc}", log, client)
            served.until(lambda: _answers(served), "the server does not get ready", START_SECONDS)
            yield served
    finally:
        if process.poll() is None:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()[-3000:]


def _answers(served: Served) -> bool:
    try:
        # A process that ends closes its port; a port that is not open yet costs some of the time that it takes to wait.
        served.process.wait(0.2)
    except subprocess.TimeoutExpired:
        try:
            return served.client.get("/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False
    raise AssertionError(f"the server ended with {served.process.returncode}: {served.log.read_text()[-3000:]}")
