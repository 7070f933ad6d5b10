"""The README's commands on a cluster that has never heard of Servery, and the command of the image under its role."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "deploy" / "kustomize" / "overlays").iterdir())
EXAMPLE = "examples/from-storage/gs.yaml"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def shell(fresh: Any) -> Callable[[str], str]:
    def run(line: str) -> str:
        environment = {**os.environ, "KUBECONFIG": str(fresh.kubeconfig())}
        bash = ["bash", "-o", "pipefail", "-c", line]
        done = subprocess.run(bash, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout

    return run


def command_of_the_readme(beginning: str) -> str:
    (found,) = (
        line.removeprefix("$ ")
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith(f"$ {beginning}")
    )
    return found


@pytest.mark.parametrize("mode", OVERLAYS)
def test_overlay_is_accepted_whole_at_the_first_time(shell: Callable[[str], str], mode: str) -> None:
    shell(command_of_the_readme("kubectl kustomize").replace("overlays/raw", f"overlays/{mode}"))


def test_controller_leads_and_reports_with_the_role_of_the_overlay(
    fresh: Any, shell: Callable[[str], str], poll: Callable[[str, Callable[[], bool]], None], free_port: int
) -> None:
    shell(command_of_the_readme("kubectl kustomize"))
    # New kinds are served, and their schemas are known, some seconds after their definitions.
    explained = "GROUP:      serving.kserve.io"
    poll("isvc is KServe's", lambda: explained in shell("kubectl explain isvc.spec.predictor.model || true"))
    assert EXAMPLE in command_of_the_readme("kubectl apply")
    shell(command_of_the_readme("kubectl apply"))
    deployment = json.loads(shell("kubectl get deployment -n servery-system servery-controller -o json"))
    (source,) = deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    settings = json.loads(shell(f"kubectl get configmap -n servery-system {source['configMapRef']['name']} -o json"))
    environment = {
        **os.environ,
        **settings["data"],
        "KUBECONFIG": str(fresh.kubeconfig("controller")),
        "POD_NAME": "one",
        "POD_NAMESPACE": "servery-system",
        "SERVERY_CONTROLLER_HTTP_PORT": str(free_port),
    }
    log = fresh.folder / "controller.log"
    controller = [sys.executable, *shlex.split("-c 'from servery_controller.cli import main; main()'")]
    with log.open("wb") as output, subprocess.Popen(controller, env=environment, stdout=output, stderr=output) as runs:
        try:

            def reported() -> bool:
                assert runs.poll() is None, log.read_text()
                return "sklearn-iris-gs" in shell("kubectl get isvc") and "servery-sklearn" in shell(
                    "kubectl get isvc sklearn-iris-gs -o jsonpath={.status.clusterServingRuntimeName}"
                )

            poll("the controller reports", reported)
        finally:
            runs.terminate()
    assert "forbidden" not in log.read_text()
    assert shell("kubectl get deployment sklearn-iris-gs-predictor -o name").strip()


def test_component_leaves_omes_kinds_out(shell: Callable[[str], str], tmp_path: Path) -> None:
    deploy = os.path.relpath(ROOT / "deploy" / "kustomize", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{deploy}/overlays/raw]\ncomponents: [{deploy}/components/without-ome]\n"
    )
    built = shell(f"kubectl kustomize {tmp_path}")
    assert "inferenceservices.serving.kserve.io" in built
    assert "group: ome.io" not in built
