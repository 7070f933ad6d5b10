"""Secrets and ConfigMaps on this machine: variables, files, and what is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servery.local.platform import is_ready

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

MODEL = """
import os, stat
from pathlib import Path


class Model:
    def predict(self, inputs):
        (values,) = inputs.values()
        folder = Path(os.environ["SECRETS"])
        assert stat.S_IMODE((folder / "factor").stat().st_mode) == 0o600
        return values * int(os.environ["FACTOR"]) + int((folder / "factor").read_text())
"""

SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: {name}}}
spec:
  predictor:
    volumes: [{{name: given, {volume}}}]
    model:
      modelFormat: {{name: python}}
      storageUri: file://./model
      env:
      - {{name: SECRETS, value: /etc/secrets}}
      - name: FACTOR
        valueFrom: {{configMapKeyRef: {{name: {config}, key: factor}}}}
      volumeMounts: [{{name: given, mountPath: /etc/secrets}}]
"""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{factor: '{factor}'}}\n"
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{{key}: '10'}}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.py").write_text(MODEL)

    def write(*documents: str) -> Path:
        path = tmp_path / "service.yaml"
        path.write_text("---\n".join(documents))
        return path

    return write


def volumes(local: Local, name: str) -> list[Path]:
    pods = local.directory / "pods" / "default"
    return [file for file in pods.glob(f"{name}-predictor-*/volumes/given/*") if file.is_file()]


def test_variables_and_files_are_filled_and_files_go_with_the_pod(
    local: Local, write: Callable[..., Path], ask: Callable[..., Any], until: Callable[..., Any]
) -> None:
    service = SERVICE.format(name="filled", volume="secret: {secretName: filled}", config="filled")
    local.up(write(service, SECRET.format(name="filled", factor=5), CONFIG.format(name="filled", key="factor")))
    assert ask("filled", {"instances": [[2.0]]}) == {"predictions": [[25.0]]}
    assert [file.name for file in volumes(local, "filled")] == ["factor"]
    local.down("filled")
    until(lambda: not volumes(local, "filled"))


def test_file_of_a_mounted_secret_is_renewed_while_its_pod_runs(
    local: Local, write: Callable[..., Path], ask: Callable[..., Any], until: Callable[..., Any]
) -> None:
    service = SERVICE.format(name="renewed", volume="secret: {secretName: renewed}", config="renewed")
    config = CONFIG.format(name="renewed", key="factor")
    local.up(write(service, SECRET.format(name="renewed", factor=5), config))
    (pod,) = local.pods("renewed")
    local.apply(write(SECRET.format(name="renewed", factor=7)))
    until(lambda: ask("renewed", {"instances": [[2.0]]}) == {"predictions": [[27.0]]})
    assert [found["metadata"]["uid"] for found in local.pods("renewed")] == [pod["metadata"]["uid"]]
    local.down("renewed")


def test_service_waits_for_what_it_names_and_says_for_what(
    local: Local, write: Callable[..., Path], ask: Callable[..., Any], until: Callable[..., Any]
) -> None:
    volume = "projected: {sources: [{secret: {name: late}}]}"
    service = SERVICE.format(name="late", volume=volume, config="late")

    def waiting() -> Any:
        statuses = [
            status for pod in local.pods("late") for status in pod.get("status", {}).get("containerStatuses", [])
        ]
        return [status["state"]["waiting"] for status in statuses if "waiting" in status["state"]]

    def waits(message: str) -> Callable[[], bool]:
        return lambda: waiting() == [{"reason": "CreateContainerConfigError", "message": message}]

    with pytest.raises(Exception, match=r'CreateContainerConfigError: .*secret "late" not found'):
        local.up(write(service))
    assert waits('MountVolume.SetUp failed for volume "given" : secret "late" not found')()
    local.apply(write(SECRET.format(name="late", factor=1)))
    until(waits('configmap "late" not found'))
    local.apply(write(CONFIG.format(name="late", key="other")))
    until(waits("couldn't find key factor in ConfigMap default/late"))
    local.apply(write(CONFIG.format(name="late", key="factor")))
    until(lambda: is_ready(local.service("late")))
    assert ask("late", {"instances": [[2.0]]}) == {"predictions": [[21.0]]}
