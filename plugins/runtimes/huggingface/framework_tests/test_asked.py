"""Models that are asked something about texts, against transformers itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract
from tiny_transformers import reader, write_reader

QUESTIONS = ("the cat", "a dog barked", "rivers run to")
CONTEXTS = ("the cat sat on the mat", "a dog barked at the moon", "rivers run to the sea and the moon on the mat")
LABELS = ("cat", "dog", "the moon")


def column(name: str, values: Sequence[str]) -> Tensor:
    data = np.array([text.encode() for text in values], dtype=object)
    return Tensor(name=name, data=data, datatype=Datatype.BYTES)


def request(*inputs: Tensor, **parameters: Any) -> InferRequest:
    return InferRequest(model="m", inputs=inputs, parameters=parameters)


def response(**outputs: Any) -> InferResponse:
    arrays = {name: np.asarray(data) for name, data in outputs.items()}
    tensors = [Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in arrays.items()]
    return InferResponse(model="m", outputs=tuple(tensors))


def objects(values: Sequence[str]) -> Any:
    return np.array([text.encode() for text in values], dtype=object)


class AskedContract(RuntimeContract):
    plugin = "servery_runtime_huggingface.plugin"
    framework = ("torch", "transformers")
    relative_tolerance = 1e-3
    kind: str
    task: str | None = None

    def write_model(self, directory: Path) -> None:
        write_reader(self.kind, directory)

    def write_other_model(self, directory: Path) -> None:
        write_reader(self.kind, directory, seed=1)

    def _made(self) -> Any:
        return HuggingFaceModel(**({} if self.task is None else {"task": self.task}))


def best_span(question: str, context: str) -> tuple[float, int, int]:
    """The best answer by trying every one, as the pipeline's documentation says it."""
    model, tokenizer = reader("answers")
    read = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = read.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        found = model(**read)
    ids = read.sequence_ids(0)
    kept = [at for at, sequence in enumerate(ids) if sequence == 1 or at == 0]
    start, end = (logits[0, kept].softmax(0) for logits in (found.start_logits, found.end_logits))
    spans = [
        (float(start[first] * end[last]), offsets[kept[first]][0], offsets[kept[last]][1])
        for first in range(1, len(kept))
        for last in range(first, min(first + 15, len(kept)))
    ]
    return max(spans)


SPANS = [best_span(question, context) for question, context in zip(QUESTIONS, CONTEXTS, strict=True)]


class TestAnswers(AskedContract):
    kind = "answers"
    good_request = request(column("question", QUESTIONS), column("context", CONTEXTS))
    good_response = response(
        answer=objects([text[start:end] for (_, start, end), text in zip(SPANS, CONTEXTS, strict=True)]),
        score=np.array([score for score, _, _ in SPANS], np.float32),
        start=np.array([start for _, start, _ in SPANS]),
        end=np.array([end for _, _, end in SPANS]),
    )
    wrong_request = request(column("question", QUESTIONS), column("context", CONTEXTS[:2]))


def zero_shot(*, is_several: bool) -> torch.Tensor:
    model, tokenizer = reader("entails")
    rows = []
    with torch.inference_mode():
        for text in CONTEXTS:
            logits = torch.cat(
                [model(**tokenizer(text, f"This example is {name}.", return_tensors="pt")).logits for name in LABELS]
            )
            rows.append(logits[:, [0, 2]].softmax(-1)[:, 1] if is_several else logits[:, 2].softmax(0))
    return torch.stack(rows)


def ordered(scores: torch.Tensor) -> InferResponse:
    best = scores.topk(scores.shape[1])
    labels = objects([LABELS[number] for row in best.indices.tolist() for number in row])
    return response(label=labels.reshape(best.indices.shape), score=best.values.numpy())


def candidates(rows: int) -> Tensor:
    return Tensor(
        name="candidate_labels", data=objects(LABELS * rows).reshape(rows, len(LABELS)), datatype=Datatype.BYTES
    )


