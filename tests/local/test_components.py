"""A transformer and an explainer run beside their predictor, and find it by the name of its Service."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

PREDICTOR = """
class Model:
    def predict(self, inputs):
        (values,) = inputs.values()
        return values * 2
"""

PROGRAM = """
import argparse
from kserve import Model, ModelServer, model_server

class Beside(Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def preprocess(self, payload, headers=None):
        return {"instances": [value + 1 for value in payload["instances"]]}

    async def explain(self, payload, headers=None):
        answer = await self.predict({"instances": payload["instances"]})
        return {"explanations": [payload["instances"], answer["predictions"]]}

flags, _ = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
ModelServer().start([Beside(flags.model_name)])
"""

COMPONENT = """
    containers:
      - image: servery/predictor-python:0.1.0
        args: [--model_dir=/mnt/models]
    storageUris: [{uri: "file://./beside"}]
"""
SERVICE = f"""
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: beside}}
spec:
  predictor: {{model: {{modelFormat: {{name: python}}, storageUri: "file://./predictor"}}}}
  transformer:{COMPONENT}
  explainer:{COMPONENT}
"""


@pytest.fixture(scope="module")
def beside(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("beside")
    for name, text in (("predictor", PREDICTOR), ("beside", PROGRAM)):
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(text)
    (folder / "service.yaml").write_text(SERVICE)
    local.up(folder / "service.yaml", seconds=200)

    def ask(verb: str, *, host: str = "beside.default.localhost") -> Any:
        url, body = f"{local.url}/v1/models/beside:{verb}", json.dumps({"instances": [1, 2]}).encode()
        asked = urllib.request.Request(url, body, {"Host": host, "Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read())

    return ask


@pytest.mark.parametrize("host", ["beside.default.localhost", "beside-default.example.com"])
def test_prediction_goes_through_the_transformer(beside: Callable[..., Any], host: str) -> None:
    assert beside("predict", host=host) == {"predictions": [4, 6]}


def test_explanation_comes_from_the_explainer_which_asks_the_predictor(beside: Callable[..., Any]) -> None:
    # The explainer's own preprocess comes first, as KServe's models do it.
    assert beside("explain") == {"explanations": [[2, 3], [4, 6]]}


def test_each_component_has_a_host_of_its_own(beside: Callable[..., Any]) -> None:
    assert beside("predict", host="beside-predictor.default.localhost") == {"predictions": [2, 4]}


def test_status_speaks_of_all_components(local: Local, beside: Callable[..., Any]) -> None:
    status = local.service("beside")["status"]
    ready = {c["type"]: c["status"] for c in status["conditions"]}
    assert {ready[f"{name}Ready"] for name in ("Predictor", "Transformer", "Explainer", "Ingress")} == {"True"}
    assert {name: found["url"] for name, found in status["components"].items()} == {
        name: f"http://beside-{name}-default.example.com" for name in ("predictor", "transformer", "explainer")
    }
    assert status["address"] == {"url": "http://beside-transformer.default.svc.cluster.local"}
