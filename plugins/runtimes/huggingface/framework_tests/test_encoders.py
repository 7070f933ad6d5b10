"""Models that read, against transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_sdk.language import EmbeddingModel, RankingModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, v1
from servery_sdk.serving import InputError, LoadError, held
from servery_sdk.testing import RuntimeContract
from tiny_transformers import reader, write_reader

TEXTS = ("the cat sat on the mat", "a dog", "rivers run to the sea and the moon")
MASKED = ("the [MASK] sat on the mat", "a dog barked at the [MASK]", "[MASK] run")


def column(name: str, values: tuple[str, ...]) -> Tensor:
    data = np.array([text.encode() for text in values], dtype=object)
    return Tensor(name=name, data=data, datatype=Datatype.BYTES)


def request(*columns: Tensor, **more: Any) -> InferRequest:
    return InferRequest(model="m", inputs=columns, **more)


def answer(data: Any, name: str = "output-0") -> InferResponse:
    return InferResponse(model="m", outputs=(Tensor(name=name, data=data, datatype=Datatype.of(data)),))


def logits(kind: str, *texts: Any) -> Any:
    """What the model computes for each text alone."""
    model, tokenizer = reader(kind)
    with torch.inference_mode():
        return [model(**tokenizer(*row, return_tensors="pt")) for row in zip(*texts, strict=True)]


class EncoderContract(RuntimeContract):
    plugin = "servery_runtime_huggingface.plugin"
    framework = ("torch", "transformers")
    relative_tolerance = 1e-4
    wrong_request = request(Tensor(name="text", data=np.array([[1.0, 2.0]]), datatype=Datatype.FP64))
    kind: str

    def write_model(self, directory: Path) -> None:
        write_reader(self.kind, directory)

    def write_other_model(self, directory: Path) -> None:
        write_reader(self.kind, directory, seed=1)


class TestSequences(EncoderContract):
    kind = "sequence"
    good_request = request(column("text", TEXTS))
    good_response = answer(np.array([int(found.logits.argmax()) for found in logits("sequence", TEXTS)]))


class TestTokens(EncoderContract):
    kind = "tokens"
    batchable = False
    good_request = request(column("text", TEXTS[:1] * 2))
    good_response = answer(np.stack([found.logits.argmax(-1).numpy() for found in logits("tokens", TEXTS[:1] * 2)]))


def filled() -> Any:
    _, tokenizer = reader("mask")
    found = []
    for text, output in zip(MASKED, logits("mask", MASKED), strict=True):
        at = tokenizer(text)["input_ids"].index(tokenizer.mask_token_id)
        found.append(tokenizer.decode([int(output.logits[0, at].argmax())]).encode())
    return np.array(found, dtype=object)


class TestMasks(EncoderContract):
    kind = "mask"
    good_request = request(column("text", MASKED))
    good_response = answer(filled())


class TestEmbeddings(EncoderContract):
    kind = "embed"
    good_request = request(column("text", TEXTS))
    good_response = answer(
        np.stack(
            [
                torch.nn.functional.normalize(found.last_hidden_state[0].mean(0), dim=0).numpy()
                for found in logits("embed", TEXTS)
            ]
        ),
        name="embedding",
    )


class TestRanks(EncoderContract):
    kind = "rank"
    good_request = request(column("query", ("the cat",) * 3), column("document", TEXTS))
    good_response = answer(
        np.array([float(found.logits.sigmoid()) for found in logits("rank", ("the cat",) * 3, TEXTS)], np.float32),
        name="score",
    )
    wrong_request = request(column("query", ("the cat",)), column("document", TEXTS))


def loaded(kind: str, directory: Path, **options: Any) -> HuggingFaceModel:
    write_reader(kind, directory)
    model = HuggingFaceModel(**options)
    model.load(directory)
    return model


def test_probabilities_of_a_text_are_written_in_v1_as_kserve_does(tmp_path: Path) -> None:
    model = loaded("sequence", tmp_path, return_probabilities=True)
    (row,) = v1.predictions(model.predict(request(column("text", TEXTS[:1]))))
    (found,) = logits("sequence", TEXTS[:1])
    wanted = found.logits.softmax(-1)[0].tolist()
    assert row == {str(label): pytest.approx(value, rel=1e-4) for label, value in enumerate(wanted)}
    assert [output.name for output in model.metadata().outputs] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("kind", "texts", "shape"),
    [("tokens", TEXTS[:1], [1, 8, 3]), ("mask", MASKED[:1], [1, 19]), ("sequence", TEXTS[:1], [1])],
)
def test_raw_logits_are_what_the_model_computes(
    tmp_path: Path, kind: str, texts: tuple[str, ...], shape: list[int]
) -> None:
    model = loaded(kind, tmp_path, return_raw_logits=True)
    outputs = model.predict(request(column("text", texts))).outputs
    (found,) = logits(kind, texts)
    wanted = found.logits[0, 2] if kind == "mask" else found.logits
    if kind == "mask":
        shape = [1, wanted.shape[0]]
    assert [list(output.data.shape) for output in outputs] == [shape] * len(outputs)
    np.testing.assert_allclose(
        np.concatenate([output.data.ravel() for output in outputs]), wanted.numpy().ravel(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "words"), [("no mask", "text 0 has 0 times [MASK]; it takes at least one"), (MASKED[0], None)]
)
def test_a_text_without_a_mask_is_refused(tmp_path: Path, text: str, words: str | None) -> None:
    model = loaded("mask", tmp_path)
    if words is None:
        assert model.predict(request(column("text", (text,)))).outputs[0].data.shape == (1,)
        return
    with pytest.raises(InputError) as refused:
        model.predict(request(column("text", (text,))))
    assert words in str(refused.value)


def test_tokens_are_counted_where_they_are_asked_for(tmp_path: Path) -> None:
    model = loaded("embed", tmp_path)
    asked = request(column("text", TEXTS[:2]), outputs=("embedding", "tokens"))
    counts = {output.name: output.data for output in model.predict(asked).outputs}["tokens"]
    assert counts.tolist() == [8, 4]
    plain = loaded("embed", tmp_path, add_special_tokens=False).predict(asked)
    assert plain.outputs[1].data.tolist() == [6, 2]
    short = loaded("embed", tmp_path, max_length=5).predict(asked)
    assert short.outputs[1].data.tolist() == [5, 4]


def test_abilities_are_those_of_the_task(tmp_path: Path) -> None:
    embeds, ranks = (held(loaded(kind, tmp_path / kind)) for kind in ("embed", "rank"))
    assert isinstance(embeds, EmbeddingModel)
    assert not isinstance(embeds, RankingModel)
    assert isinstance(ranks, RankingModel)
    assert not isinstance(ranks, EmbeddingModel)


def test_a_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    data = np.array([b"\xff"], dtype=object)
    with pytest.raises(InputError, match=r"input 'x' \[1\]: not UTF-8"):
        loaded("embed", tmp_path).predict(request(Tensor(name="x", data=data, datatype=Datatype.BYTES)))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "embed",
            {"task": "sequence_classification"},
            "the files have no weights for classifier.bias, classifier.weight",
        ),
        ("sequence", {"task": "rerank"}, "a ranking model has one label, this has 3"),
        ("sequence", {"max_length": 100}, "--max-length 100: the model takes 64 tokens"),
        ("sequence", {"backend": "vllm"}, "--backend vllm: this runtime is transformers' own"),
        ("sequence", {"model_id": "/no/such/model"}, "/no/such/model: "),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_to_do(
    tmp_path: Path, kind: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadError) as refused:
        loaded(kind, tmp_path, **options)
    assert words in str(refused.value)


def test_an_architecture_that_says_nothing_asks_for_the_task(tmp_path: Path) -> None:
    write_reader("sequence", tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("BertForSequenceClassification", "BertForPoetry"))
    with pytest.raises(
        LoadError, match=r"architectures in config.json: BertForPoetry: .* give --task, one of: .*fill_mask"
    ):
        HuggingFaceModel().load(tmp_path)
    model = HuggingFaceModel(task="sequence_classification")
    model.load(tmp_path)
    assert model.predict(TestSequences.good_request).outputs[0].data.tolist() == (
        TestSequences.good_response.outputs[0].data.tolist()
    )


def test_model_id_is_read_instead_of_the_directory(tmp_path: Path) -> None:
    write_reader("embed", tmp_path / "there")
    model = HuggingFaceModel(model_id=str(tmp_path / "there"))
    model.load(tmp_path)
    assert model.metadata().outputs[0].shape == (-1, 16)
