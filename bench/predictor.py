"""Requests per second of one core: Servery's predictor beside KServe's server, MLServer and Triton, one model, one run.

Run: ``uv run python bench/predictor.py [--seconds 2] [--connections 1 16 64 256] [--peers kserve mlserver triton]``.
Needs ``wrk`` and ``uv``.

All servers run at once on core 0 and wait; ``wrk``, and for gRPC the client of ``grpc_front.py``, asks one of them at a
time from the other cores, the servers by turns in each of three repetitions, so that what else the machine does meets
all alike. Figures are medians; a ratio is the median of the repetitions' ratios. Beside what a client sees stands the
processor time, user and system, that the server's processes had for each request: where other work is on the core, it
is the figure that suffers least. Each peer has a virtual environment of its own, made at the first run below
``~/.cache/servery-bench``. Triton is the binary of the ``nvidia-pytriton`` wheel with its Python backend and dynamic
batching; one process is its server and one its model, both on the one core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from grpc_front import measure, message
from sklearn.datasets import load_iris
from sklearn.svm import SVC
from up import cpu_seconds, family

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
CACHE = Path.home() / ".cache" / "servery-bench"
REPETITIONS = 3
GRPC = "gRPC"
SERVER_CORE = min(os.sched_getaffinity(0))
CLIENT_CORES = ",".join(map(str, sorted(os.sched_getaffinity(0) - {SERVER_CORE}))) or str(SERVER_CORE)

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
DIRECTORY = sys.argv[1]
model = Iris("iris")
model.load()
sys.argv[1:] = []
ModelServer(http_port=HTTP, grpc_port=GRPC, enable_latency_logging=False, access_log_format="").start([model])
"""

TRITON_CONFIG = """
name: "iris"
backend: "python"
max_batch_size: 1024
input [ { name: "x" data_type: TYPE_FP64 dims: [4] } ]
output [ { name: "output-0" data_type: TYPE_INT64 dims: [1] reshape: { shape: [] } } ]
dynamic_batching { }
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

TRITON_MODEL = """
import joblib, numpy, triton_python_backend_utils as utils
class TritonPythonModel:
    def initialize(self, args):
        self.estimator = joblib.load("DIRECTORY/model.joblib")
    def execute(self, requests):
        inputs = [utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        answers = self.estimator.predict(numpy.concatenate(inputs))
        at, responses = 0, []
        for one in inputs:
            responses.append(utils.InferenceResponse([utils.Tensor("output-0", answers[at : at + len(one)])]))
            at += len(one)
        return responses
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of request."""

    name: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def script(self, folder: Path) -> Path:
        """Return the file that tells wrk what to send."""
        escaped = "".join(f"\\{byte:03d}" for byte in self.body)
        headers = {"Content-Type": "application/json", **self.headers}
        lines = [
            'wrk.method = "POST"',
            f'wrk.body = "{escaped}"',
            *(f'wrk.headers["{k}"] = "{v}"' for k, v in headers.items()),
        ]
        file = folder / f"{self.name.replace(' ', '-')}.lua"
        file.write_text("\n".join(lines))
        return file


def cases() -> Mapping[str, Case]:
    """Return the requests by their names: the same two rows, in v1, v2 JSON and v2 binary."""
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP64"}
    head = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": 64}}], "parameters": {"binary_data_output": True}}
    ).encode()
    infer = "/v2/models/iris/infer"
    made = (
        Case(name="v1", path="/v1/models/iris:predict", body=json.dumps({"instances": ROWS}).encode()),
        Case(name="v2 JSON", path=infer, body=json.dumps({"inputs": [{**tensor, "data": ROWS}]}).encode()),
        Case(
            name="v2 binary",
            path=infer,
            body=head + np.array(ROWS).tobytes(),
            headers={"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
        ),
    )
    return {case.name: case for case in made}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A server of another make: what its environment needs, and what it cannot be asked."""

    packages: tuple[str, ...]
    shows: str
    lacks: tuple[str, ...] = ()


PEERS = {
    "kserve": Peer(packages=("kserve", "scikit-learn", "joblib"), shows="kserve", lacks=("v2 binary",)),
    "mlserver": Peer(packages=("mlserver", "mlserver-sklearn"), shows="mlserver", lacks=("v1", "v2 binary")),
    "triton": Peer(packages=("nvidia-pytriton", "scikit-learn", "joblib"), shows="nvidia-pytriton", lacks=("v1",)),
}


def environment(name: str) -> Path:
    """Return the peer's virtual environment, made if it is not there."""
    folder = CACHE / name
    if not (folder / "ready").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", version, folder], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", folder, *PEERS[name].packages], check=True)
        (folder / "ready").touch()
    return folder


