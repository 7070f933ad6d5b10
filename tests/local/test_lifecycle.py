"""What happens to a service over its life: an update, a crash, a model that does not load."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

MODEL = """
class Model:
    def predict(self, inputs):
        (values,) = inputs.values()
        return values * {factor}
"""


def manifest(folder: Path, name: str, runtime: str = "python", extra: str = "") -> Path:
    path = folder / "service.yaml"
    path.write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\n"
        f"metadata: {{name: {name}}}\n"
        f"spec: {{predictor: {{{extra} model: {{modelFormat: {{name: {runtime}}}, storageUri: file://./model}}}}}}\n"
    )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path


def predictor_pids(address: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", "servery_predictor.cli"], capture_output=True, text=True, check=False)
    own = []
    for pid in map(int, found.stdout.split()):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if f"SERVERY_PREDICTOR_HOST={address}\0".encode() in environment:
            own.append(pid)
    return own


def test_rolling_update_drops_no_request(
    local: Local, folder: Path, ask: Callable[..., Any], until: Callable[..., Any]
) -> None:
    (folder / "model" / "model.py").write_text(MODEL.format(factor=2))
    local.up(manifest(folder, "rolls"))
    first = local.pods("rolls")[0]["metadata"]["name"]
    (folder / "model" / "model.py").write_text(MODEL.format(factor=3))
    # A new variable makes a new template, as an edit of the manifest does.
    path = folder / "service.yaml"
    path.write_text(path.read_text().replace("file://./model", "file://./model, env: [{name: ROUND, value: '2'}]"))
    import threading

    answers: list[Any] = []
    stop = threading.Event()

    def go_on_asking() -> None:
        while not stop.is_set():
            answers.append(ask("rolls", {"instances": [[1.0]]}))

    asking = threading.Thread(target=go_on_asking)
    asking.start()
    try:
        local.up(path)
        until(lambda: first not in [pod["metadata"]["name"] for pod in local.pods("rolls")])
        until(lambda: answers and answers[-1] == {"predictions": [[3.0]]})
    finally:
        stop.set()
        asking.join()
    assert {str(answer) for answer in answers} == {"{'predictions': [[2.0]]}", "{'predictions': [[3.0]]}"}


def test_killed_predictor_is_started_again(
    local: Local, folder: Path, ask: Callable[..., Any], until: Callable[..., Any]
) -> None:
    (folder / "model" / "model.py").write_text(MODEL.format(factor=2))
    local.up(manifest(folder, "crashes"))
    (pid,) = predictor_pids(local.pods("crashes")[0]["status"]["podIP"])
    os.kill(pid, signal.SIGKILL)

    def status() -> Any:
        return local.pods("crashes")[0]["status"]["containerStatuses"][0]

    again = until(lambda: status()["restartCount"] == 1 and status()["ready"] and status())
    assert again["lastState"]["terminated"]["exitCode"] == 137
    assert ask("crashes", {"instances": [[1.0]]}) == {"predictions": [[2.0]]}


def test_corrupt_model_fails_in_its_own_words(local: Local, folder: Path) -> None:
    (folder / "model" / "model.joblib").write_bytes(b"this is no pickle")
    with pytest.raises(Exception, match=r"model\.joblib: cannot be unpickled with scikit-learn"):
        local.up(manifest(folder, "corrupt", "sklearn"))
    status = local.service("corrupt")["status"]["modelStatus"]
    assert status["states"]["targetModelState"] == "FailedToLoad"
    assert "cannot be unpickled" in status["lastFailureInfo"]["message"]


def test_missing_model_names_the_source(local: Local, folder: Path) -> None:
    (folder / "model").rmdir()
    with pytest.raises(Exception, match="model"):
        local.up(manifest(folder, "missing", "sklearn"))


def test_deleted_service_leaves_no_process(
    local: Local, folder: Path, ask: Callable[..., Any], until: Callable[..., Any]
) -> None:
    (folder / "model" / "model.py").write_text(MODEL.format(factor=2))
    local.up(manifest(folder, "goes"))
    address = local.pods("goes")[0]["status"]["podIP"]
    assert predictor_pids(address)
    local.down("goes")
    until(lambda: not predictor_pids(address))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask("goes", {"instances": [[1.0]]})


def test_image_without_a_program_says_so(local: Local, folder: Path) -> None:
    path = folder / "service.yaml"
    path.write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: foreign}\n"
        "spec: {predictor: {containers: [{name: kserve-container, image: 'acme/server:1'}]}}\n"
    )
    with pytest.raises(Exception, match=r"ErrImageNeverPull.*acme/server:1.*known images: .*kserve/sklearnserver"):
        local.up(path)
