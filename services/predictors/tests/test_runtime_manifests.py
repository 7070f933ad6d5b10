"""What the cluster is told of our runtimes is what the plugins say."""

from __future__ import annotations

import runpy
from pathlib import Path

import yaml
from servery_predictor.cli import parser

FOLDER = Path(__file__).parents[3] / "deploy" / "kustomize" / "runtimes"


def test_the_checked_in_runtimes_are_what_the_plugins_print() -> None:
    printed = runpy.run_path(str(FOLDER / "generate.py"))["files"]()
    assert {path.name: path.read_text() for path in FOLDER.glob("*.yaml")} == printed


def test_the_arguments_of_every_runtime_are_flags_of_the_predictor() -> None:
    runtimes = [path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"]
    assert runtimes
    for path in runtimes:
        (container,) = yaml.safe_load(path.read_text())["spec"]["containers"]
        parsed = parser().parse_args(container["args"])
        assert f"servery-{parsed.runtime}" == path.stem
