"""What every runtime's model must do, whatever its framework."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from servery_sdk.manifests import Json
from servery_sdk.model import ComponentKind, Protocol, Runtime
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, TensorMetadata, batch, grpc, v1, v2
from servery_sdk.protocol.elements import to_json
from servery_sdk.protocol.tfserving import grpc as tfserving
from servery_sdk.protos.tensorflow_serving import apis_pb2 as pb
from servery_sdk.serving import ClosableModel, DescribedModel, InputError, LoadError, Model, UnbatchedModel

_IMPORTED = """
import importlib, json, sys
early = importlib.import_module({plugin!r}) and sorted(sys.modules)
importlib.import_module({model!r})
print(json.dumps([early, sorted(sys.modules)]))
"""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_WIRES = {
    "v1": Protocol.V1,
    "v2-json": Protocol.V2,
    "v2-binary": Protocol.V2,
    "grpc": Protocol.GRPC_V2,
    "grpc-v1": Protocol.GRPC_V1,
}


class RuntimeContract:
    """Subclass it as ``Test<Runtime>`` with these, and with ``write_model`` and ``write_other_model``.

    Attributes:
        plugin: Module that the entry point names, ``acme_servery.plugin``.
        framework: Modules that importing ``plugin`` must not import, and that the model's module does.
        name: Of the runtime, where the plugin contributes several.
        good_request: Two rows or more that the model takes; its inputs are named as ``metadata`` names them.
        good_response: Its answer.
        wrong_request: A request of a shape that the model does not take.
        batchable: False where axis 0 is not a batch; the model must say so itself.
        described: False where the model does not know its inputs and outputs; it must then claim none.
        relative_tolerance: Of numbers in answers.
    """

    plugin: ClassVar[str]
    framework: ClassVar[tuple[str, ...]]
    name: ClassVar[str | None] = None
    good_request: ClassVar[InferRequest]
    good_response: ClassVar[InferResponse]
    wrong_request: ClassVar[InferRequest]
    batchable: ClassVar[bool] = True
    described: ClassVar[bool] = True
    relative_tolerance: ClassVar[float] = 1e-6

    def write_model(self, directory: Path) -> None:
        """Put into the empty ``directory`` the model that answers ``good_request`` with ``good_response``."""
        raise NotImplementedError

    def write_other_model(self, directory: Path) -> None:
        """Put into the empty ``directory`` a model that takes ``good_request`` and answers it otherwise."""
        raise NotImplementedError

    def break_model(self, directory: Path) -> None:
        """Make what ``write_model`` wrote unreadable; here every file becomes garbage."""
        for path in directory.rglob("*"):
            if path.is_file():
                path.write_bytes(b"\x00this is not a model\xff")

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Path:
        """The directory of a good model."""
        return self._written(tmp_path / "model", other=False)

    @pytest.fixture
    def other_artifact(self, tmp_path: Path) -> Path:
        """The directory of another good model."""
        return self._written(tmp_path / "other", other=True)

    @pytest.fixture
    def model(self, artifact: Path) -> Model:
        """A loaded model."""
        return self._loaded(artifact)

    @pytest.fixture(autouse=True)
    def _given_back(self) -> Iterator[None]:
        # Every model that a test loads, also where it is not the one that it is about.
        self._held: list[Model] = []
        yield
        for model in self._held:
            if isinstance(model, ClosableModel):
                model.close()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give the protocol test a case for every wire that the descriptor names."""
        if "wire" in metafunc.fixturenames:
            spoken = self.descriptor.protocols or frozenset(Protocol)
            metafunc.parametrize("wire", [wire for wire, protocol in _WIRES.items() if protocol in spoken])

    @property
    def descriptor(self) -> Runtime:
        """What the plugin contributes: its one runtime, or the one of ``name``."""
        found = {runtime.name: runtime for runtime in import_module(self.plugin).servery_runtimes()}
        assert self.name in found or len(found) == 1, f"set name to one of {sorted(found)}"
        runtime: Runtime = found[self.name] if self.name is not None else next(iter(found.values()))
        return runtime

    def test_importing_the_plugin_does_not_import_the_framework(self) -> None:
        module, _, _ = (self.descriptor.model_class or "").partition(":")
        program = _IMPORTED.format(plugin=self.plugin, model=module)
        done = subprocess.run(  # noqa: S603  # our own program
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        early, late = map(set, json.loads(done.stdout.splitlines()[-1]))
        assert set(self.framework) & early == set(), f"importing {self.plugin} imports the framework"
        assert set(self.framework) - late == set(), f"{module} imports no such framework"

    def test_descriptor_says_what_selection_and_the_predictor_need(self) -> None:
        found = self.descriptor
        assert _NAME.fullmatch(found.name), f"{found.name!r} cannot be the name of a ServingRuntime"
        assert found.formats, "a runtime without formats is never chosen"
        assert all(supported.name for supported in found.formats)
        assert found.image, "on a cluster, the runtime is an image"
        container = found.parts[ComponentKind.PREDICTOR].container
        assert container.get("image") == found.image
        assert isinstance(container["ports"][0]["containerPort"], int)
        assert isinstance(self._made(), Model), f"{found.model_class} has no load and predict"

    def test_good_model_gives_the_expected_answer(self, model: Model) -> None:
        self._same(model.predict(self.good_request), self.good_response)

    def test_same_request_again_gets_the_same_answer(self, model: Model) -> None:
        self._same(model.predict(self.good_request), model.predict(self.good_request))

    def test_answer_has_the_element_types_that_it_names(self, model: Model) -> None:
        for output in model.predict(self.good_request).outputs:
            assert output.data.dtype == output.datatype.dtype, output.name
            if output.datatype is Datatype.BYTES:
                assert {type(element) for element in output.data.ravel()} <= {bytes}, output.name

    def test_merged_requests_get_the_answers_that_each_gets_alone(self, model: Model) -> None:
        merges = not isinstance(model, UnbatchedModel) or model.batchable
        assert merges == self.batchable, f"the model says that its requests may{'' if merges else ' not'} be merged"
        if not self.batchable:
            return
        count = batch.rows(self.good_request)
        assert count is not None, "inputs of a batchable model have the batch as axis 0"
        assert count >= 2, "give a request of two rows or more, or a batch is no batch"
        requests = [self.good_request, *(_row(self.good_request, row) for row in range(count))]
        merged = batch.merge(requests, max_batch_rows=2 * count)
        answers = batch.split(model.predict(merged.request), merged.offsets)
        for request, answer in zip(requests, answers, strict=True):
            self._same(answer, model.predict(request))

    def test_metadata_agrees_with_what_goes_in_and_comes_out(self, model: Model) -> None:
        stated = model.metadata() if isinstance(model, DescribedModel) else None
        if not self.described:
            assert stated is None or not stated.inputs + stated.outputs, "described is False, but the model is"
            return
        assert stated is not None, "the model has no metadata(); set described = False if it cannot know"
        self._agrees(stated.inputs, self.good_request.inputs)
        self._agrees(stated.outputs, self.good_response.outputs)

    def test_request_that_does_not_fit_is_refused_by_name_and_shape(self, model: Model) -> None:
        with pytest.raises(InputError) as refused:
            model.predict(self.wrong_request)
        words = str(refused.value)
        shapes = {tensor.name: str(list(tensor.data.shape)) for tensor in self.wrong_request.inputs}
        assert any(name in words and shape in words for name, shape in shapes.items()), f"{shapes} not in: {words}"
        self._same(model.predict(self.good_request), self.good_response)

    def test_broken_model_is_refused_by_its_file(self, artifact: Path) -> None:
        self.break_model(artifact)
        with pytest.raises(LoadError) as refused:
            self._loaded(artifact)
        names = [str(artifact), *(path.name for path in artifact.rglob("*") if path.is_file())]
        assert any(name in str(refused.value) for name in names), f"none of {names} in: {refused.value}"

    @pytest.mark.parametrize("exists", [True, False], ids=["empty-directory", "no-directory"])
    def test_directory_without_a_model_is_refused_by_its_path(self, tmp_path: Path, exists: bool) -> None:
        directory = tmp_path / "nothing-here"
        if exists:
            directory.mkdir()
        with pytest.raises(LoadError) as refused:
            self._loaded(directory)
        assert str(directory) in str(refused.value)

    def test_two_models_do_not_disturb_each_other(self, artifact: Path, other_artifact: Path) -> None:
        first, other, again = map(self._loaded, (artifact, other_artifact, artifact))
        with pytest.raises(AssertionError):
            self._same(other.predict(self.good_request), self.good_response)
        for model in (first, again):
            self._same(model.predict(self.good_request), self.good_response)

    def test_model_loaded_again_answers_anew_while_the_old_one_answers_on(
        self, artifact: Path, other_artifact: Path
    ) -> None:
        old = self._loaded(artifact)
        shutil.rmtree(artifact)
        other_artifact.rename(artifact)
        new = self._loaded(artifact)
        with pytest.raises(AssertionError):
            self._same(new.predict(self.good_request), self.good_response)
        self._same(old.predict(self.good_request), self.good_response)

    def test_models_on_threads_of_their_own_answer_as_each_does_alone(
        self, artifact: Path, other_artifact: Path
    ) -> None:
        # Each on the thread that loaded it, as in the predictor.
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            models = [
                executor.submit(self._loaded, where).result()
                for executor, where in ((first, artifact), (second, other_artifact))
            ]
            alone = [model.predict(self.good_request) for model in models]
            together = [
                [executor.submit(model.predict, self.good_request) for _ in range(50)]
                for executor, model in zip((first, second), models, strict=True)
            ]
            for answers, wanted in zip(together, alone, strict=True):
                for answer in answers:
                    self._same(answer.result(), wanted)

    def test_answer_survives_the_protocol(self, model: Model, wire: str) -> None:
        match wire:
            case "v1":
                columns = {
                    tensor.name: np.asarray(to_json(tensor.data)).tolist() for tensor in self.good_request.inputs
                }
                request = v1.decode_request(json.dumps({"inputs": columns}).encode(), model=self.good_request.model)
                found, wanted = v1.encode_response(model.predict(request)), v1.encode_response(self.good_response)
                self._close(json.loads(found), json.loads(wanted))
            case "grpc":
                request = grpc.decode_request(grpc.encode_request(self.good_request))
                self._same(grpc.decode_response(grpc.encode_response(model.predict(request))), self.good_response)
            case "grpc-v1":
                request = tfserving.decode_predict(tfserving.encode_predict(self.good_request))
                predicted = tfserving.encode_predicted(model.predict(request), pb.ModelSpec())
                self._same(tfserving.decode_predicted(predicted), self.good_response)
            case _:
                body = v2.encode_request(self.good_request, binary=wire == "v2-binary")
                request = v2.decode_request(body.body, model=self.good_request.model, json_length=body.json_length)
                answer = v2.encode_response(model.predict(request), request)
                self._same(v2.decode_response(answer.body, json_length=answer.json_length), self.good_response)

    def _made(self) -> Any:
        module, _, attribute = (self.descriptor.model_class or "").partition(":")
        return getattr(import_module(module), attribute)()

    def _loaded(self, artifact: Path) -> Model:
        model: Model = self._made()
        model.load(artifact)
        self._held.append(model)
        return model

    def _written(self, directory: Path, *, other: bool) -> Path:
        directory.mkdir()
        (self.write_other_model if other else self.write_model)(directory)
        return directory

    def _same(self, found: InferResponse, wanted: InferResponse) -> None:
        described = [
            [(output.name, output.datatype, output.data.shape) for output in response.outputs]
            for response in (found, wanted)
        ]
        assert described[0] == described[1]
        for one, other in zip(found.outputs, wanted.outputs, strict=True):
            self._close(one.data.tolist(), other.data.tolist())

    def _close(self, found: Json, wanted: Json) -> None:
        if isinstance(wanted, list):
            assert isinstance(found, list)
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                self._close(one, other)
        elif isinstance(wanted, dict):
            assert found.keys() == wanted.keys()
            for key in wanted:
                self._close(found[key], wanted[key])
        elif isinstance(wanted, float):
            assert found == pytest.approx(wanted, rel=self.relative_tolerance, nan_ok=True)
        else:
            assert found == wanted

    def _agrees(self, stated: Sequence[TensorMetadata], tensors: Sequence[Tensor]) -> None:
        by_name = {tensor.name: tensor for tensor in tensors}
        assert sorted(tensor.name for tensor in stated) == sorted(by_name)
        for said in stated:
            found = by_name[said.name]
            assert said.datatype is found.datatype, said.name
            assert len(said.shape) == found.data.ndim, said.name
            assert all(length in (-1, real) for length, real in zip(said.shape, found.data.shape, strict=True)), said
            assert not self.batchable or said.shape[0] == -1, f"{said.name}: any number of rows is -1"


def _row(request: InferRequest, row: int) -> InferRequest:
    inputs = tuple(replace(tensor, data=tensor.data[row : row + 1]) for tensor in request.inputs)
    return replace(request, inputs=inputs)
