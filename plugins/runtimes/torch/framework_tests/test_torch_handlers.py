"""Handlers, default and custom, and what TorchServe tells them."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from servery_runtime_torch.model import TorchModel
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v1
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError, Unimplemented

MakeModel = Callable[..., TorchModel]

ECHO = """
class Echo:
    def initialize(self, context):
        self.batch_size = context.system_properties["batch_size"]

    def handle(self, data, context):
        context.metrics.add_counter("calls", 1)
        return [{"row": row, "of": len(data), "id": context.get_request_id(0)} for row in data]
"""


def packed(path: Path, files: dict[str, str | bytes], **said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": path.stem, **said}}))
        for name, content in files.items():
            zipped.writestr(name, content)


def saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    def make(files: dict[str, str | bytes], *, config: str = "", **said: Any) -> TorchModel:
        packed(tmp_path / "model-store" / "m.mar", files, **{"handler": "h.py", **said})
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "config.properties").write_text(config)
        model = TorchModel()
        model.load(tmp_path)
        return model

    return make


def asked(model: TorchModel, instances: list[Any], *, explain: bool = False) -> Any:
    request = v1.decode_request(json.dumps({"instances": instances}).encode(), model="m")
    answer = model.explain(request) if explain else model.predict(request)
    return json.loads(v1.encode_response(answer))["predictions"]


def test_rows_of_a_request_come_as_one_list(make_model: MakeModel) -> None:
    answers = asked(make_model({"h.py": ECHO}), [{"data": "a"}, {"data": "b"}])
    assert [(answer["row"], answer["of"]) for answer in answers] == [({"data": "a"}, 2), ({"data": "b"}, 2)]


def test_batch_size_bounds_the_list(make_model: MakeModel) -> None:
    config = 'models={"m": {"1.0": {"batchSize": 2}}}'
    answers = asked(make_model({"h.py": ECHO}, config=config), [1, 2, 3])
    assert [(answer["row"], answer["of"]) for answer in answers] == [(1, 2), (2, 2), (3, 1)]


def test_batch_size_of_one_keeps_requests_apart_but_not_their_rows(make_model: MakeModel) -> None:
    model = make_model({"h.py": ECHO}, config='models={"m": {"1.0": {"batchSize": 1}}}')
    assert not model.batchable
    assert [answer["of"] for answer in asked(model, [1, 2, 3])] == [3, 3, 3]


def test_function_is_a_handler_that_is_first_called_without_data(make_model: MakeModel) -> None:
    source = """
calls = []


def predict(data, context):
    calls.append(data)
    return None if data is None else [len(calls)] * len(data)
"""
    assert asked(make_model({"h.py": source}, handler="h.py:predict"), [5, 6]) == [2, 2]


def test_v2_envelope_hands_over_the_whole_tensor(make_model: MakeModel) -> None:
    model = make_model({"h.py": ECHO}, config="service_envelope=kservev2")
    assert not model.batchable
    tensor = Tensor(name="x", data=np.ones((1, 2), dtype=np.float32), datatype=Datatype.FP32)
    (output,) = model.predict(InferRequest(model="m", inputs=(tensor,))).outputs
    (answer,) = output.data
    assert json.loads(answer)["row"] == {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1.0, 1.0]]}


def test_versions_are_asked_for_by_name(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and [context.manifest['model']['modelVersion']] * len(data)\n"
    for version in ("1.0", "2.0"):
        said = {"modelName": "m", "modelVersion": version, "handler": "h.py"}
        packed(tmp_path / f"{version}.mar", {"h.py": source}, **said)
    model = TorchModel()
    model.load(tmp_path)
    assert model.metadata().versions == ("1.0", "2.0")
    tensor = Tensor(name="x", data=np.ones(1), datatype=Datatype.FP64)
    answers = [
        model.predict(InferRequest(model="m", inputs=(tensor,), version=version)).outputs[0].data.tolist()
        for version in (None, "1.0", "2.0")
    ]
    assert answers == [[b"1.0"], [b"1.0"], [b"2.0"]]


def test_several_models_are_made_by_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        source = f"def handle(data, context):\n    return data and ['{name} ' + context.model_name] * len(data)\n"
        packed(tmp_path / f"{name}.mar", {"h.py": source}, handler="h.py")
    stored = TorchModel.stored(tmp_path)
    models = {name: make() for name, make in stored.items()}
    for model in models.values():
        model.load(tmp_path)
    assert {name: asked(model, [1]) for name, model in models.items()} == {"one": ["one one"], "two": ["two two"]}  # type: ignore[arg-type]
    with pytest.raises(LoadError, match="several models, each under its own name: one, two"):
        TorchModel().load(tmp_path)


@pytest.mark.parametrize(
    ("raises", "words"),
    [
        ("ValueError('no such colour')", "ValueError: no such colour; the inputs are 'data' [1]"),
        ("KeyError('colour')", "KeyError: 'colour'; the inputs are 'data' [1]"),
        ("PredictionException('too small', 422)", "PredictionException: too small : 422; the inputs are 'data' [1]"),
    ],
)
def test_handler_that_refuses_a_row_makes_it_the_callers_fault(make_model: MakeModel, raises: str, words: str) -> None:
    source = f"""
