"""Images per second of an archive's handler behind the model server, beside the bare PyTorch loop on the same core.

Run: ``uv run --group torch python bench/mar.py [--seconds 5] [--connections 32] [--batch 16]``. Images are PNG in
base64, the network is of the size of KServe's MNIST example. The loop decodes, stacks and infers batches of the same
images without any server; it and the server take turns on core 0, the clients have the others. Every answer is compared
with what the network says to the image without a server. On a machine that has other things to do, images for each
second of the core's own time say more than images for each second of the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
from PIL import Image

CORE = min(os.sched_getaffinity(0))
CLIENTS = 2
MANIFEST = {"model": {"modelName": "mnist", "serializedFile": "net.pt", "handler": "handler.py", "modelFile": "net.py"}}
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.classes = nn.Sequential(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, images):
        return nn.functional.log_softmax(self.classes(self.features(images)), dim=1)
"""
HANDLER = """
import numpy as np
import torch
from ts.torch_handler.image_classifier import ImageClassifier


class Digits(ImageClassifier):
    def image_processing(self, image):
        return (torch.from_numpy(np.array(image, dtype=np.float32)).div(255).unsqueeze(0) - 0.1307) / 0.3081

    def postprocess(self, data):
        return data.argmax(1).tolist()
"""
LOOP = """
import base64, io, json, sys, time
import numpy as np
import torch
from PIL import Image
sys.path.insert(0, sys.argv[1])
from net import Net
torch.set_num_threads(1)
net = Net()
net.load_state_dict(torch.load(sys.argv[1] + "/net.pt"))
net.eval()
texts, batch, seconds = list(json.load(open(sys.argv[2]))), int(sys.argv[3]), float(sys.argv[4])

def image(text):
    decoded = Image.open(io.BytesIO(base64.b64decode(text)))
    return (torch.from_numpy(np.array(decoded, dtype=np.float32)).div(255).unsqueeze(0) - 0.1307) / 0.3081

def run(until):
    done = 0
    with torch.inference_mode():
        while time.perf_counter() < until:
            start = done % (len(texts) - batch)
            net(torch.stack([image(text) for text in texts[start : start + batch]])).argmax(1).tolist()
            done += batch
    return done

def answers():
    with torch.inference_mode():
        return {text: net(image(text).unsqueeze(0)).argmax(1).item() for text in texts}

if not seconds:
    print(json.dumps(answers()))
    raise SystemExit
run(time.perf_counter() + 1)
busy = time.process_time()
done = run(time.perf_counter() + seconds)
print(done / seconds, done / (time.process_time() - busy))
"""


def images(count: int) -> list[str]:
    """Return images of 28 by 28 pixels, as base64 of PNG."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8) * (rng.random((28, 28)) < 0.2)
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "png")
        texts.append(base64.b64encode(buffer.getvalue()).decode())
    return texts


def write(directory: Path, batch: int) -> None:
    """Write the network, its weights, and the model store with both."""
    import torch

    (directory / "net.py").write_text(NET)
    sys.path.insert(0, str(directory))
    torch.manual_seed(0)
    torch.save(__import__("net").Net().state_dict(), directory / "net.pt")
    store = directory / "artifact" / "model-store"
    store.mkdir(parents=True)
    snapshot = {"models": {"mnist": {"1.0": {"marName": "mnist.mar", "batchSize": batch}}}}
    config = f"service_envelope=kserve\nmodel_snapshot={json.dumps(snapshot)}\n"
    (directory / "artifact" / "config.properties").write_text(config)
    with zipfile.ZipFile(store / "mnist.mar", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
        packed.writestr("handler.py", HANDLER)
        packed.write(directory / "net.py", "net.py")
        packed.write(directory / "net.pt", "net.pt")


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, asked: list[tuple[bytes, bytes]], start: int, counts: list[int]) -> None:
        self._asked, self._next, self._counts = asked, start, counts
        self._received = self._expected = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        self._ask()

    def _ask(self) -> None:
        wire, self._expected = self._asked[self._next % len(self._asked)]
        self._transport.write(wire)
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        if len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 200") or body != self._expected:
            raise SystemExit(f"{self._received.decode()}\nshould have been {self._expected.decode()}")
        self._received = b""
        self._counts[0] += 1
        self._ask()


async def ask(port: int, answers: dict[str, int], per_request: int, connections: int, seconds: float) -> int:
    """Return how many images were answered; ``answers`` are right."""
    asked, texts = [], list(answers)
    for start in range(0, len(texts), per_request):
        instances = [{"data": text} for text in texts[start : start + per_request]]
        body = json.dumps({"instances": instances}).encode()
        head = f"POST /v1/models/mnist:predict HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n"
        expected = {"predictions": [answers[instance["data"]] for instance in instances]}
        asked.append((head.encode() + body, json.dumps(expected, separators=(",", ":")).encode()))
    counts = [0]
    loop = asyncio.get_running_loop()
    for number in range(connections):
        await loop.create_connection(lambda at=number * 7: Asker(asked, at, counts), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(1)
    counts[0] = 0
    await asyncio.sleep(seconds)
    return counts[0] * per_request


def client(port: int, file: str, per_request: int, connections: int, seconds: float, results: Queue[int]) -> None:
    """Be one client process."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {CORE} or {CORE})
    answers = json.loads(Path(file).read_text())
    results.put(asyncio.run(ask(port, answers, per_request, connections, seconds)))


