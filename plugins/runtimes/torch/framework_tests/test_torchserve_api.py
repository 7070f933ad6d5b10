"""TorchServe's REST API over real handlers: what its documentation's ``curl`` lines send."""

from __future__ import annotations

import base64
import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ports import free_port
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins

EXAMPLE = Path(__file__).parents[4] / "examples" / "torchserve-mnist"
REQUEST = (EXAMPLE / "request.json").read_bytes()
TWO = base64.b64decode(json.loads(REQUEST)["instances"][0]["data"])


@pytest.fixture
async def predictor(tmp_path: Path) -> AsyncIterator[Predictor]:
    """The example's store, with ports of this test's own, and models that may be registered."""
    shutil.copytree(EXAMPLE / "store", tmp_path / "store")
    config = tmp_path / "store" / "config" / "config.properties"
    text = config.read_text().replace(":8085", f":{free_port()}").replace(":8082", f":{free_port()}")
    config.write_text(text + "enable_model_api=true\ncors_allowed_origin=*\n")
    settings = Settings(
        runtime="torch", model_name="a", model_dir=tmp_path / "store", host="127.0.0.1", http_port=0, grpc_port=0
    )
    predictor = Predictor(settings, plugins.load().runtimes["servery-torch"], Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


@pytest.fixture(params=["its own port", "ours"])
async def http(request: pytest.FixtureRequest, predictor: Predictor) -> AsyncIterator[httpx.AsyncClient]:
    url = predictor.http.url if request.param == "ours" else predictor.doors[0].url
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


@pytest.mark.timeout(300)
async def test_images_are_predicted_and_explained(http: httpx.AsyncClient) -> None:
    asked: list[dict[str, Any]] = [
        # curl http://localhost:8080/predictions/mnist -T 0.png
        {"method": "PUT", "content": TWO},
        # curl http://localhost:8080/predictions/mnist -F "data=@0.png"
        {"method": "POST", "files": {"data": ("0.png", TWO, "image/png")}},
        # curl -X POST http://localhost:8080/predictions/mnist -H "Content-Type: image/png" --data-binary @0.png
        {"method": "POST", "content": TWO, "headers": {"content-type": "image/png"}},
    ]
    for one in asked:
        answer = await http.request(url="/predictions/mnist", **one)
        assert (answer.status_code, answer.json()) == (200, 2), answer.text
        assert (await http.request(url="/predictions/mnist/1.0", **one)).json() == 2
    explained = await http.put("/explanations/mnist", content=TWO)
    assert np.array(explained.json()).shape == (1, 28, 28)
    # v2 has the picture as BYTES, and its class beside it.
    sent = {"name": "data", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(TWO).decode()]}
    for path in ("/v2/models/mnist/explain", "/v2/models/mnist/versions/1.0/explain"):
        (output,) = (await http.post(path, json={"inputs": [sent]})).json()["outputs"]
        assert output["shape"] == [1, 1, 28, 28]
        np.testing.assert_allclose(output["data"], np.ravel(explained.json()), atol=1e-6)
    # The store's envelope is kserve: its requests are read whatever path they come by.
    assert (await http.post("/predictions/mnist", content=REQUEST)).json() == {"predictions": [2]}
    assert (await http.post("/v1/models/mnist:predict", content=REQUEST)).json() == {"predictions": [2]}


@pytest.mark.timeout(300)
async def test_what_is_no_image_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.put("/predictions/mnist", content=b"no image")
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException"), answer.text
    answer = await http.put("/predictions/mnist/7", content=TWO)
    assert (answer.status_code, answer.json()["type"]) == (404, "ModelNotFoundException"), answer.text


@pytest.mark.timeout(300)
async def test_models_are_managed_where_the_configuration_says(predictor: Predictor) -> None:
    manage, metrics = predictor.doors
    async with httpx.AsyncClient(base_url=manage.url, timeout=60) as http:
        assert (await http.get("/ping")).json() == {"status": "Healthy"}
        assert (await http.get("/models")).json() == {"models": [{"modelName": "mnist", "modelUrl": "mnist.mar"}]}
        assert [one["batchSize"] for one in (await http.get("/models/mnist")).json()] == [64]
        answer = await http.put("/models/mnist/1.0/set-default", headers={"origin": "https://page.example"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert (await http.delete("/models/mnist")).json() == {"status": 'Model "mnist" unregistered'}
        assert (await http.put("/predictions/mnist", content=TWO)).status_code == 503
        assert (await http.get("/ping")).status_code == 500
        registered = {"status": 'Model "mnist" Version: 1.0 registered with 1 initial workers'}
        assert (await http.post("/models?url=mnist.mar")).json() == registered
        assert (await http.put("/predictions/mnist", content=TWO)).json() == 2
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        assert (await http.get("/models")).status_code == 404
    async with httpx.AsyncClient(base_url=metrics.url) as http:
        assert 'protocol="torchserve"' in (await http.get("/metrics")).text


@pytest.mark.timeout(300)
async def test_an_archive_that_is_not_loaded_is_registered(predictor: Predictor, tmp_path: Path) -> None:
    described = json.dumps({"model": {"modelName": "echo", "modelVersion": "3", "handler": "echo_handler.py"}})
    handler = "def handle(data, context):\n    return data and [sorted(row) for row in data]\n"
    with zipfile.ZipFile(tmp_path / "store" / "model-store" / "echo.mar", "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", described)
        packed.writestr("echo_handler.py", handler)
    async with httpx.AsyncClient(base_url=predictor.doors[0].url, timeout=60) as http:
        assert (await http.put("/predictions/echo", content=b"a")).status_code == 404
        assert (await http.post("/models?url=echo.mar")).status_code == 200
        assert (await http.post("/predictions/echo", files={"x": b"1", "y": b"2"})).json() == ["x", "y"]
        assert (await http.get("/models/echo")).json()[0]["modelUrl"] == "echo.mar"