from ts.utils.util import PredictionException


def handle(data, context):
    if data is not None:
        raise {raises}
"""
    with pytest.raises(InputError) as refused:
        asked(make_model({"h.py": source}), [{"data": "x"}])
    assert str(refused.value) == words


def test_status_that_a_handler_sets_makes_it_the_callers_fault(make_model: MakeModel) -> None:
    source = """
def handle(data, context):
    if data is not None:
        context.set_response_status(413, "too much", 1)
        return [0] * len(data)
"""
    with pytest.raises(InputError, match="too much"):
        asked(make_model({"h.py": source}), [{"data": "x"}, {"data": "y"}])


@pytest.mark.parametrize("raises", ["PredictionException('broken', 503)", "OSError('no disk')", "NotImplementedError"])
def test_handler_that_breaks_does_not_blame_the_caller(make_model: MakeModel, raises: str) -> None:
    source = f"""
from ts.utils.util import PredictionException


def handle(data, context):
    if data is not None:
        raise {raises}
"""
    with pytest.raises(Exception) as failed:  # noqa: PT011  # of three kinds
        asked(make_model({"h.py": source}), [{"data": "x"}])
    assert not isinstance(failed.value, InputError)


@pytest.mark.parametrize(
    ("files", "said", "words"),
    [
        ({"h.py": "import servery_no_such_thing"}, {}, "install servery_no_such_thing beside the model server"),
        ({"h.py": "x = 1"}, {}, "one class with handle.* is expected, found: none"),
        ({"h.py": "x = 1"}, {"handler": "h.py:go"}, "h has no function go"),
        ({}, {"handler": "magic"}, "neither a file of the archive nor a default one: .*image_classifier"),
        ({}, {"handler": "image_classifier"}, "neither serializedFile nor modelFile"),
        ({"h.py": ECHO}, {"requirementsFile": "requirements.txt"}, "which it does not hold"),
        ({"h.py": "def handle(data, context):\n    1 / 0"}, {}, "m.mar: handler 'h.py': ZeroDivisionError"),
    ],
)
def test_archive_that_cannot_be_served_says_why(
    make_model: MakeModel, files: dict[str, str | bytes], said: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        make_model(files, config="install_py_dep_per_model=true", **said)


def test_requirements_are_not_looked_at_where_torchserve_would_not_install_them(make_model: MakeModel) -> None:
    files: dict[str, str | bytes] = {"h.py": ECHO, "requirements.txt": "servery-no-such-thing"}
    assert len(asked(make_model(files, requirementsFile="requirements.txt"), [1])) == 1


def test_handler_that_explains_nothing_says_so(make_model: MakeModel) -> None:
    source = """
from ts.torch_handler.base_handler import BaseHandler


class Silent(BaseHandler):
    def initialize(self, context):
        self.device = None
"""
    with pytest.raises(Unimplemented, match="model 'm' does not explain its answers: Silent has no get_insights"):
        asked(make_model({"h.py": source}), [[1.0]], explain=True)


NETWORK = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(3))

    def forward(self, images):
        return {answer}
"""
MEANS = "images.mean(dim=(2, 3)) @ self.weight"
PIXELS = '{"out": torch.einsum("bchw,cd->bdhw", images, self.weight)}'
BOXES = (
    '[{"labels": torch.tensor([1, 2]), "scores": image.amax(dim=(1, 2))[:2] * self.weight[0, 0], '
    '"boxes": torch.tensor([[0.0, 0.0, image.shape[2], image.shape[1]]]).repeat(2, 1)} for image in images]'
)


