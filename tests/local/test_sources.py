"""Models from where people keep them, by stand-ins of those services on this machine, or by the services themselves."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stand_ins.git import Repository, daemon_served
from stand_ins.hub import Hub, hub_served
from stand_ins.registry import Unavailable, registry_program, registry_served

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = (EXAMPLES / "sklearn-iris" / "model" / "model.joblib").read_bytes()
BUCKET, KEY = "kfserving-examples", "models/sklearn/1.0/model/model.joblib"
REGISTRY = Path(__file__).parents[2] / "plugins" / "storage" / "oci" / "tests" / "registry"
IRIS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


@pytest.fixture
def s3_url() -> Iterator[str]:
    """Of a server that holds the model under two names and wants credentials, whichever."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    for bucket, key in ((BUCKET, KEY), ("models", "sklearn/iris/model.joblib")):
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=MODEL)
    client.close()
    yield url
    server.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the environment say where S3 is."""
    for name, value in (
        ("AWS_ENDPOINT_URL", s3_url),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("s3")
def test_model_from_s3_answers(local: Local, ask: Callable[..., Any]) -> None:
    local.up(EXAMPLES / "from-storage" / "s3.yaml")
    assert ask("sklearn-iris-s3", {"instances": IRIS}) == {"predictions": [1, 1]}


def with_endpoint(manifest: str, folder: Path, url: str) -> Path:
    path = folder / "service.yaml"
    path.write_text(manifest.replace("http://127.0.0.1:9000", url))
    return path


@pytest.fixture
def no_s3_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_s3_environment")
def test_secret_of_the_same_file_says_where_the_model_is(
    local: Local, ask: Callable[..., Any], s3_url: str, tmp_path: Path
) -> None:
    example = (EXAMPLES / "from-storage" / "s3-with-secret.yaml").read_text()
    local.up(with_endpoint(example, tmp_path, s3_url))
    assert ask("sklearn-iris-secret", {"instances": IRIS}) == {"predictions": [1, 1]}


# The service stands first: what it names must be there before it is planned.
ACCOUNT = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: sklearn-iris-account}
spec:
  predictor:
    serviceAccountName: reader
    model: {modelFormat: {name: sklearn}, storageUri: s3://models/sklearn/iris}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
secrets: [{name: s3-keys}]
---
apiVersion: v1
kind: Secret
metadata:
  name: s3-keys
  annotations:
    serving.kserve.io/s3-endpoint: http://127.0.0.1:9000
    serving.kserve.io/s3-region: us-east-1
stringData: {AWS_ACCESS_KEY_ID: ann, AWS_SECRET_ACCESS_KEY: pass}
"""


@pytest.mark.usefixtures("no_s3_environment")
def test_secrets_of_the_service_account_in_the_file_reach_the_download(
    local: Local, ask: Callable[..., Any], s3_url: str, tmp_path: Path
) -> None:
    local.up(with_endpoint(ACCOUNT, tmp_path, s3_url))
    assert ask("sklearn-iris-account", {"instances": IRIS}) == {"predictions": [1, 1]}


@pytest.mark.usefixtures("gcs")
def test_model_from_google_cloud_storage_answers(local: Local, ask: Callable[..., Any]) -> None:
    local.up(EXAMPLES / "from-storage" / "gs.yaml")
    assert ask("sklearn-iris-gs", {"instances": IRIS}) == {"predictions": [1, 1]}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """With the model for those who have its token; the environment has none, and knows no such hub."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with hub_served() as hub:
        hub.is_gated = True
        hub.commit({"README.md": b"Iris", "sklearn/model.joblib": MODEL}, "v1")
        yield hub


GATED = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: sklearn-iris-hub}}
spec:
  predictor:
    serviceAccountName: hub-reader
    model: {{modelFormat: {{name: sklearn}}, storageUri: "hf://{repository}:v1/sklearn"}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: hub-reader}}
secrets: [{{name: hub}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: hub}}
stringData: {{HF_TOKEN: {token}, HF_ENDPOINT: "{url}"}}
"""


def test_gated_model_of_the_hub_answers_with_the_token_of_a_secret(
    local: Local, ask: Callable[..., Any], hub: Hub, tmp_path: Path
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(GATED.format(repository=hub.repository, token=hub.token, url=hub.url))
    local.up(path)
    assert ask("sklearn-iris-hub", {"instances": IRIS}) == {"predictions": [1, 1]}


def test_model_in_a_git_repository_answers(local: Local, ask: Callable[..., Any], tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.commit({"README.md": b"Iris", "sklearn/iris/model.joblib": MODEL})
    repository.run("tag", "v1", "main")
    repository.commit({"README.md": b"The model moved"})
    with daemon_served(tmp_path) as url:
        path = tmp_path / "service.yaml"
        manifest = (EXAMPLES / "from-storage" / "git.yaml").read_text()
        path.write_text(manifest.replace("git://127.0.0.1:9418", url))
        local.up(path)
        assert ask("sklearn-iris-git", {"instances": IRIS}) == {"predictions": [1, 1]}


def test_model_in_an_image_answers(
    local: Local, ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        program = registry_program(REGISTRY)
    except Unavailable as reason:
        pytest.skip(f"{reason}: a model in an image is NOT tested")
    monkeypatch.setenv("KSERVE_OCI_INSECURE_REGISTRY", "true")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("models/model.joblib")
        member.size = len(MODEL)
        tar.addfile(member, io.BytesIO(MODEL))
    layer = ("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(buffer.getvalue()), {})
    with registry_served(program, tmp_path) as registry:
        registry.push("models/iris", [layer], tag="v1", config="application/vnd.oci.image.config.v1+json")
        path = tmp_path / "service.yaml"
        manifest = (EXAMPLES / "from-storage" / "oci.yaml").read_text()
        path.write_text(manifest.replace("127.0.0.1:5000", registry.host))
        local.up(path)
        assert ask("sklearn-iris-oci", {"instances": IRIS}) == {"predictions": [1, 1]}


def test_python_runtime_answers(local: Local, ask: Callable[..., Any]) -> None:
    local.up(EXAMPLES / "python-runtime" / "service.yaml")
    request = json.loads((EXAMPLES / "python-runtime" / "request.json").read_text())
    assert ask("doubler", request) == {"predictions": [[2, 4], [6, 8]]}
