"""KubeDL's introduction on this machine: its manifest of two models, word for word, and 90 of 100 requests for one."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from servery.state import State

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[3] / "shared" / "corpus" / "pages" / "kubedl-two-models-90-10.yaml"
HOST = "hello-inference.default.localhost"
REQUESTS = 5000
CLIENTS = 10

# What the page takes for granted, and this machine has not: the program of image tensorflow/serving. This one reads a
# model as that program does, from the highest number below the directory that it is told.
PLUGIN = '''
from servery_sdk.hooks import hookimpl
from servery_sdk.runtimes import predictor

FLAGS = {"port": "grpc_port", "rest_api_port": "http_port", "model_base_path": "model_dir"}


@hookimpl
def servery_runtimes():
    yield predictor(
        "linear", model_class="linear_servery:Linear", formats=(), local_images=("tensorflow/serving",), local_flags=FLAGS
    )


class Linear:
    """Multiplies by a matrix."""

    def load(self, artifact):
        import numpy
        from servery_sdk.serving import LoadError

        versions = sorted((path for path in artifact.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
        if not versions:
            raise LoadError(f"{artifact}: no versions of the model")
        self.weights = numpy.load(versions[-1] / "weights.npy")

    def predict(self, request):
        from servery_sdk.protocol import Datatype, InferResponse, Tensor

        answer = request.inputs[0].data @ self.weights
        return InferResponse(model=request.model, outputs=(Tensor(name="y", data=answer, datatype=Datatype.of(answer)),))
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the plugin as an installer leaves it."""
    folder = tmp_path_factory.mktemp("installed")
    metadata = folder / "linear_servery-1.dist-info"
    metadata.mkdir()
    (folder / "linear_servery.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: linear-servery\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[servery]\nlinear = linear_servery\n")
    return folder


@pytest.fixture
def servery(installed: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "servery.main", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env={**os.environ, "PYTHONPATH": str(installed)},
        )

    return run


def write_versions(folder: Path, **models: list[float]) -> Path:
    """Write the ModelVersions that the page names beside its manifest, each with its files in storage of this machine."""
    documents = []
    for name, weights in models.items():
        version = name.replace("_", "-")
        files = folder / version
        files.mkdir(parents=True)
        if weights:
            (files / "1").mkdir()
            np.save(files / "1" / "weights.npy", np.array(weights))
        documents.append(
            f"apiVersion: model.kubedl.io/v1alpha1\nkind: ModelVersion\nmetadata: {{name: {version}}}\n"
            f"spec: {{modelName: mnist, storage: {{localStorage: {{path: {files}}}}}}}\n"
        )
    path = folder / "versions.yaml"
    path.write_text("---\n".join(documents))
    return path


@pytest.fixture
def page() -> Path:
    if not PAGE.exists():
        pytest.skip("the manifests of the introduction pages are not beside the checkout (../shared)")
    return PAGE


@pytest.fixture
def here(tmp_path: Path, servery: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[Path]:
    state = tmp_path / "state"
    yield state
    servery("down", "--state-dir", state)


def test_two_models_of_the_introduction_share_requests_ninety_to_ten(
    page: Path, here: Path, tmp_path: Path, servery: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    versions = write_versions(tmp_path / "models", model_a=[1.0, 1.0], model_b=[1.0, -1.0])
    up = servery("up", "-f", page, "-f", versions, "--detach", "--port", "0", "--state-dir", here)
    assert up.returncode == 0, up.stderr
    address = urlsplit(State(here).platform().url).netloc

    def ask(requests: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        connection = http.client.HTTPConnection(address, timeout=60)
        for _ in range(requests):
            connection.request("POST", "/v1/models/mnist:predict", b'{"instances": [[5.0, 3.0]]}', {"Host": HOST})
            answer = connection.getresponse()
            answers[f"{answer.status} {json.loads(answer.read())}"] += 1
        connection.close()
        return answers

    with ThreadPoolExecutor(CLIENTS) as clients:
        counted = sum(clients.map(ask, [REQUESTS // CLIENTS] * CLIENTS), Counter[str]())
    assert counted == {"200 {'predictions': [8.0]}": 4500, "200 {'predictions': [2.0]}": 500}

    (service,) = State(here).services()
    assert service["status"]["inferenceEndpoint"] == "hello-inference.default"
    assert service["status"]["predictorStatuses"] == [
        {
            "name": f"model-{letter}-predictor",
            "replicas": 1,
            "readyReplicas": 1,
            "trafficPercent": percent,
            "endpoint": f"hello-inference-model-{letter}-predictor.default.svc",
        }
        for letter, percent in (("a", 90), ("b", 10))
    ]


def test_model_that_does_not_load_is_named_by_its_predictor(
    page: Path, here: Path, tmp_path: Path, servery: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    versions = write_versions(tmp_path / "models", model_a=[1.0, 1.0], model_b=[])
    up = servery("up", "-f", page, "-f", versions, "--detach", "--port", "0", "--state-dir", here)
    assert up.returncode == 1
    assert "hello-inference-model-b-predictor" in up.stderr
    assert "no versions of the model" in up.stderr