def png(*colour: int, size: tuple[int, int] = (300, 280)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def of_default(make_model: MakeModel, handler: str, answer: str, labels: Any) -> TorchModel:
    files: dict[str, str | bytes] = {
        "network.py": NETWORK.format(answer=answer),
        "weights.pt": saved({"weight": torch.eye(3)}),
        "index_to_name.json": json.dumps(labels),
    }
    return make_model(files, handler=handler, modelFile="network.py", serializedFile="weights.pt")


def test_image_classifier_answers_the_most_probable_labels(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from servery_runtime_torch.model.handlers import _torchserve

    with _torchserve():
        import ts.torch_handler.image_classifier as default  # type: ignore[import-not-found]
    monkeypatch.setattr(default.ImageClassifier, "topk", 2)
    model = of_default(make_model, "image_classifier", MEANS, {"0": "red", "1": ["n01", "green"], "2": "blue"})
    red, green = asked(model, [{"data": png(255, 60, 0)}, {"data": png(0, 255, 60)}])
    assert list(red) == ["red", "green"]
    assert list(green) == ["green", "blue"]
    # ImageNet's mean and deviation, then softmax.
    scores = (np.array([255, 60, 0]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert red["red"] == pytest.approx(np.exp(scores[0]) / np.exp(scores).sum(), rel=1e-4)


def test_image_is_base64_in_json_and_bytes_in_a_tensor(make_model: MakeModel) -> None:
    model = of_default(make_model, "image_segmenter", PIXELS, {})
    data = objects([base64.b64decode(png(0, 255, 0))])
    image = InferRequest(model="m", inputs=(Tensor(name="data", data=data, datatype=Datatype.BYTES),))
    (answer,) = model.predict(image).outputs[0].data.tolist()
    assert [answer] == asked(model, [{"data": png(0, 255, 0)}])
    assert [answer] == asked(model, [{"data": {"b64": png(0, 255, 0)}}])


def test_bytes_that_are_no_image_are_the_callers_fault(make_model: MakeModel) -> None:
    model = of_default(make_model, "image_segmenter", PIXELS, {})
    for wrong in ("aGVsbG8=", "not base64!"):
        with pytest.raises(InputError, match=r"the inputs are 'data' \[1\]"):
            asked(model, [{"data": wrong}])


def test_image_segmenter_answers_each_pixels_class(make_model: MakeModel) -> None:
    model = of_default(make_model, "image_segmenter", PIXELS, {})
    (answer,) = np.array(asked(model, [{"data": png(0, 0, 255)}]))[:, ::100, ::100]
    assert answer.shape == (3, 3, 2)
    assert set(answer[..., 0].ravel()) == {2}
    assert ((answer[..., 1] > 0.5) & (answer[..., 1] <= 1)).all()


def test_object_detector_answers_boxes_of_images_that_differ_in_size(make_model: MakeModel) -> None:
    model = of_default(make_model, "object_detector", BOXES, {"object_type_names": ["none", "cat", "dog"]})
    both, one = asked(model, [{"data": png(255, 255, 0, size=(30, 20))}, {"data": png(0, 255, 0, size=(10, 10))}])
    assert both == [{"cat": [0, 0, 30, 20], "score": 1}, {"dog": [0, 0, 30, 20], "score": 1}]
    assert one == [{"dog": [0, 0, 10, 10], "score": 1}]


def test_text_classifier_answers_each_text_as_it_does_alone(make_model: MakeModel) -> None:
    network = """
import torch


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.EmbeddingBag(4, 2)

    def forward(self, numbers, offsets):
        return self.words(numbers, offsets)
"""
    files: dict[str, str | bytes] = {
        "network.py": network,
        "weights.pt": saved({"words.weight": torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 9.0]])}),
        "source_vocab.pt": saved({"good": 1, "bad": 2, "not good": 3}),
        "index_to_name.json": json.dumps({"0": "praise", "1": "blame"}),
    }
    model = make_model(files, handler="text_classifier", modelFile="network.py", serializedFile="weights.pt")
    texts = [{"data": "<b>Good!</b>"}, {"data": "BAD bad"}, {"data": "Isn't good"}]
    together = asked(model, texts)
    assert [max(answer, key=answer.get) for answer in together] == ["praise", "blame", "blame"]
    assert [asked(model, [text])[0] for text in texts] == [pytest.approx(answer) for answer in together]


def test_gradients_explain_a_module_with_its_source(tmp_path: Path) -> None:
    source = "import torch\n\n\nclass Line(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
    (tmp_path / "model.py").write_text(source)
    state = {"weight": torch.tensor([[2.0, 3.0], [5.0, 7.0]]), "bias": torch.zeros(2)}
    torch.save(state, tmp_path / "model.pt")
    model = TorchModel()
    model.load(tmp_path)
    # A line's integrated gradients are weight times input.
    instances = [{"input": [1.0, 10.0], "target": 0}, {"input": [1.0, 10.0], "target": 1}]
    assert asked(model, instances, explain=True) == [pytest.approx([2.0, 30.0]), pytest.approx([5.0, 70.0])]


def test_pickled_module_is_refused_for_what_it_could_do(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import torch\n")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(LoadError, match=r"is no state dict: .* a whole pickled module can run anything"):
        TorchModel().load(tmp_path)


def test_class_is_chosen_by_name_where_there_are_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import torch\n\n\nclass A(torch.nn.Identity):\n    pass\n\n\nclass B(A):\n    pass\n"
    (tmp_path / "model.py").write_text(source)
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(LoadError, match="SERVERY_TORCH_MODEL_CLASS is '', found: A, B"):
        TorchModel().load(tmp_path)
    monkeypatch.setenv("SERVERY_TORCH_MODEL_CLASS", "B")
    model = TorchModel()
    model.load(tmp_path)
    assert asked(model, [[1.5]]) == [[1.5]]