def version_in(folder: Path, package: str) -> str:
    """Return a package's version in an environment."""
    shown = subprocess.run(
        ["uv", "pip", "show", "--python", folder, package], check=True, capture_output=True, text=True
    ).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("Version"))


def command(name: str, model: Path, http: int, grpc: int, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and the variables that start a server."""
    if name == "servery":
        return predictor(model, http, grpc), {}
    folder = environment(name)
    python = str(folder / "bin" / "python")
    if name == "kserve":
        return [python, "-c", KSERVE.replace("HTTP", str(http)).replace("GRPC", str(grpc)), str(model)], {}
    if name == "mlserver":
        settings = scratch / "mlserver"
        settings.mkdir()
        ports = {"http_port": http, "grpc_port": grpc, "metrics_port": free_port()}
        (settings / "settings.json").write_text(json.dumps({**ports, "parallel_workers": 0, "debug": False}))
        described = {"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel"}
        (settings / "model-settings.json").write_text(
            json.dumps({**described, "parameters": {"uri": str(model / "model.joblib")}})
        )
        return [str(folder / "bin" / "mlserver"), "start", str(settings)], {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    return triton(folder, model, http, grpc, scratch / "triton")


def predictor(model: Path, http: int, grpc: int, *flags: str) -> list[str]:
    """Return our own server's arguments."""
    return [
        *(sys.executable, "-m", "servery_predictor.cli", "--runtime=sklearn", "--model_name=iris", "--host=127.0.0.1"),
        *(f"--model_dir={model}", f"--http_port={http}", f"--grpc_port={grpc}", *flags),
    ]


def triton(folder: Path, model: Path, http: int, grpc: int, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """Return how the wheel's own Triton is started with a Python backend."""
    (site,) = folder.glob("lib/python*/site-packages")
    installed = site / "pytriton" / "tritonserver"
    shutil.copytree(installed / "backends", scratch / "backends")
    stub = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy(installed / stub, scratch / "backends" / "python")
    (scratch / "models" / "iris" / "1").mkdir(parents=True)
    (scratch / "models" / "iris" / "config.pbtxt").write_text(TRITON_CONFIG)
    (scratch / "models" / "iris" / "1" / "model.py").write_text(TRITON_MODEL.replace("DIRECTORY", str(model)))
    library = subprocess.run(
        [folder / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    ports = {"http-port": http, "grpc-port": grpc, "metrics-port": free_port()}
    paths = {"model-repository": scratch / "models", "backend-directory": scratch / "backends"}
    return (
        [str(installed / "bin" / "tritonserver"), *(f"--{key}={value}" for key, value in {**ports, **paths}.items())],
        {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(site),
            "LD_LIBRARY_PATH": f"{library}:{site / 'nvidia_pytriton.libs'}",
        },
    )


def ready(port: int) -> str:
    """Return the URL that answers 200 when a server is ready."""
    return f"http://127.0.0.1:{port}/v2/models/iris/ready"


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextlib.contextmanager
def serving(
    name: str, started: list[str], variables: Mapping[str, str], ready: str, cores: set[int]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on some cores until the block ends; begins when the URL ``ready`` answers 200."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            started,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # no threads yet
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **variables},
        )
        try:
            until = time.monotonic() + 180
            while True:
                try:
                    urllib.request.urlopen(ready, timeout=5)
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until:
                        log.seek(0)
                        raise SystemExit(f"{name} did not start:\n{log.read().decode()[-3000:]}") from None
                    time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a client saw in one repetition; ``cpu_us`` is what the server worked for each request."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0


def ask(port: int, case: Case, connections: int, seconds: int, scratch: Path, cores: str) -> Measured:
    """Return what wrk sees of one server.

    Raises:
        SystemExit: An answer was not 200, or none came.
    """
    threads = min(2, connections)
    said = subprocess.run(
        [
            *("taskset", "-c", cores, "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency"),
            *("--timeout", "10s", "-s", str(case.script(scratch)), f"http://127.0.0.1:{port}{case.path}"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or not float(rate[1]) or "Non-2xx" in said:
        raise SystemExit(f"{case.name}, {connections} connections:\n{said}")
    p50, p99 = (_milliseconds(said, share) for share in ("50", "99"))
    return Measured(rate=float(rate[1]), p50_ms=p50, p99_ms=p99)


def _milliseconds(said: str, share: str) -> float:
    found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)\s*$", said, re.MULTILINE)
    assert found is not None
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def machine() -> str:
    """Return what was measured on, and with how much else going on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "CPU",
    )
    return (
        f"{platform.machine()} ({cpu}), {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start"
    )


def ask_grpc(port: int, connections: int, seconds: int) -> Measured:
    """Return what the client of ``grpc_front.py`` sees of one server, contents typed.

    Raises:
        SystemExit: An answer was not as long as the first, or the server ended a connection.
    """
    rate, p50, p99 = measure(port, message(raw=False), connections, seconds)
    return Measured(rate=rate, p50_ms=p50, p99_ms=p99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that waits to be asked."""

    pid: int
    http: int
    grpc: int

    def worked(self, ask: Callable[[int], Measured], seconds: int) -> Measured:
        """Return what ``ask`` sees in so many seconds, and what the server's processes worked meanwhile."""
        before = self._cpu_seconds()
        found = ask(seconds)
        return replace(found, cpu_us=(self._cpu_seconds() - before) / (found.rate * seconds) * 1e6)

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, family(self.pid)))


def against_peers(names: Sequence[str], counts: Sequence[int], seconds: int, scratch: Path) -> None:
    """Print one table for each kind of request."""
    data = load_iris()
    model = scratch / "model"
    model.mkdir()
    joblib.dump(SVC(gamma="scale").fit(data.data, data.target), model / "model.joblib")
    with contextlib.ExitStack() as stack:
        servers: dict[str, Running] = {}
        for name in ("servery", *names):
            http, grpc = free_port(), free_port()
            started, variables = command(name, model, http, grpc, scratch)
            process = stack.enter_context(serving(name, started, variables, ready(http), {SERVER_CORE}))
            servers[name] = Running(pid=process.pid, http=http, grpc=grpc)
        for kind in (*cases(), GRPC):
            asked = [name for name in servers if name == "servery" or kind not in PEERS[name].lacks]
            print(f"\n{kind}: requests/s, p50 and p99 in ms, µs of the core for each, times Servery's rate\n")
            print("| connections | " + " | ".join(asked) + " |")
            print("| --- |" + " --- |" * len(asked))
            for count in counts:
                found: dict[str, list[Measured]] = {name: [] for name in asked}
                for _ in range(REPETITIONS):
                    for name in asked:
                        server = servers[name]
                        one = (
                            partial(ask_grpc, server.grpc, count)
                            if kind == GRPC
                            else partial(_ask, server.http, cases()[kind], count, scratch)
                        )
                        one(1)
                        found[name].append(server.worked(one, seconds))
                print(f"| {count} | " + " | ".join(_cell(found, name) for name in asked) + " |", flush=True)


def _ask(port: int, case: Case, connections: int, scratch: Path, seconds: int) -> Measured:
    return ask(port, case, connections, seconds, scratch, CLIENT_CORES)


def _cell(found: Mapping[str, Sequence[Measured]], name: str) -> str:
    rate, p50, p99, cpu = (
        statistics.median(getattr(one, field) for one in found[name])
        for field in ("rate", "p50_ms", "p99_ms", "cpu_us")
    )
    cell = f"{rate:,.0f}, {p50:.3g}/{p99:.3g}, {cpu:.0f}"
    if name == "servery":
        return cell
    ratio = statistics.median(
        ours.rate / theirs.rate for ours, theirs in zip(found["servery"], found[name], strict=True)
    )
    return f"{cell} ({ratio:.1f}x)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="of one repetition")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--peers", nargs="*", default=sorted(PEERS), choices=sorted(PEERS))
    options = parser.parse_args()
    for needed in ("wrk", "uv", "taskset"):
        if shutil.which(needed) is None:
            raise SystemExit(f"{needed} is not installed")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        versions = [f"{PEERS[name].shows} {version_in(environment(name), PEERS[name].shows)}" for name in options.peers]
        print(f"{', '.join(versions)}; iris SVC, 2 rows, {options.seconds} s by {REPETITIONS}, servers on one core")
        against_peers(options.peers, options.connections, options.seconds, Path(folder))


if __name__ == "__main__":
    main()
