from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering import answering
from command import servery
from servery_runtime_shap.model import SHAPExplainer
from servery_sdk.documents import Document
from servery_sdk.model import Protocol
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v2
from servery_sdk.serving import InputError, LoadError

EXAMPLE = Path(__file__).parents[4] / "examples" / "shap-iris"
WEIGHTS = np.array([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]])
BACKGROUND = np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
ROWS = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, -1.0]])


async def explained(folder: Path, answer: Any, instances: Any = None, **options: Any) -> Any:
    np.save(folder / "background.npy", BACKGROUND)
    with answering(lambda body: (200, {"predictions": answer(np.array(body["instances"])).tolist()})) as predictor:
        explainer = SHAPExplainer(predictor_host=predictor.host, **options)
        explainer.load(folder)
        body = json.dumps({"instances": ROWS.tolist() if instances is None else instances}).encode()
        reply = await explainer.reply(Document(model="m", wire=Protocol.V1, body=body, headers={}, explain=True))
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)["explanations"]


@pytest.mark.parametrize("algorithm", ["auto", "exact", "permutation", "kernel"])
async def test_values_of_a_linear_model_are_its_weights_times_the_distance(tmp_path: Path, algorithm: str) -> None:
    found = await explained(tmp_path, lambda rows: rows @ WEIGHTS, algorithm=algorithm)
    expected = (ROWS - BACKGROUND.mean(axis=0))[:, :, None] * WEIGHTS
    np.testing.assert_allclose(found["shap_values"], expected, atol=1e-6)
    np.testing.assert_allclose(found["base_values"], [BACKGROUND.mean(axis=0) @ WEIGHTS] * 2, atol=1e-6)


@pytest.mark.parametrize("form", ["matrix", "columns"])
async def test_v2_brings_a_matrix_or_columns_and_gets_tensors(tmp_path: Path, form: str) -> None:
    np.save(tmp_path / "background.npy", BACKGROUND)
    named = {"x": ROWS} if form == "matrix" else {name: ROWS[:, at] for at, name in enumerate("abc")}
    inputs = tuple(Tensor(name=name, data=data, datatype=Datatype.FP64) for name, data in named.items())
    body = v2.encode_request(InferRequest(model="m", inputs=inputs)).body
    with answering(lambda body: (200, {"predictions": (np.array(body["instances"]) @ WEIGHTS).tolist()})) as predictor:
        explainer = SHAPExplainer(predictor_host=predictor.host)
        explainer.load(tmp_path)
        reply = await explainer.reply(Document(model="m", wire=Protocol.V2, body=body, headers={}, explain=True))
    assert isinstance(reply.body, bytes)
    found = {output.name: output.data for output in v2.decode_response(reply.body).outputs}
    expected = (ROWS - BACKGROUND.mean(axis=0))[:, :, None] * WEIGHTS
    np.testing.assert_allclose(found["shap_values"], expected, atol=1e-6)
    assert found["base_values"].shape == (2, 2)


async def test_columns_of_different_lengths_are_the_clients_fault(tmp_path: Path) -> None:
    np.save(tmp_path / "background.npy", BACKGROUND)
    columns = ("a", ROWS[:, 0]), ("b", ROWS[:1, 1])
    inputs = tuple(Tensor(name=name, data=data, datatype=Datatype.FP64) for name, data in columns)
    body = v2.encode_request(InferRequest(model="m", inputs=inputs)).body
    explainer = SHAPExplainer(predictor_host="127.0.0.1:9")
    explainer.load(tmp_path)
    with pytest.raises(InputError, match=r"inputs differ in rows: \{'a': \[2\], 'b': \[1\]\}"):
        await explainer.reply(Document(model="m", wire=Protocol.V2, body=body, headers={}, explain=True))


async def test_values_and_base_add_up_to_one_number_a_row(tmp_path: Path) -> None:
    found = await explained(tmp_path, lambda rows: rows[:, 0] * rows[:, 1])
    assert np.array(found["shap_values"]).shape == (2, 3)
    sums = np.sum(found["shap_values"], axis=1) + found["base_values"]
    np.testing.assert_allclose(sums, ROWS[:, 0] * ROWS[:, 1], atol=1e-6)


async def test_same_seed_gives_the_same_values(tmp_path: Path) -> None:
    def answer(rows: Any) -> Any:
        return np.sin(rows).prod(axis=1)

    one, other = [await explained(tmp_path, answer, algorithm="permutation", seed=3, max_evals=8) for _ in range(2)]
    assert one == other


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([[1.0, 2.0]], r"must be \[rows, 3\], found \[1, 2\]"),
        ([1.0], r"must be \[rows, 3\], found \[1\]"),
        ([["a", 1, 2]], "must be rows of numbers"),
        ([{"a": 1}], "must be rows of numbers"),
    ],
    ids=["columns", "flat", "texts", "objects"],
)
async def test_wrong_instances_are_the_clients_fault(tmp_path: Path, instances: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        await explained(tmp_path, lambda rows: rows[:, 0], instances)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("other.csv", "1,2", r"background\.npy or background\.json; found: other\.csv"),
        ("background.json", "{}", r"background\.json: KeyError"),
        ("background.json", '{"instances": [1, 2]}', r"a table of numbers \[rows, columns\], is \(2,\)"),
        ("background.npy", "", r"background\.npy: EOFError"),
    ],
    ids=["none", "no-instances", "flat", "corrupt"],
)
def test_background_that_is_none_says_what_it_should_be(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LoadError, match=words):
        SHAPExplainer(predictor_host="there").load(tmp_path)


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_example_explains_two_irises_by_their_petals() -> None:
    files = ("-f", str(EXAMPLE / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    done = servery("predict", *files, "--explain")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["explanations"]
    np.testing.assert_allclose(np.sum(found["shap_values"], axis=1) + found["base_values"], [1, 1], atol=1e-6)
    sepals, petals = np.abs(np.array(found["shap_values"])).reshape(2, 2, 2).sum(axis=2).T
    assert (petals > sepals).all()
