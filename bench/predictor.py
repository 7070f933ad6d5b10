"""Requests per second of one core: Servery's predictor beside KServe's own model server, the same model, one run.

Run: ``uv run python bench/predictor.py [--seconds 3] [--connections 32]``. The server has core 0, the clients the
others; each connection sends its next request when it has the last answer. gRPC's clients are Python's own ``grpcio``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.queues import Queue
from pathlib import Path

import grpc
import joblib
import uvloop
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from sklearn.datasets import load_iris
from sklearn.svm import SVC

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
V1 = json.dumps({"instances": ROWS}).encode()
V2 = json.dumps({"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}).encode()

KSERVE = """
import sys, joblib, numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer
class Iris(Model):
    def load(self):
        self.estimator = joblib.load(DIRECTORY + "/model.joblib")
        self.ready = True
        return True
    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, dict):
            return {"predictions": self.estimator.predict(np.array(payload["instances"])).tolist()}
        answer = self.estimator.predict(payload.inputs[0].as_numpy())
        output = InferOutput("output-0", list(answer.shape), "INT64")
        output.set_data_from_numpy(answer, binary_data=False)
        return InferResponse(payload.id or "1", self.name, [output])
DIRECTORY = sys.argv.pop(1)
model = Iris("iris")
model.load()
ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), enable_latency_logging=False, access_log_format="").start([model])
"""


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, wire: bytes, counts: list[int]) -> None:
        self._wire, self._counts = wire, counts
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        self._transport.write(self._wire)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(self._received.decode())
        self._received = b""
        self._counts[0] += 1
        self._transport.write(self._wire)


async def ask_rest(port: int, path: str, body: bytes, connections: int, seconds: float) -> int:
    """Return how many answers came."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    counts = [0]
    loop = asyncio.get_running_loop()
    askers = [
        await loop.create_connection(lambda: Asker(head.encode() + body, counts), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in askers:
        transport.abort()
    return counts[0]


async def ask_grpc(port: int, connections: int, seconds: float) -> int:
    """Return how many answers came."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[2, 4])
    tensor.contents.fp64_contents.extend(number for row in ROWS for number in row)
    request = pb.ModelInferRequest(model_name="iris", inputs=[tensor])
    until = time.monotonic() + seconds

    async def ask() -> int:
        answers = 0
        while time.monotonic() < until:
            await infer(request)
            answers += 1
        return answers

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        return sum(await asyncio.gather(*(ask() for _ in range(connections))))


def client(case: str, http_port: int, grpc_port: int, connections: int, seconds: float, results: Queue[int]) -> None:
    """Be one client process."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {SERVER_CORE} or {SERVER_CORE})
    if case == "gRPC v2":
        results.put(asyncio.run(ask_grpc(grpc_port, connections, seconds)))
        return
    path, body = {"REST v1": ("/v1/models/iris:predict", V1), "REST v2": ("/v2/models/iris/infer", V2)}[case]
    results.put(uvloop.run(ask_rest(http_port, path, body, connections, seconds)))


SERVER_CORE = min(os.sched_getaffinity(0))
CLIENTS = 2
CASES = ("REST v1", "REST v2", "gRPC v2")


def rate(case: str, http_port: int, grpc_port: int, connections: int, seconds: float) -> float:
    """Return answers per second over all client processes."""
    context = multiprocessing.get_context("spawn")
    results: Queue[int] = context.Queue()
    share = (case, http_port, grpc_port, connections // CLIENTS, seconds, results)
    clients = [context.Process(target=client, args=share) for _ in range(CLIENTS)]
    for process in clients:
        process.start()
    answers = sum(results.get(timeout=60 + seconds) for _ in clients)
    for process in clients:
        process.join()
    return answers / seconds


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextmanager
def server(command: Callable[[int, int], list[str]]) -> Iterator[tuple[int, int]]:
    """Run a server on one core; yields its ports once it is ready."""
    http_port, grpc_port = free_port(), free_port()
    process = subprocess.Popen(
        command(http_port, grpc_port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),  # no threads yet
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{http_port}/v2/models/iris/ready", timeout=5)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}") from None
                time.sleep(0.1)
        yield http_port, grpc_port
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    packages = ("kserve", "scikit-learn", "numpy", "grpcio", "uvicorn", "uvloop")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{package} {version(package)}" for package in packages))
    print(f"iris SVC, 2 rows, {options.connections} connections, {options.seconds:g} s a case, server on one core\n")
    with tempfile.TemporaryDirectory() as directory:
        data = load_iris()
        joblib.dump(SVC(gamma="scale").fit(data.data, data.target), Path(directory) / "model.joblib")
        flags = ("-m", "servery_predictor.cli", "--runtime=sklearn", "--model_name=iris", "--host=127.0.0.1")
        servers: dict[str, Callable[[int, int], list[str]]] = {
            "servery": lambda http, rpc: [
                *(sys.executable, *flags),
                *(f"--model_dir={directory}", f"--http_port={http}", f"--grpc_port={rpc}"),
            ],
            "kserve": lambda http, rpc: [sys.executable, "-c", KSERVE, directory, str(http), str(rpc)],
        }
        rates = {}
        for name, command in servers.items():
            with server(command) as (http_port, grpc_port):
                for case in CASES:
                    rate(case, http_port, grpc_port, options.connections, 0.5)
                    rates[name, case] = rate(case, http_port, grpc_port, options.connections, options.seconds)
    print(f"{'requests/s':<12}{'servery':>10}{'kserve':>10}{'ratio':>8}")
    for case in CASES:
        ours, theirs = rates["servery", case], rates["kserve", case]
        print(f"{case:<12}{ours:>10.0f}{theirs:>10.0f}{ours / theirs:>7.1f}x")


if __name__ == "__main__":
    main()
