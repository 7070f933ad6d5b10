from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from answering import answering
from command import servery
from servery_runtime_art.model import ARTExplainer
from servery_sdk.documents import Document
from servery_sdk.model import Protocol
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v2
from servery_sdk.serving import InputError

EXAMPLE = Path(__file__).parents[4] / "examples" / "art-digits"
REQUEST = json.loads((EXAMPLE / "request.json").read_text())


@pytest.fixture(scope="module")
def digits() -> Any:
    return joblib.load(EXAMPLE / "model" / "model.joblib")


async def explained(answer: Any, instances: Any, **options: Any) -> Any:
    with answering(lambda body: (200, {"predictions": answer(np.array(body["instances"]))})) as predictor:
        explainer = ARTExplainer(predictor_host=predictor.host, **options)
        body = json.dumps({"instances": instances}).encode()
        reply = await explainer.reply(Document(model="digits", wire=Protocol.V1, body=body, headers={}, explain=True))
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)["explanations"], predictor.asked


async def test_attack_finds_another_image_close_to_the_given_one(digits: Any) -> None:
    found, asked = await explained(lambda rows: digits.predict_proba(rows).tolist(), REQUEST["instances"])
    image, other = np.array(REQUEST["instances"][0]), np.array(found["adversarial_example"])
    assert found["prediction"] == 9
    assert found["adversarial_prediction"] != 9
    assert digits.predict(other.reshape(1, -1))[0] == found["adversarial_prediction"]
    assert other.shape == image.shape
    assert found["L2 error"] == pytest.approx(np.linalg.norm(other - image), abs=1e-5)
    assert np.abs(other - image).max() <= 0.3 + 1e-6
    assert {np.array(body["instances"]).shape for _, _, body in asked} == {(1, 64)}


async def test_v2_brings_image_and_class_as_two_inputs(digits: Any) -> None:
    image, label = (np.array(part, dtype=np.float64) for part in REQUEST["instances"])
    inputs = (
        Tensor(name="image", data=image, datatype=Datatype.FP64),
        Tensor(name="class", data=np.atleast_1d(label), datatype=Datatype.FP64),
    )
    body = v2.encode_request(InferRequest(model="digits", inputs=inputs)).body

    def answer(asked: Any) -> tuple[int, Any]:
        return 200, {"predictions": digits.predict_proba(np.array(asked["instances"])).tolist()}

    with answering(answer) as predictor:
        reply = await ARTExplainer(predictor_host=predictor.host).reply(
            Document(model="digits", wire=Protocol.V2, body=body, headers={}, explain=True)
        )
    assert isinstance(reply.body, bytes)
    found = {output.name: output.data for output in v2.decode_response(reply.body).outputs}
    assert found["adversarial_example"].shape == image.shape
    assert found["prediction"].tolist() == [9] != found["adversarial_prediction"].tolist()


async def test_predictor_may_answer_with_classes_alone() -> None:
    found, _ = await explained(lambda rows: [3] * len(rows), [np.zeros((1, 8, 8, 1)).tolist(), 3], max_iter=2)
    assert (found["prediction"], found["adversarial_prediction"]) == (3, 3)


async def test_image_that_is_answered_otherwise_already_stays() -> None:
    found, _ = await explained(lambda rows: [3] * len(rows), [np.zeros((1, 8, 8, 1)).tolist(), 4], max_iter=2)
    assert found["L2 error"] == 0


async def test_images_keep_their_shape_where_that_is_asked_for() -> None:
    image = np.zeros((1, 8, 8, 1)).tolist()
    _, asked = await explained(lambda rows: [3] * len(rows), [image, 3], max_iter=1, keep_shape=True)
    assert {np.array(body["instances"]).shape for _, _, body in asked} == {(1, 8, 8, 1)}


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([[1]], "an image and its class, found 1 of them"),
        ([[[1.0, 2.0]], 1], r"must be \[1, height, width, channels\], found \[1, 2\]"),
        ([["a"], 1], "must be numbers"),
        ([np.zeros((1, 8, 8, 1)).tolist(), 10], "one of 10 classes, found 10"),
        ([np.zeros((1, 1, 1, 1)).tolist(), 3], r"instances\[0\]: \[1, 1, 1, 1\]"),
    ],
    ids=["one", "shape", "texts", "class", "small"],
)
async def test_wrong_instances_are_the_clients_fault(instances: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        await explained(lambda rows: [3] * len(rows), instances)


@pytest.mark.parametrize("answer", [[11], [[0.5, 0.5]]], ids=["class", "scores"])
async def test_answers_of_other_classes_say_what_to_set(answer: Any) -> None:
    with pytest.raises(InputError, match="the predictor answers"):
        await explained(lambda _: answer, [np.zeros((1, 8, 8, 1)).tolist(), 3])


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_example_turns_a_nine_into_another_digit() -> None:
    files = ("-f", str(EXAMPLE / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    done = servery("predict", *files, "--explain")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["explanations"]
    assert found["prediction"] == 9
    assert found["adversarial_prediction"] != 9
