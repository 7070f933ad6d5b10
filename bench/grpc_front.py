"""gRPC `ModelInfer` on one core: our front, our `grpcio` server and KServe's own model server, the same model, one run.

Run: ``uv run python bench/grpc_front.py [--seconds 3] [--rounds 3] [--connections 1 16 64 256]``. The server has core 0,
the client processes the others. A connection has one call in flight and sends the next when it has the last answer. The
load is an HTTP/2 client of our own, for ``grpcio``'s costs more than what is measured; it checks each answer's bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import grpc
import joblib
import numpy as np
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from sklearn.datasets import load_iris
from sklearn.svm import SVC

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
METHOD = "/inference.GRPCInferenceService/ModelInfer"
SERVER_CORE = min(os.sched_getaffinity(0))
CLIENT_CORES = os.sched_getaffinity(0) - {SERVER_CORE} or {SERVER_CORE}
LOAD = Path(__file__).with_name("grpc_load.py")

KSERVE = """
import sys, joblib, numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer
class Iris(Model):
    def load(self):
        self.estimator = joblib.load(DIRECTORY + "/model.joblib")
        self.ready = True
        return True
    def predict(self, payload, headers=None, response_headers=None):
        answer = self.estimator.predict(payload.inputs[0].as_numpy())
        output = InferOutput("output-0", list(answer.shape), "INT64")
        output.set_data_from_numpy(answer, binary_data=payload.from_grpc and RAW)
        return InferResponse(payload.id or "1", self.name, [output])
DIRECTORY, RAW = sys.argv.pop(1), sys.argv.pop(1) == "raw"
model = Iris("iris")
model.load()
ModelServer(
    http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), enable_latency_logging=False, access_log_format=""
).start([model])
"""


def message(*, raw: bool) -> bytes:
    """Return the request, its contents typed or raw."""
    request = pb.ModelInferRequest(model_name="iris")
    tensor = request.inputs.add(name="x", datatype="FP64", shape=[2, 4])
    if raw:
        request.raw_input_contents.append(np.array(ROWS).tobytes())
    else:
        tensor.contents.fp64_contents.extend(number for row in ROWS for number in row)
    return request.SerializeToString()


def measure(port: int, request: bytes, connections: int, seconds: float) -> tuple[float, float, float]:
    """Return answers per second, and the median and 99th percentile of their latency in milliseconds."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        size = len(channel.unary_unary(METHOD)(request, wait_for_ready=True, timeout=60)) + 5
    processes = min(3, connections)
    shares = [connections // processes + (number < connections % processes) for number in range(processes)]
    with tempfile.NamedTemporaryFile() as sent:
        sent.write(request)
        sent.flush()
        # Processes of a program that imports little: what a fork of this one would have to import takes seconds.
        asked = [sys.executable, LOAD, f"--port={port}", f"--request={sent.name}", f"--size={size}"]
        clients = [
            subprocess.Popen(
                [*asked, f"--connections={share}", f"--seconds={seconds}"],
                stdout=subprocess.PIPE,
                preexec_fn=lambda: os.sched_setaffinity(0, CLIENT_CORES),  # no threads yet
            )
            for share in shares
        ]
        told = [client.communicate(timeout=60 + seconds)[0] for client in clients]
    if any(client.returncode for client in clients):
        raise SystemExit("a client failed")
    latencies = sorted(latency for each in told for latency in array("d", each))
    median, late = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    return len(latencies) / seconds, median * 1000, late * 1000


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextmanager
def server(command: Callable[[int, int], list[str]]) -> Iterator[int]:
    """Run a server on one core; yields its gRPC port."""
    port = free_port()
    process = subprocess.Popen(
        command(free_port(), port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),  # no threads yet
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3, help="the servers by turns; the median counts")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--raw", action="store_true", help="raw contents in place of typed ones")
    options = parser.parse_args()
    packages = ("kserve", "grpcio", "protobuf", "hpack", "scikit-learn", "numpy", "uvloop")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{package} {version(package)}" for package in packages))
    kind = "raw" if options.raw else "typed"
    print(f"iris SVC, 2 rows, {kind} contents, {options.seconds:g} s a case, median of {options.rounds}, one core\n")
    request = message(raw=options.raw)
    with tempfile.TemporaryDirectory() as directory:
        data = load_iris()
        joblib.dump(SVC(gamma="scale").fit(data.data, data.target), Path(directory) / "model.joblib")
        flags = ("-m", "servery_predictor.cli", "--runtime=sklearn", "--model_name=iris", "--host=127.0.0.1")

        def ours(front: str) -> Callable[[int, int], list[str]]:
            return lambda http, rpc: [
                *(sys.executable, *flags, f"--grpc_front={front}"),
                *(f"--model_dir={directory}", f"--http_port={http}", f"--grpc_port={rpc}"),
            ]

        servers: dict[str, Callable[[int, int], list[str]]] = {
            "servery": ours("fast"),
            "servery grpcio": ours("grpcio"),
            "kserve": lambda http, rpc: [sys.executable, "-c", KSERVE, directory, kind, str(http), str(rpc)],
        }
        found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
        for _ in range(options.rounds):
            for name, command in servers.items():
                with server(command) as port:
                    measure(port, request, 8, 0.5)
                    for connections in options.connections:
                        figures = measure(port, request, connections, options.seconds)
                        found.setdefault((name, connections), []).append(figures)
    print(f"{'connections':<12}{'server':<16}{'calls/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'of kserve':>11}")
    for connections in options.connections:
        theirs = statistics.median(figures[0] for figures in found["kserve", connections])
        for name in servers:
            rate, median, late = (statistics.median(each) for each in zip(*found[name, connections], strict=True))
            print(f"{connections:<12}{name:<16}{rate:>9.0f}{median:>9.2f}{late:>9.2f}{rate / theirs:>10.1f}x")


if __name__ == "__main__":
    main()
