"""A grpc-go client against a predictor, whoever listens on its gRPC port. Needs Go, once."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import joblib
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]
HERE = Path(__file__).parent / "grpc_go"
MOST_BYTES = 64_000_000

ECHO = """
class Model:
    def load(self, artifact):
        self.artifact = artifact

    def predict(self, inputs):
        (name, data), = inputs.items()
        if not data.shape[1]:
            # An empty row waits for the test, at either pipe.
            (self.artifact / "entered").write_text("")
            (self.artifact / "release").read_text()
        return {"echo": data}
"""


@pytest.fixture(scope="module")
def client() -> Path:
    """The Go test as a program, built into the user's cache."""
    sources = b"".join(path.read_bytes() for path in sorted(HERE.iterdir()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "servery" / "grpc-go" / hashlib.sha256(sources).hexdigest()[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    # Test workers start together; one builds and the others wait.
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            if shutil.which("go") is None:
                pytest.skip("no Go to build the client with: gRPC from Go is NOT tested")
            for old in target.parent.glob("[0-9a-f]*"):
                old.unlink()
            subprocess.run(
                ["go", "test", "-c", "-trimpath", "-buildvcs=false", "-o", str(target)],
                cwd=HERE,
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
                check=True,
            )
    return target


@asynccontextmanager
async def predictor(runtime: str, model_dir: Path, front: Literal["fast", "grpcio"]) -> AsyncIterator[str]:
    """Serve a model; yields the address of its gRPC port."""
    settings = Settings(
        runtime=runtime,
        model_name="iris",
        model_dir=model_dir,
        host="127.0.0.1",
        http_port=0,
        grpc_port=0,
        grpc_front=front,
        max_body_bytes=MOST_BYTES,
    )
    serving = Predictor(settings, plugins.load().runtimes[f"servery-{runtime}"], Metrics(CollectorRegistry()))
    await serving.start()
    try:
        assert serving.grpc is not None
        yield f"127.0.0.1:{serving.grpc.port}"
    finally:
        await serving.stop()


@pytest.mark.parametrize("front", ["fast", "grpcio"])
async def test_a_go_client_is_served(client: Path, tmp_path: Path, front: Literal["fast", "grpcio"]) -> None:
    features, classes = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(features, classes), tmp_path / "model.joblib")
    echo = tmp_path / "echo"
    echo.mkdir()
    (echo / "model.py").write_text(ECHO)
    os.mkfifo(echo / "entered")
    os.mkfifo(echo / "release")
    async with predictor("sklearn", tmp_path, front) as iris, predictor("python", echo, front) as slow:
        told = {"IRIS": iris, "ECHO": slow, "ENTERED": str(echo / "entered"), "RELEASE": str(echo / "release")}
        running = await asyncio.create_subprocess_exec(
            client,
            "-test.v",
            "-test.timeout=200s",
            env={**os.environ, **{f"SERVERY_TEST_{name}": value for name, value in told.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = (await running.communicate())[0].decode()
    assert running.returncode == 0, said
    # A program that runs no test ends well, too.
    assert said.count("--- PASS: Test") == (HERE / "client_test.go").read_text().count("\nfunc Test"), said