class TestZeroShot(AskedContract):
    kind = "entails"
    task = "zero_shot_classification"
    good_request = request(column("text", CONTEXTS), candidates(3))
    good_response = ordered(zero_shot(is_several=False))
    wrong_request = request(column("text", CONTEXTS), column("candidate_labels", LABELS))


def cosines() -> Any:
    model, tokenizer = reader("embed")
    with torch.inference_mode():
        vectors = [
            [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
            for texts in (QUESTIONS, CONTEXTS)
        ]
    return torch.nn.functional.cosine_similarity(*map(torch.stack, vectors)).numpy()


class TestSimilarity(AskedContract):
    kind = "embed"
    task = "sentence_similarity"
    good_request = request(column("source_sentence", QUESTIONS), column("sentence", CONTEXTS))
    good_response = response(score=cosines())
    wrong_request = request(column("source_sentence", QUESTIONS), column("sentence", CONTEXTS[:1]))


def loaded(kind: str, directory: Path, **options: Any) -> HuggingFaceModel:
    write_reader(kind, directory)
    model = HuggingFaceModel(**options)
    model.load(directory)
    return model


def outputs(model: HuggingFaceModel, asked: InferRequest) -> dict[str, Any]:
    return {one.name: one.data for one in model.predict(asked).outputs}


def test_a_long_context_is_read_in_parts(tmp_path: Path) -> None:
    model = loaded("answers", tmp_path)
    filler = "a dog barked at the moon and " * 30
    question, context = column("question", ["the cat"]), column("context", [filler + CONTEXTS[0]])
    found = outputs(model, request(question, context))
    text = context.data[0].decode()
    assert found["answer"][0].decode() == text[int(found["start"][0]) : int(found["end"][0])] != ""
    short = outputs(model, request(question, context, max_answer_len=1))["answer"][0]
    assert len(short.split()) == 1
    with pytest.raises(
        InputError, match="a question of 80 tokens leaves room for 0 of its context; it takes more than the doc_stride"
    ):
        model.predict(request(column("question", ["the cat " * 40]), context))


def test_an_answer_may_be_that_there_is_none(tmp_path: Path) -> None:
    model = loaded("answers", tmp_path)
    plain = outputs(model, TestAnswers.good_request)
    asked = request(*TestAnswers.good_request.inputs, handle_impossible_answer=True)
    found = outputs(model, asked)
    empty = [text == b"" for text in found["answer"]]
    assert [bool(better) for better in found["score"] > plain["score"]] == empty


def test_classes_may_be_judged_alone_and_named_for_all_rows(tmp_path: Path) -> None:
    model = loaded("entails", tmp_path, task="zero_shot_classification")
    asked = request(column("text", CONTEXTS), candidate_labels=list(LABELS), multi_label=True)
    found, wanted = outputs(model, asked), ordered(zero_shot(is_several=True))
    assert found["label"].tolist() == wanted.outputs[0].data.tolist()
    np.testing.assert_allclose(found["score"], wanted.outputs[1].data, rtol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"candidate_labels": "cat"}, "parameter 'candidate_labels': must be a list of texts, found 'cat'"),
        ({"candidate_labels": ["cat"], "hypothesis_template": "{} {}"}, "must have one {} for the class"),
        ({"candidate_labels": ["cat"], "multi_label": "yes"}, "parameter 'multi_label': must be true or false"),
        ({}, "the model takes 'text' and 'candidate_labels', a row each; found 'text' [3]"),
    ],
)
def test_wrong_classes_are_refused(tmp_path: Path, parameters: dict[str, Any], words: str) -> None:
    model = loaded("entails", tmp_path, task="zero_shot_classification")
    with pytest.raises(InputError) as refused:
        model.predict(request(column("text", CONTEXTS), **parameters))
    assert words in str(refused.value)


def test_a_model_without_entailment_classifies_no_unknown_classes(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has a class 'entailment'; this one's id2label has: label_0, label_1, label_2"):
        loaded("sequence", tmp_path, task="zero_shot_classification")
