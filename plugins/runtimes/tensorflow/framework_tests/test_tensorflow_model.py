from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from servery_runtime_tensorflow.model import TensorFlowModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protocol.tfserving.tensors import DATATYPES, TYPES
from servery_sdk.serving import InputError, LoadError
from servery_sdk.signatures import CLASSIFY, PREDICT
from servery_sdk.testing import RuntimeContract

FRAMEWORK = ("tensorflow",)
PLUGIN = "servery_runtime_tensorflow.plugin"
# Keras' own variables do not know numpy 2's keyword yet.
QUIET_KERAS = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def spec(name: str, shape: list[int | None] | None, dtype: Any = tf.float32) -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def save(directory: Path, **functions: tuple[Callable[..., Mapping[str, Any]], list[Any]]) -> Path:
    module = tf.Module()
    made = {name: tf.function(function, input_signature=specs) for name, (function, specs) in functions.items()}
    for name, function in made.items():
        setattr(module, f"function_{name}", function)
    tf.saved_model.save(module, str(directory), signatures=made)
    return directory


def save_line(directory: Path, slope: float) -> Path:
    module = tf.Module()
    module.weights = tf.Variable([[slope], [1.0]])
    module.serve = tf.function(lambda x: {"y": x @ module.weights}, input_signature=[spec("x", [None, 2])])
    tf.saved_model.save(module, str(directory), signatures={"serving_default": module.serve})
    return directory


def served(directory: Path) -> TensorFlowModel:
    loaded = TensorFlowModel()
    loaded.load(directory)
    return loaded


def tensor(name: str, data: Any) -> Tensor:
    array = np.asarray(data)
    return Tensor(name=name, data=array, datatype=Datatype.of(array))


def request(*tensors: Tensor, outputs: tuple[str, ...] = (), **parameters: str) -> InferRequest:
    return InferRequest(model="m", inputs=tensors, outputs=outputs, parameters=parameters)


def f32(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float32)


def texts(*elements: bytes) -> Any:
    return np.array(elements, dtype=object)


class TestOneInput(RuntimeContract):
    plugin = PLUGIN
    framework = FRAMEWORK
    good_request = request(tensor("x", f32([1, 5], [2, 5])))
    good_response = InferResponse(model="m", outputs=(tensor("y", f32([8], [11])),))
    wrong_request = request(tensor("x", f32([1, 2, 3])))

    def write_model(self, directory: Path) -> None:
        save_line(directory, 3.0)

    def write_other_model(self, directory: Path) -> None:
        save_line(directory / "2", 4.0)


class TestSeveralInputsAndOutputs(RuntimeContract):
    plugin = PLUGIN
    framework = FRAMEWORK
    good_request = request(
        tensor("b", f32([1, 1], [2, 2])), tensor("name", texts(b"ada", "bö".encode())), tensor("a", f32([1, 2], [3, 4]))
    )
    good_response = InferResponse(
        model="m",
        outputs=(tensor("greeting", texts(b"ada", "bö".encode())), tensor("sum", f32([2, 3], [5, 6]))),
    )
    wrong_request = request(tensor("a", f32([1, 2, 3])), tensor("b", f32([1, 1])), tensor("name", texts(b"x")))

    def write_model(self, directory: Path) -> None:
        self._write(directory, tf.add)

    def write_other_model(self, directory: Path) -> None:
        self._write(directory, tf.subtract)

    def _write(self, directory: Path, operation: Any) -> None:
        def serve(a: Any, b: Any, name: Any) -> Mapping[str, Any]:
            return {"sum": operation(a, b), "greeting": tf.identity(name)}

        save(
            directory / "1",
            serving_default=(serve, [spec("a", [None, 2]), spec("b", [None, 2]), spec("name", [None], tf.string)]),
        )


class TestFixedBatch(RuntimeContract):
    """A function of two rows takes two, whatever else waits."""

    plugin = PLUGIN
    framework = FRAMEWORK
    batchable = False
    good_request = request(tensor("x", f32([1, 5], [2, 5])))
    good_response = InferResponse(model="m", outputs=(tensor("y", f32(3, 10)),))
    wrong_request = request(tensor("x", f32([1, 2])))

    def write_model(self, directory: Path) -> None:
        save(directory, serving_default=(lambda x: {"y": tf.reduce_sum(x, axis=0)}, [spec("x", [2, 2])]))

    def write_other_model(self, directory: Path) -> None:
        save(directory, serving_default=(lambda x: {"y": tf.reduce_max(x, axis=0)}, [spec("x", [2, 2])]))


