"""The example, and KServe's page on MLflow, whose model it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import servery
from pages import CORPUS
from stand_ins.gcs import buckets_served

EXAMPLE = Path(__file__).parents[4] / "examples" / "mlflow-wine"
PAGE = CORPUS / "pages" / "kserve-mlflow-v2.yaml"
OBJECTS = "kfserving-examples/models/mlflow/wine"

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]


def predicted(service: Path, *, data: str, environment: dict[str, str] | None = None) -> Any:
    done = servery("predict", "-f", str(service), "-d", data, environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def request_of_the_page() -> str:
    """A column for each of the signature's, with MLServer's content types."""
    return f"@{EXAMPLE / 'request.json'}"


def test_the_example_rates_a_wine(request_of_the_page: str) -> None:
    (output,) = predicted(EXAMPLE / "service.yaml", data=request_of_the_page)["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP64", [1])
    assert 5 < output["data"][0] < 6


def test_the_page_of_kserve_answers_its_request(request_of_the_page: str) -> None:
    if not PAGE.is_file():
        pytest.skip("the manifests of the introduction pages are not beside the checkout (../shared)")
    with buckets_served() as buckets:
        for path in (EXAMPLE / "model").iterdir():
            buckets.put(f"{OBJECTS}/{path.name}", path.read_bytes())
        answer = predicted(PAGE, data=request_of_the_page, environment={"STORAGE_EMULATOR_HOST": buckets.url})
    assert answer["model_name"] == "mlflow-v2-wine-classifier"
    assert 5 < answer["outputs"][0]["data"][0] < 6
