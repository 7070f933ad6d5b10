"""examples/safe-models: a policy takes the signed model, and says of each other why it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from command import servery
from servery_controller.planning import PlanningSettings
from servery_controller.settings import Settings
from servery_sdk import plugins

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "safe-models"
IRIS = '{"instances": [[6.8, 2.8, 4.8, 1.4]]}'
SIGNED = {
    "SERVERY_STORAGE_SIGNATURE_POLICY": "require",
    "SERVERY_STORAGE_SIGNATURE_KEY": str(EXAMPLE / "models.pub"),
}
NO_HARM, NO_PICKLES = {"SERVERY_STORAGE_PICKLE_POLICY": "refuse"}, {"SERVERY_STORAGE_FORMATS": "safetensors"}


SAFETENSORS_MODEL = """
import json

import numpy as np


class Model:
    def load(self, artifact):
        content = (artifact / "model.safetensors").read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        weight = json.loads(content[8:end])["weight"]
        start, stop = weight["data_offsets"]
        self.weight = np.frombuffer(content[end + start : end + stop], "<f4").reshape(weight["shape"])
        self.files = sorted(path.name for path in artifact.iterdir())

    def predict(self, inputs):
        (rows,) = inputs.values()
        return {"scaled": rows @ self.weight, "files": np.array([" ".join(self.files)] * len(rows), object)}
"""
"""Reads the form by itself: the library for it comes with the frameworks."""


@pytest.fixture
def safetensors(tmp_path: Path) -> Path:
    """A service whose weights are safetensors, with a harmful pickle of the same weights beside them."""
    folder = tmp_path / "model"
    folder.mkdir()
    weight = np.array([[2, 0], [0, 3]], "<f4").tobytes()
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, len(weight)]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weight)
    (folder / "model.py").write_text(SAFETENSORS_MODEL)
    shutil.copy(EXAMPLE / "harmful" / "model.joblib", folder / "pytorch_model.bin")
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "scaled"},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "python"}, "storageUri": folder.as_uri()}}},
    }
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(service))
    return path


@pytest.fixture
def on_a_cluster(tmp_path: Path) -> Mapping[str, str]:
    """What policy.yaml makes the controller tell every storage initializer."""
    signers, settings = yaml.safe_load_all((EXAMPLE / "policy.yaml").read_text())
    for name, content in signers["data"].items():
        (tmp_path / name).write_text(content)
    said = settings["data"]["SERVERY_CONTROLLER_STORAGE_SETTINGS"].replace("/etc/servery/signers", str(tmp_path))
    planned: PlanningSettings = Settings(storage_settings=said).planning(plugins.load())
    return planned.storage_env


def test_without_a_policy_a_harmful_model_gets_as_far_as_the_server() -> None:
    done = servery("predict", "-f", str(EXAMPLE / "harmful.yaml"), "-d", IRIS)
    assert (done.returncode, done.stdout) == (1, "")
    assert "container kserve-container" in done.stderr, "it was loaded, and only then turned out to be no model"


def test_signed_model_is_taken() -> None:
    done = servery("predict", "-f", str(EXAMPLE / "signed.yaml"), "-d", IRIS, environment=SIGNED)
    assert (done.returncode, done.stdout) == (0, '{"predictions":[1]}\n'), done.stderr


@pytest.mark.parametrize(
    ("model", "policy", "words"),
    [
        pytest.param("changed", SIGNED, "Hash mismatch for 'model.joblib': Expected sha256 2ea29f8a", id="changed"),
        pytest.param("harmful", SIGNED, "not signed by the key", id="unsigned"),
        pytest.param("harmful", NO_HARM, "model.joblib would run posix.system when it is loaded", id="harmful"),
        pytest.param("signed", NO_PICKLES, "model.joblib is a pickle, and only safetensors are taken", id="pickle"),
    ],
)
def test_bad_model_is_refused_with_the_reason(model: str, policy: Mapping[str, str], words: str) -> None:
    done = servery("predict", "-f", str(EXAMPLE / f"{model}.yaml"), "-d", IRIS, environment=policy)
    assert (done.returncode, done.stdout) == (1, "")
    assert "container storage-initializer" in done.stderr
    assert words in done.stderr


def test_safetensors_are_taken_and_used_and_the_pickle_beside_them_left_out(safetensors: Path) -> None:
    done = servery("predict", "-f", str(safetensors), "-d", '{"instances": [[1, 2]]}', environment=NO_PICKLES)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["predictions"]
    assert answer["scaled"] == [2.0, 6.0]
    assert {"model.py", "model.safetensors"} <= set(answer["files"].split())
    assert "pytorch_model.bin" not in answer["files"].split()


@pytest.mark.parametrize("model", ["signed", "changed"])
def test_policy_of_a_cluster_says_the_same(model: str, on_a_cluster: Mapping[str, str]) -> None:
    assert "-----BEGIN PUBLIC KEY-----" in on_a_cluster["SERVERY_STORAGE_SIGNATURE_KEY"]
    done = servery("predict", "-f", str(EXAMPLE / f"{model}.yaml"), "-d", IRIS, environment=on_a_cluster)
    assert (done.returncode == 0) is (model == "signed"), done.stderr
    if model == "changed":
        assert "does not hold for the key in SERVERY_STORAGE_SIGNATURE_KEY" in done.stderr
