"""``servery convert``: documents on stdout, words on stderr, nothing by halves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command import servery
from servery_sdk import plugins

EXAMPLES = Path(__file__).parents[2] / "examples"
IRIS = EXAMPLES / "sklearn-iris" / "service.yaml"
CANARY = EXAMPLES / "knative-canary" / "canary.yaml"
DIALECTS = sorted(plugins.load().dialects)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_converted_documents_are_the_dialects_own(dialect: str) -> None:
    done = servery("convert", "-f", str(IRIS), "--to", dialect)
    assert done.returncode == 0, done.stderr
    found = plugins.load().dialects[dialect]
    own = {(kind.api_version, kind.kind) for kind in found.services | found.models}
    documents = list(yaml.safe_load_all(done.stdout))
    assert {(made["apiVersion"], made["kind"]) for made in documents} <= own
    assert documents[0]["metadata"]["name"] == "sklearn-iris"


def test_output_as_json() -> None:
    done = servery("convert", "-f", str(IRIS), "--to", "ome", "--output", "json")
    assert [made["kind"] for made in json.loads(done.stdout)] == ["InferenceService", "BaseModel"]


def test_one_service_that_is_refused_leaves_nothing_half_said() -> None:
    done = servery("convert", "-f", str(IRIS), "-f", str(CANARY), "--to", "kubedl")
    assert (done.returncode, done.stdout) == (1, "")
    assert "spec.predictor.model: Forbidden: KubeDL cannot say what its autoscaler looks at" in done.stderr


def test_unknown_dialect_is_a_usage_error_that_names_those_there_are() -> None:
    done = servery("convert", "-f", str(IRIS), "--to", "seldon")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'seldon' is no dialect; there are: {', '.join(DIALECTS)}" in " ".join(done.stderr.split())


def test_files_without_a_service(tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n")
    done = servery("convert", "-f", str(file), "--to", "ome")
    assert (done.returncode, done.stderr) == (1, "there is no service in these files\n")
