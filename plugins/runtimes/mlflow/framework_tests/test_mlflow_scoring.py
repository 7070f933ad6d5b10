"""The scoring server's REST API: every request is asked of MLflow's own server as well, which must say the same."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import mlflow.pyfunc
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from numpy import dtype
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins

EXAMPLE = Path(__file__).parents[4] / "examples" / "mlflow-wine"

pytestmark = pytest.mark.timeout(300)

HOMES = {"columns": ["rooms", "town"], "data": [[2.0, "Bonn"], [3.0, "Kiel"]]}
RECORDS = [dict(zip(HOMES["columns"], row, strict=True)) for row in HOMES["data"]]
TABLES = Schema([ColSpec("double", "rooms"), ColSpec("string", "town")])
MATRIX = Schema([TensorSpec(dtype("float64"), (-1, 2))])
TEMPLATE = """
import mlflow
import numpy as np
import pandas as pd

class Made(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return {}

mlflow.models.set_model(Made())
"""


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Serves a model that answers with an expression of ``model_input`` and ``params``; returns us, and MLflow."""
    predictors: list[Predictor] = []

    async def make(
        expression: str, takes: Schema | None = TABLES, **of_signature: Any
    ) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
        (tmp_path / "made.py").write_text(TEMPLATE.format(expression))
        signature = ModelSignature(takes, **of_signature) if takes is not None else None
        with warnings.catch_warnings(record=True), pytest.MonkeyPatch.context() as environment:
            warnings.simplefilter("ignore")
            environment.setenv("MLFLOW_UV_AUTO_DETECT", "false")
            mlflow.pyfunc.save_model(
                path=tmp_path / "model",
                python_model=str(tmp_path / "made.py"),
                signature=signature,
                pip_requirements=[],
            )
            theirs = scoring_server.init(mlflow.pyfunc.load_model(str(tmp_path / "model"), suppress_warnings=True))
        settings = Settings(
            runtime="mlflow",
            model_name="homes",
            model_dir=tmp_path / "model",
            host="127.0.0.1",
            http_port=0,
            enable_grpc=False,
        )
        predictor = Predictor(settings, plugins.load().runtimes["servery-mlflow"], Metrics(CollectorRegistry()))
        await predictor.start()
        predictors.append(predictor)
        return (
            httpx.AsyncClient(base_url=predictor.http.url, timeout=60),
            httpx.AsyncClient(transport=httpx.ASGITransport(theirs), base_url="http://mlflow"),
        )

    yield make
    for predictor in predictors:
        await predictor.stop()


ROWS = "model_input.to_dict(orient='split')['data']"
CSV = "rooms,town\n2.0,Bonn\n3,Kiel\n"


@pytest.mark.parametrize(
    ("expression", "takes", "body"),
    [
        pytest.param(ROWS, TABLES, {"dataframe_split": HOMES}, id="dataframe_split"),
        pytest.param(ROWS, TABLES, {"dataframe_records": RECORDS}, id="dataframe_records"),
        pytest.param(ROWS, TABLES, {"instances": RECORDS}, id="instances-of-columns"),
        pytest.param(ROWS, TABLES, {"inputs": {"rooms": [2.0], "town": ["Bonn"]}}, id="inputs-of-columns"),
        pytest.param(ROWS, TABLES, CSV, id="csv"),
        pytest.param(ROWS, TABLES, 'rooms,town\n2.0,007\n3,"a, b"\n', id="csv-of-texts-that-look-like-numbers"),
        pytest.param("model_input * 2", MATRIX, {"instances": [[1.0, 2.0]]}, id="instances"),
        pytest.param("model_input * 2", MATRIX, {"inputs": [[1.0, 2.0], [3.0, 4.0]]}, id="inputs"),
        pytest.param("model_input", TABLES, {"dataframe_records": RECORDS}, id="a-table"),
        pytest.param("model_input[['rooms']]", TABLES, {"dataframe_records": RECORDS}, id="a-table-of-one-column"),
        pytest.param("[{'a': [1, 2], 'b': 'x'}, {'a': [3], 'b': 'y'}]", TABLES, {"dataframe_records": RECORDS}, id="rows"),
        pytest.param("{'a': np.array([1, 2]), 'b': ['x']}", TABLES, {"dataframe_records": RECORDS}, id="by-name"),
        pytest.param("['x', 'y']", TABLES, {"dataframe_records": RECORDS}, id="texts"),
        pytest.param("np.array([True])", TABLES, {"dataframe_records": RECORDS}, id="truths"),
        pytest.param("type(model_input).__name__ + str(list(model_input))", None, "a,b\n1,x\n", id="csv-without-signature"),
    ],
)  # fmt: skip
async def test_every_form_is_answered_as_mlflow_does_it(
    make: Any, expression: str, takes: Schema | None, body: Any
) -> None:
    if isinstance(body, str):
        sent = {"content": body, "headers": {"content-type": "text/csv; charset=UTF-8"}}
    else:
        sent = {"json": body}
    if takes is None:
        # One text is a list of one here.
        expression = f"[{expression}]"
    ours, theirs = await make(expression, takes)
    async with ours, theirs:
        wanted = await theirs.post("/invocations", **sent)
        assert wanted.status_code == 200, wanted.text
        found = await ours.post("/invocations", **sent)
        assert (found.status_code, found.headers["content-type"], found.json()) == (
            200,
            "application/json",
            wanted.json(),
        )


async def test_parameters_reach_the_model(make: Any) -> None:
    ours, theirs = await make("[params['top']]", params=ParamSchema([ParamSpec("top", "long", 1)]))
    async with ours, theirs:
        for body, top in (
            ({"dataframe_records": RECORDS}, 1),
            ({"dataframe_records": RECORDS, "params": {"top": 3}}, 3),
        ):
            for client in (theirs, ours):
                assert (await client.post("/invocations", json=body)).json() == {"predictions": [top]}


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        pytest.param("application/json", "{", 400, id="no-json"),
        pytest.param("application/json", "{}", 400, id="no-input"),
        pytest.param(
            "application/json", '{"dataframe_split": {"columns": ["rooms"], "data": [[1]]}}', 400, id="column"
        ),
        pytest.param("text/csv", "rooms,town\n2.0,Bonn,3\n4,5,6,7,8\n", 400, id="csv-with-more-fields-than-names"),
        pytest.param("application/x-www-form-urlencoded", "rooms=2", 415, id="kind"),
        pytest.param("application/json; charset=latin-1", "{}", 415, id="charset"),
        pytest.param("text/csv; header=present", "a", 415, id="parameter"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_mlflows_status(
    make: Any, content_type: str, body: str, status: int
) -> None:
    ours, theirs = await make(ROWS)
    async with ours, theirs:
        for client in (theirs, ours):
            answer = await client.post("/invocations", content=body, headers={"content-type": content_type})
            assert answer.status_code == status, answer.text
            if status == 400:
                assert answer.json()["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
                assert answer.json()["message"]


async def test_health_and_version_are_told(make: Any) -> None:
    ours, theirs = await make(ROWS)
    async with ours, theirs:
        for path in ("/ping", "/health", "/version"):
            wanted, found = await theirs.get(path), await ours.get(path)
            assert (found.status_code, found.text) == (wanted.status_code, wanted.text) == (200, found.text)
        assert (await ours.post("/v2/repository/models/homes/unload")).status_code == 200
        assert (await ours.get("/ping")).status_code == 404
        answer = await ours.post("/invocations", content=CSV, headers={"content-type": "text/csv"})
        assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")


async def test_the_examples_csv_is_rated() -> None:
    settings = Settings(
        runtime="mlflow",
        model_name="wine",
        model_dir=EXAMPLE / "model",
        host="127.0.0.1",
        http_port=0,
        enable_grpc=False,
    )
    predictor = Predictor(settings, plugins.load().runtimes["servery-mlflow"], Metrics(CollectorRegistry()))
    await predictor.start()
    async with httpx.AsyncClient(base_url=predictor.http.url, timeout=60) as http:
        sent = (EXAMPLE / "wine.csv").read_bytes()
        answer = await http.post("/invocations", content=sent, headers={"content-type": "text/csv"})
    await predictor.stop()
    (rating,) = answer.json()["predictions"]
    assert 5 < rating < 6


async def test_v2_says_what_the_answer_was(make: Any) -> None:
    ours, theirs = await make("model_input[['rooms']]")
    async with ours, theirs:
        inputs = [
            {"name": "rooms", "shape": [1], "datatype": "FP64", "data": [2.0]},
            {"name": "town", "shape": [1], "datatype": "BYTES", "data": ["Bonn"]},
        ]
        answer = json.loads((await ours.post("/v2/models/homes/infer", json={"inputs": inputs})).text)
        assert (answer["parameters"], answer["outputs"][0]["data"]) == ({"content_type": "pd"}, [2.0])
