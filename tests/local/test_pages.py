"""The manifests that introduction pages print, as they are, answer on this machine."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300), pytest.mark.usefixtures("gcs")]

PAGES = Path(__file__).parents[3] / "shared" / "corpus" / "pages"
IRIS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Path:
    if not PAGES.is_dir():
        pytest.skip("the manifests of the introduction pages are not beside the checkout (../shared)")
    path: Path = PAGES / request.param
    return path


@pytest.mark.parametrize(
    ("page", "host"),
    [
        ("kserve-sklearn.yaml", "sklearn-iris-default.example.com"),
        ("lesson-sklearn-iris.yaml", "sklearn-iris-ml-serving.example.com"),
    ],
    indirect=["page"],
)
def test_model_of_the_page_answers_its_request(local: Local, page: Path, host: str) -> None:
    local.up(page)
    # The course's own: curl -H "Content-Type: application/json" -d '{"instances": …}'
    body: Any = json.dumps({"instances": IRIS}).encode()
    headers = {"Host": host, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{local.url}/v1/models/sklearn-iris:predict", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.loads(answer.read()) == {"predictions": [1, 1]}


@pytest.mark.parametrize("page", ["kserve-sklearn-v2-grpc.yaml"], indirect=True)
def test_model_of_the_grpc_page_answers_over_grpc(local: Local, page: Path) -> None:
    local.up(page)
    given = triton.InferInput("input-0", [2, 4], "FP64")
    given.set_data_from_numpy(np.array(IRIS))
    with triton.InferenceServerClient(local.grpc_address("sklearn-v2-iris-grpc")) as client:
        answer = client.infer("sklearn-v2-iris-grpc", [given])
        (output,) = answer.get_response().outputs
        assert answer.as_numpy(output.name).tolist() == [1, 1]