def used(port: int, pid: int) -> tuple[float, float]:
    """Return how many images the server has computed, and its processor seconds."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    rows = next((line for line in text.splitlines() if line.startswith("servery_predictor_batch_rows_sum")), "0")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return float(rows.split()[-1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def served(port: int, pid: int, file: str, per_request: int, connections: int, seconds: float) -> tuple[float, float]:
    """Return images per second over all client processes, and per second of the server's own time."""
    context = multiprocessing.get_context("spawn")
    results: Queue[int] = context.Queue()
    share = (port, file, per_request, max(1, connections // CLIENTS), seconds, results)
    clients = [context.Process(target=client, args=share) for _ in range(CLIENTS)]
    images_before, busy_before = used(port, pid)
    for process in clients:
        process.start()
    answered = sum(results.get(timeout=60 + seconds) for _ in clients)
    for process in clients:
        process.join()
    images_after, busy_after = used(port, pid)
    return answered / seconds, (images_after - images_before) / (busy_after - busy_before)


@contextmanager
def server(artifact: Path) -> Iterator[tuple[int, int]]:
    """Run the model server on one core; yields its port and process id once it is ready."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
    flags = ["--runtime=torch", f"--model_dir={artifact}", f"--http_port={port}", "--grpc-port=0", "--host=127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "servery_predictor.cli", *flags],
        stderr=subprocess.DEVNULL,
        preexec_fn=pinned,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}") from None
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def pinned() -> None:
    """Have the process on one core."""
    os.sched_setaffinity(0, {CORE})


def looped(directory: Path, file: str, batch: int, seconds: float) -> str:
    """Return what the loop prints; without ``seconds``, its answer to each image."""
    done = subprocess.run(
        [sys.executable, "-c", LOOP, str(directory), file, str(batch), str(seconds)],
        preexec_fn=pinned,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return done.stdout


def bare(directory: Path, file: str, batch: int, seconds: float) -> tuple[float, float]:
    """Return images per second of the loop, and per second of its own time."""
    by_clock, by_core = map(float, looped(directory, file, batch, seconds).split())
    return by_clock, by_core


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16, help="Images of the loop's batch, and of the larger request.")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    packages = ("torch", "pillow", "numpy", "uvloop")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{package} {version(package)}" for package in packages))
    print(f"load {os.getloadavg()[0]:.1f}, {options.connections} connections, {options.seconds:g} s a case\n")
    rates: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write(directory, options.batch)
        file = str(directory / "images.json")
        Path(file).write_text(json.dumps(images(256)))
        Path(file).write_text(looped(directory, file, options.batch, 0))
        with server(directory / "artifact") as (port, pid):
            # In turns: what else the machine does changes in time.
            for _ in range(options.repetitions):
                alone = rates.setdefault(f"bare loop, batches of {options.batch}", [])
                alone.append(bare(directory, file, options.batch, options.seconds))
                for per_request in (1, options.batch):
                    asked = rates.setdefault(f"served, {per_request} to a request", [])
                    asked.append(served(port, pid, file, per_request, options.connections, options.seconds))
    first = next(iter(rates.values()))
    for case, found in rates.items():
        for index, of in enumerate(("the clock", "the core's own time")):
            ratio = statistics.median(one[index] / alone[index] for one, alone in zip(found, first, strict=True))
            each = ", ".join(f"{one[index]:,.0f}" for one in found)
            print(f"{case:28} {ratio:5.0%} of the loop; images for each second of {of}: {each}")


if __name__ == "__main__":
    main()
