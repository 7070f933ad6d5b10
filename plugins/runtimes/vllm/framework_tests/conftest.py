"""A tiny model, its adapter, and servers: an engine takes most of a minute to start, so tests share them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file

EXAMPLES = Path(__file__).parents[4] / "examples"
# One engine at a time is small; the default is what the machine has.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
START_SECONDS = 300
LAYERS, WIDTH, RANK = 2, 128, 8


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

    def ended(self) -> int:
        """Ask it to end; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


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
            served_status = process.terminate() or process.wait(60)
            assert served_status == 0, log.read_text()[-3000:]


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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's model, wide enough for vLLM's attention on a CPU."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make = EXAMPLES / "tiny-chat" / "make_model.py"
    command = [sys.executable, make, directory, "--hidden", str(WIDTH), "--context", "8192"]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that turns the model's head: large, so that its texts are others."""
    directory = tmp_path_factory.mktemp("adapters") / "loud"
    directory.mkdir()
    torch.manual_seed(0)
    weights = {}
    for layer in range(LAYERS):
        for name in ("q_proj", "v_proj"):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(RANK, WIDTH)
            weights[f"{prefix}.lora_B.weight"] = torch.randn(WIDTH, RANK)
    save_file(weights, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes conversations in a way of its own."""
    path = tmp_path_factory.mktemp("templates") / "plain.jinja"
    path.write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] ")
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tiny: Path, adapter: Path, template: Path) -> Iterator[Served]:
    """What most tests ask: names, an adapter, a template and tools, as flags of vLLM's own."""
    flags = [
        *("--runtime=vllm", "--model_name=tiny", f"--model_dir={tiny}", "--dtype", "float32", "--enforce_eager"),
        *("--served-model-name", "tiny", "other", "--enable-lora", "--lora-modules", f"loud={adapter}"),
        *("--chat-template", str(template), "--enable-auto-tool-choice", "--tool-call-parser=hermes"),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        # Of KServe's server; they change nothing, or are vLLM's in other words.
        *("--disable_log_requests", "--max_length=8192", "--enable_latency_logging=false", "--max_threads=4"),
    ]
    with serving(tmp_path_factory.mktemp("server"), flags) as served:
        yield served
