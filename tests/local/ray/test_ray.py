"""The rendered Serve configuration on a real Ray of this machine."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton
import yaml
from servery.local.platform import NotReady

if TYPE_CHECKING:
    from conftest import Local

EXAMPLES = Path(__file__).parents[3] / "examples"
IRIS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]

SPELLINGS = EXAMPLES / "sklearn-iris" / "spellings"
pytestmark = pytest.mark.timeout(300)


def processes_that_mention(word: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in command and file.parent.name != str(os.getpid()):
            found.append(command)
    return found


@pytest.fixture(scope="module")
def on_ray(make_local: Callable[..., Local], tmp_path_factory: pytest.TempPathFactory) -> Local:
    """The model as a Serve application of its own, and a server of another make behind one."""
    local = make_local(tmp_path_factory.mktemp("ray"), mode="ray")
    local.up(EXAMPLES / "sklearn-iris" / "service.yaml", SPELLINGS / "container.yaml", seconds=240)
    return local


def asked(local: Local, name: str, path: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(local.url + path, data=body, headers={"Host": f"{name}.default.localhost"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_own_model_is_a_serve_application(on_ray: Local) -> None:
    body = json.dumps({"instances": IRIS}).encode()
    assert asked(on_ray, "sklearn-iris", "/v1/models/sklearn-iris:predict", body) == {"predictions": [1, 1]}
    assert processes_that_mention("ServeReplica:sklearn-iris-predictor:predictor")


def test_binary_tensors_pass_through_ray(on_ray: Local) -> None:
    given = triton.InferInput("input-0", [2, 4], "FP64")
    given.set_data_from_numpy(np.array(IRIS))
    headers = {"Host": "sklearn-iris.default.localhost"}
    with triton.InferenceServerClient(on_ray.url.removeprefix("http://")) as client:
        answer = client.infer("sklearn-iris", [given], headers=headers)
    assert answer.as_numpy(answer.get_response()["outputs"][0]["name"]).tolist() == [1, 1]


def test_routes_that_are_not_hot_answer_too(on_ray: Local) -> None:
    assert asked(on_ray, "sklearn-iris", "/v2/models/sklearn-iris")["name"] == "sklearn-iris"
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(on_ray, "sklearn-iris", "/v1/models/other:predict", b'{"instances": [[1]]}')
    with refused.value as answer:
        assert answer.code == 404
        assert "this server has: sklearn-iris" in json.loads(answer.read())["error"]


def test_any_other_server_answers_behind_a_serve_application(on_ray: Local) -> None:
    name = yaml.safe_load((SPELLINGS / "container.yaml").read_text())["metadata"]["name"]
    body = json.dumps({"instances": IRIS}).encode()
    assert asked(on_ray, name, f"/v1/models/{name}:predict", body) == {"predictions": [1, 1]}
    assert processes_that_mention(f"ServeReplica:{name}-predictor:proxy")


def test_service_says_that_it_runs_on_ray(on_ray: Local) -> None:
    assert on_ray.service("sklearn-iris")["status"]["deploymentMode"] == "ray"


def test_model_that_does_not_load_says_why_and_leaves_nothing(
    make_local: Callable[..., Local], until: Callable[..., Any], tmp_path: Path
) -> None:
    local = make_local(tmp_path / "platform", mode="ray")
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.joblib").write_text("no pickle")
    manifest = yaml.safe_load((EXAMPLES / "sklearn-iris" / "service.yaml").read_text())
    manifest["metadata"]["name"] = "broken"
    manifest["spec"]["predictor"]["model"]["storageUri"] = f"file://{model}"
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(NotReady, match=r"ModelLoadFailed: .*model\.joblib: cannot be unpickled"):
        local.up(tmp_path / "service.yaml", seconds=200)
    local.down("broken")
    until(lambda: not processes_that_mention("broken-predictor"))