@QUIET_KERAS
class TestKeras(RuntimeContract):
    plugin = PLUGIN
    framework = FRAMEWORK
    good_request = request(tensor("x", f32([1, 5], [2, 5])))
    good_response = InferResponse(model="m", outputs=(tensor("output_0", f32([8], [11])),))
    wrong_request = request(tensor("x", f32([1, 2, 3])))

    def write_model(self, directory: Path) -> None:
        keras_line(3.0).save(directory / "model.keras")

    def write_other_model(self, directory: Path) -> None:
        (directory / "1").mkdir()
        keras_line(4.0).save(directory / "1" / "model.keras")


def keras_line(slope: float) -> Any:
    model = tf.keras.Sequential([tf.keras.Input((2,), name="x"), tf.keras.layers.Dense(1, use_bias=False)])
    model.set_weights([f32([slope], [1.0])])
    return model


@QUIET_KERAS
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_keras_older_file_is_served(tmp_path: Path) -> None:
    keras_line(3.0).save(tmp_path / "model.h5")
    (found,) = served(tmp_path).predict(TestKeras.good_request).outputs
    assert found.data.tolist() == [[8.0], [11.0]]


@QUIET_KERAS
def test_code_in_a_keras_file_is_refused(tmp_path: Path) -> None:
    model = tf.keras.Sequential([tf.keras.Input((2,), name="x"), tf.keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(LoadError, match=r"model\.keras: cannot be loaded by TensorFlow .* ValueError: .*`safe_mode"):
        served(tmp_path)


SAMPLES: dict[Datatype, list[Any]] = {
    Datatype.BOOL: [True, False],
    Datatype.BYTES: [b"a", b"\xff\x00"],
    **{datatype: [0, 1] for datatype in Datatype if datatype.startswith(("INT", "UINT"))},
    **{datatype: [0.5, -2.0] for datatype in Datatype if datatype.startswith(("FP", "BF"))},
}


@pytest.mark.parametrize("datatype", Datatype)
def test_every_element_type_goes_in_and_comes_out(datatype: Datatype, tmp_path: Path) -> None:
    kind = tf.dtypes.as_dtype(int(TYPES[datatype]))
    model = served(save(tmp_path, serving_default=(lambda x: {"y": tf.identity(x)}, [spec("x", [None], kind)])))
    sent = Tensor(name="x", data=np.array(SAMPLES[datatype], dtype=datatype.dtype), datatype=datatype)
    (found,) = model.predict(request(sent)).outputs
    assert (found.datatype, found.data.dtype, found.data.tolist()) == (datatype, datatype.dtype, sent.data.tolist())
    assert model.metadata().inputs[0].datatype is datatype


def test_every_element_type_of_the_protocol_has_tensorflows_number() -> None:
    assert set(DATATYPES.values()) == set(Datatype)
    for number, datatype in DATATYPES.items():
        if datatype is not Datatype.BYTES:
            assert tf.dtypes.as_dtype(int(number)).as_numpy_dtype == datatype.dtype


@pytest.mark.parametrize(
    ("shape", "datatype"), [([], tf.float32), ([], tf.string), ([2, 0], tf.float32), ([0], tf.string)], ids=str
)
def test_arrays_without_axes_and_without_elements_keep_their_shape(
    shape: list[int], datatype: Any, tmp_path: Path
) -> None:
    model = served(save(tmp_path, serving_default=(lambda x: {"y": tf.identity(x)}, [spec("x", None, datatype)])))
    data = np.full(shape, b"a" if datatype is tf.string else 1.5, dtype=object if datatype is tf.string else np.float32)
    (found,) = model.predict(request(tensor("x", data))).outputs
    assert (found.data.shape, found.data.tolist()) == (data.shape, data.tolist())
    assert not model.batchable


def test_the_highest_version_is_served_and_told(tmp_path: Path) -> None:
    for version, slope in (("1", 1.0), ("0010", 10.0), ("9", 9.0)):
        save_line(tmp_path / version, slope)
    (tmp_path / "notes").mkdir()
    model = served(tmp_path)
    answer = model.predict(request(tensor("x", f32([1, 0]))))
    assert (answer.version, answer.outputs[0].data.tolist()) == ("10", [[10.0]])
    assert model.metadata().versions == ("10",)


@pytest.fixture
def two(tmp_path: Path) -> TensorFlowModel:
    """A model that adds, and one that multiplies, in one file."""
    ports = [spec("a", [None]), spec("b", [None])]
    return served(
        save(
            tmp_path,
            serving_default=(lambda a, b: {"sum": a + b, "difference": a - b}, ports),
            product=(lambda a, b: {"product": a * b}, ports),
        )
    )


PAIR = (tensor("a", f32(6, 3)), tensor("b", f32(2, 5)))


def test_a_request_says_which_signature_it_wants(two: TensorFlowModel) -> None:
    assert [found.name for found in two.predict(request(*PAIR)).outputs] == ["difference", "sum"]
    (found,) = two.predict(request(*PAIR, signature_name="product")).outputs
    assert (found.name, found.data.tolist()) == ("product", [12.0, 15.0])


def test_an_unknown_signature_is_refused_with_those_that_there_are(two: TensorFlowModel) -> None:
    with pytest.raises(InputError, match=r"signature_name 'q': the model has no such signature; it has: product, serv"):
        two.predict(request(*PAIR, signature_name="q"))


def test_only_the_outputs_that_are_asked_for_are_computed(two: TensorFlowModel) -> None:
    (found,) = two.predict(request(*PAIR, outputs=("sum",))).outputs
    assert (found.name, found.data.tolist()) == ("sum", [8.0, 8.0])


def test_inputs_of_other_names_are_refused_with_the_signatures(two: TensorFlowModel) -> None:
    with pytest.raises(InputError, match=r"inputs \{'a': \[2\]\} are not those of signature 'product': \['a', 'b'\]"):
        two.predict(request(PAIR[0], signature_name="product"))


def test_what_the_signatures_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = served(save(tmp_path, serving_default=(lambda x: {"y": x + 1}, [spec("x", [None], tf.int32)])))
    (found,) = model.predict(request(tensor("input-0", np.array([1.0, 2.0])))).outputs
    assert found.data.tolist() == [2, 3]
    with pytest.raises(InputError, match=r"input 'x' of shape \[1\] is FP64 and holds what INT32, which the graph"):
        model.predict(request(tensor("x", np.array([1.5]))))


def test_a_shape_that_a_node_inside_cannot_use_is_the_callers_fault(two: TensorFlowModel) -> None:
    with pytest.raises(InputError, match=r"inputs \{'a': \[3\], 'b': \[2\]\}: .*Incompatible shapes"):
        two.predict(request(tensor("a", f32(1, 2, 3)), PAIR[1]))


def test_bytes_that_are_no_image_are_the_callers_fault(tmp_path: Path) -> None:
    def decode(image: Any) -> Mapping[str, Any]:
        return {"size": tf.map_fn(lambda one: tf.shape(tf.io.decode_png(one)), image, fn_output_signature=tf.int32)}

    model = served(save(tmp_path, serving_default=(decode, [spec("image", [None], tf.string)])))
    with pytest.raises(InputError, match=r"inputs \{'image': \[1\]\}: .*Unknown image file format"):
        model.predict(request(tensor("image", texts(b"no image"))))


def test_a_model_without_signatures_is_refused_with_how_it_is_saved(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(LoadError, match=r"holds no signature that can be served; .*tf\.saved_model\.save"):
        served(tmp_path)


def test_a_signature_of_what_no_protocol_carries_is_left_out(tmp_path: Path) -> None:
    ports = [spec("x", [None])]
    model = served(
        save(
            tmp_path,
            serving_default=(lambda x: {"y": x}, ports),
            wave=(lambda x: {"y": tf.complex(x, x)}, ports),
        )
    )
    assert list(model.signatures()) == ["serving_default"]


def test_a_lost_file_of_variables_is_named_in_the_frameworks_words(tmp_path: Path) -> None:
    save_line(tmp_path, 3.0)
    (tmp_path / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(LoadError, match=r"cannot be loaded by TensorFlow .*data-00000-of-00001; No such file"):
        served(tmp_path)


def test_a_model_of_tensorflow_1_is_served_by_its_signatures(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image, key = v1.placeholder(tf.string, [None], name="image"), v1.placeholder(tf.string, [None], name="key")
        classes = tf.fill([tf.shape(image)[0], 1], "daisy")
        scores = tf.cast(tf.strings.length(image)[:, None], tf.float32)
        build = v1.saved_model.build_signature_def
        info = v1.saved_model.build_tensor_info
        builder = v1.saved_model.Builder(str(tmp_path / "0002"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": build(
                    {"image_bytes": info(image), "key": info(key)}, {"scores": info(scores), "key": info(key)}, PREDICT
                ),
                "label": build({"inputs": info(image)}, {"classes": info(classes), "scores": info(scores)}, CLASSIFY),
            },
        )
        builder.save()
    model = served(tmp_path)
    answer = model.predict(request(tensor("key", texts(b" 1")), tensor("image_bytes", texts(b"\xff\xd8\xff"))))
    assert {found.name: found.data.tolist() for found in answer.outputs} == {"key": [b" 1"], "scores": [[3.0]]}
    assert model.signatures()["label"].method == CLASSIFY
