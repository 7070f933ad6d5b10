"""The contracts themselves: each of their tests passes for a right plugin, and fails for one that breaks its rule."""

from __future__ import annotations

import copy
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
from servery_dialect_kserve.plugin import KServeDialect
from servery_mode_raw.plugin import RawMode
from servery_sdk import kinds
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid, Permanent, Transient
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import (
    Catalog,
    DeploymentPlan,
    InferenceService,
    Protocol,
    Readiness,
    ServiceStatus,
    SupportedFormat,
    Workload,
)
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.runtimes import predictor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri, path_below
from servery_sdk.testing import (
    DialectContract,
    ModeContract,
    PrefixStorageContract,
    RemoteStorageContract,
    RuntimeContract,
    Source,
    WrongManifest,
)

_C = TypeVar("_C", bound=type)
BROKEN: set[str] = set()
"""Tests that have failed for somebody."""


def breaks(test: str, raises: type[BaseException] = AssertionError) -> Callable[[_C], _C]:
    """Of a contract's subclass with a wrong plugin, keep the one test, which must fail."""

    def keep(contract: _C) -> _C:
        assert callable(getattr(contract, test))
        for name in [name for name in dir(contract) if name.startswith("test_") and name != test]:
            setattr(contract, name, None)
        contract.pytestmark = [pytest.mark.xfail(strict=True, raises=(raises, pytest.fail.Exception))]
        BROKEN.add(test)
        return contract

    return keep


@pytest.mark.parametrize(
    "contract",
    [RuntimeContract, PrefixStorageContract, RemoteStorageContract, DialectContract, ModeContract],
    ids=lambda contract: contract.__name__,
)
def test_every_test_of_a_contract_fails_for_some_plugin(contract: type) -> None:
    assert {name for name in dir(contract) if name.startswith("test_")} - BROKEN == set()


# Runtimes


class Scale:
    """Rows of two, times what a file says. A right model."""

    def load(self, artifact: Path) -> None:
        try:
            self.by = float((artifact / "scale.txt").read_text())
        except (OSError, ValueError) as error:
            raise LoadError(f"{artifact}/scale.txt: {error}") from error

    def predict(self, request: InferRequest) -> InferResponse:
        (x,) = request.inputs
        if x.data.ndim != 2 or x.data.shape[1] != 2:
            raise InputError(f"input {x.name!r} has shape {list(x.data.shape)}; the model takes [rows, 2]")
        return InferResponse(model=request.model, outputs=(tensor("y", x.data * self.by),))

    def metadata(self) -> ModelMetadata:
        def described(name: str) -> tuple[TensorMetadata, ...]:
            return (TensorMetadata(name=name, datatype=Datatype.FP64, shape=(-1, 2)),)

        return ModelMetadata(name="", platform="acme", inputs=described("x"), outputs=described("y"))


def tensor(name: str, data: Any) -> Tensor:
    return Tensor(name=name, data=np.asarray(data, dtype=float), datatype=Datatype.FP64)


def runtime(model: type, **changes: Any) -> str:
    """Return the name of a plugin's module that contributes ``model``."""
    module = ModuleType(f"servery_test_{model.__name__.lower()}_{len(sys.modules)}")
    described = predictor("acme", model_class=f"{module.__name__}:Model", formats=[SupportedFormat(name="acme")])
    vars(module).update(Model=model, servery_runtimes=lambda: [replace(described, **changes)])
    sys.modules[module.__name__] = module
    return module.__name__


class Scaled(RuntimeContract):
    plugin = runtime(Scale)
    framework = ()
    good_request = InferRequest(model="m", inputs=(tensor("x", [[1, 2], [3, 4]]),))
    good_response = InferResponse(model="m", outputs=(tensor("y", [[2, 4], [6, 8]]),))
    wrong_request = InferRequest(model="m", inputs=(tensor("x", [[1, 2, 3]]),))

    def write_model(self, directory: Path) -> None:
        (directory / "scale.txt").write_text("2")

    def write_other_model(self, directory: Path) -> None:
        (directory / "scale.txt").write_text("3")


class TestRightRuntime(Scaled):
    # A module without a file cannot be imported in another process; the runtimes of the repository are.
    test_importing_the_plugin_does_not_import_the_framework = None  # type: ignore[assignment]


@breaks("test_importing_the_plugin_does_not_import_the_framework")
class TestImportsItsFramework(Scaled):
    plugin = "servery_runtime_sklearn.model"
    framework = ("sklearn",)
    descriptor = predictor("acme", model_class="servery_runtime_sklearn.model:SKLearnModel", formats=[])  # type: ignore[assignment]


@breaks("test_importing_the_plugin_does_not_import_the_framework")
class TestNamesNoFramework(Scaled):
    plugin = "servery_runtime_sklearn.plugin"
    framework = ("skleanr",)


@breaks("test_descriptor_says_what_selection_and_the_predictor_need")
class TestHasNoFormats(Scaled):
    plugin = runtime(Scale, formats=())


@breaks("test_descriptor_says_what_selection_and_the_predictor_need")
class TestIsNoModel(Scaled):
    plugin = runtime(object)


class WrongAnswer(Scale):
    def predict(self, request: InferRequest) -> InferResponse:
        return replace(super().predict(request), outputs=(tensor("z", [[2, 4], [6, 8]]),))


@breaks("test_good_model_gives_the_expected_answer")
class TestNamesItsOutputOtherwise(Scaled):
    plugin = runtime(WrongAnswer)


class Remembers(Scale):
    def predict(self, request: InferRequest) -> InferResponse:
        self.by += 1
        return super().predict(request)


@breaks("test_same_request_again_gets_the_same_answer")
class TestRemembersRequests(Scaled):
    plugin = runtime(Remembers)


class NarrowAnswer(Scale):
    def predict(self, request: InferRequest) -> InferResponse:
        (y,) = super().predict(request).outputs
        return InferResponse(model="m", outputs=(replace(y, data=y.data.astype(np.float32)),))


@breaks("test_answer_has_the_element_types_that_it_names")
class TestAnswersInAnotherType(Scaled):
    plugin = runtime(NarrowAnswer)


class Normalized(Scale):
    def predict(self, request: InferRequest) -> InferResponse:
        (x,) = request.inputs
        return InferResponse(model="m", outputs=(tensor("y", x.data / x.data.max()),))


@breaks("test_merged_requests_get_the_answers_that_each_gets_alone")
class TestMixesRows(Scaled):
    plugin = runtime(Normalized)


class Unmerged(Scale):
    batchable = False


@breaks("test_merged_requests_get_the_answers_that_each_gets_alone")
class TestRefusesToBeMerged(Scaled):
    plugin = runtime(Unmerged)


class Misdescribed(Scale):
    def metadata(self) -> ModelMetadata:
        found = super().metadata()
        return replace(found, inputs=(replace(found.inputs[0], shape=(-1, 3)),))


@breaks("test_metadata_agrees_with_what_goes_in_and_comes_out")
class TestDescribesAnotherShape(Scaled):
    plugin = runtime(Misdescribed)


class Bare(Scale):
    def predict(self, request: InferRequest) -> InferResponse:
        try:
            return super().predict(request)
        except InputError as error:
            raise InputError("does not fit") from error


@breaks("test_request_that_does_not_fit_is_refused_by_name_and_shape")
class TestSaysNotWhatDoesNotFit(Scaled):
    plugin = runtime(Bare)


class Unguarded(Scale):
    def load(self, artifact: Path) -> None:
        self.by = float((artifact / "scale.txt").read_text())


@breaks("test_broken_model_is_refused_by_its_file", ValueError)
class TestLetsTheFrameworksErrorPass(Scaled):
    plugin = runtime(Unguarded)


@breaks("test_directory_without_a_model_is_refused_by_its_path", FileNotFoundError)
class TestLetsTheSystemsErrorPass(Scaled):
    plugin = runtime(Unguarded)


class Shared(Scale):
    loaded: tuple[float, ...] = ()

    def load(self, artifact: Path) -> None:
        super().load(artifact)
        Shared.loaded = (self.by, *Shared.loaded)

    def predict(self, request: InferRequest) -> InferResponse:
        self.by = max(Shared.loaded)
        return super().predict(request)


@breaks("test_two_models_do_not_disturb_each_other")
class TestKeepsItsModelInTheClass(Scaled):
    plugin = runtime(Shared)


class Late(Scale):
    def load(self, artifact: Path) -> None:
        super().load(artifact)
        self.artifact = artifact

    def predict(self, request: InferRequest) -> InferResponse:
        self.by = float((self.artifact / "scale.txt").read_text())
        return super().predict(request)


@breaks("test_model_loaded_again_answers_anew_while_the_old_one_answers_on")
class TestReadsItsFileWhenAsked(Scaled):
    plugin = runtime(Late)


class SharedScratch(Scale):
    scratch = 0.0
    both = threading.Barrier(2, timeout=30)

    def predict(self, request: InferRequest) -> InferResponse:
        by, SharedScratch.scratch = self.by, self.by
        if threading.current_thread() is not threading.main_thread():
            self.both.wait()
        self.by = SharedScratch.scratch
        try:
            return super().predict(request)
        finally:
            self.by = by


@breaks("test_models_on_threads_of_their_own_answer_as_each_does_alone")
class TestSharesItsScratch(Scaled):
    plugin = runtime(SharedScratch)


class InPlace(Scale):
    def predict(self, request: InferRequest) -> InferResponse:
        request.inputs[0].data[...] *= 1  # type: ignore[index]
        return super().predict(request)


@breaks("test_answer_survives_the_protocol", ValueError)
class TestWritesIntoTheRequest(Scaled):
    plugin = runtime(InPlace, protocols=frozenset({Protocol.GRPC_V2}))


# Storage providers


class Shelf:
    """Objects by path, each with its version."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self._versions = map(str, itertools.count())

    def uri(self, path: str) -> str:
        return f"shelf://all/{path}"

    def put(self, path: str, content: bytes) -> None:
        self.objects[path] = (content, next(self._versions))

    def remove(self, path: str) -> None:
        del self.objects[path]


class ShelfProvider:
    """A right provider."""

    name = "shelf"
    schemes = frozenset({"shelf"})

    def __init__(self, shelf: Shelf | None) -> None:
        self.shelf = shelf

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        if self.shelf is None:
            raise Transient(f"{uri}: closed")
        for path, (content, version) in self.shelf.objects.items():
            below = path_below(path, uri.path.rstrip("/"))
            if below is not None and not path.endswith("/"):
                yield StorageEntry(path=below, source=path, size_bytes=len(content), version=version)

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        assert self.shelf is not None
        content, _ = self.shelf.objects.get(entry.source, (None, ""))
        if content is None:
            raise Permanent(f"{entry.source}: gone")
        sink.write(content[offset:])


class Shelved(PrefixStorageContract, RemoteStorageContract):
    kind: type[ShelfProvider] = ShelfProvider

    @pytest.fixture
    def source(self) -> Source:
        return Shelf()

    @pytest.fixture
    def provider(self, source: Shelf) -> StorageProvider:  # type: ignore[override]
        return self.kind(source)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return self.kind(None), "shelf://all/llm"


class TestRightStorageProvider(Shelved):
    pass


class Elsewhere(ShelfProvider):
    schemes = frozenset({"self"})


@breaks("test_provider_answers_for_its_uris")
class TestAnswersForAnotherScheme(Shelved):
    kind = Elsewhere


class Prefixed(ShelfProvider):
    """Takes all that begins alike: siblings too."""

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        assert self.shelf is not None
        for path, (content, version) in self.shelf.objects.items():
            if path.startswith(uri.path.rstrip("/")) and not path.endswith("/"):
                below = path_below(path, uri.path.rstrip("/")) or path
                yield StorageEntry(path=below, source=path, size_bytes=len(content), version=version)


@breaks("test_uri_of_one_object_lists_that_object", ValueError)
class TestListsWhatBeginsLikeAnObject(Shelved):
    kind = Prefixed


@breaks("test_prefix_takes_all_below_it_and_never_a_sibling")
class TestListsSiblings(Shelved):
    kind = Prefixed


class Changed(ShelfProvider):
    """Changes every entry that is listed."""

    numbers = itertools.count()

    def change(self, entry: StorageEntry) -> StorageEntry:
        return replace(entry, version=str(next(self.numbers)))

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        async for entry in super().list(uri):
            yield self.change(entry)


@breaks("test_listing_twice_gives_the_same")
class TestVersionsItsAnswers(Shelved):
    kind = Changed


@breaks("test_prefix_listed_twice_gives_the_same")
class TestVersionsItsListings(Shelved):
    kind = Changed


class Garbled(ShelfProvider):
    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        await super().fetch(entry, sink, offset=offset)
        sink.write(b"\n")


@breaks("test_object_is_read_from_an_offset")
class TestAddsToAnObject(Shelved):
    kind = Garbled


@breaks("test_every_entry_is_read_as_what_it_is")
class TestAddsToEveryObject(Shelved):
    kind = Garbled


class Full(Changed):
    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        async for entry in ShelfProvider.list(self, uri):
            if entry.size_bytes:
                yield entry


@breaks("test_empty_object_is_listed_and_read", ValueError)
class TestForgetsEmptyObjects(Shelved):
    kind = Full


class Timeless(Changed):
    def change(self, entry: StorageEntry) -> StorageEntry:
        return replace(entry, version="1")


@breaks("test_version_stays_with_the_object_and_changes_with_it")
class TestVersionsNothing(Shelved):
    kind = Timeless


class Inventive(ShelfProvider):
    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        yield StorageEntry(path="made-up", source="made-up")


@breaks("test_object_that_was_never_there_is_permanently_missing")
class TestListsWhatIsNotThere(Shelved):
    kind = Inventive


class Unsaid(ShelfProvider):
    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        try:
            await super().fetch(entry, sink, offset=offset)
        except (Permanent, OSError) as error:
            raise Permanent("it did not work") from error


@breaks("test_object_that_went_away_is_permanently_missing")
class TestSaysNotWhatIsMissing(Shelved):
    kind = Unsaid


@breaks("test_error_of_the_disk_passes_unchanged", Permanent)
class TestTakesTheDiskForTheSource(Shelved):
    kind = Unsaid


class Sometimes(Changed):
    def change(self, entry: StorageEntry) -> StorageEntry:
        return replace(entry, version=None) if entry.path == "model.bin" else entry


@breaks("test_entries_are_versioned_all_or_none")
class TestVersionsSome(Shelved):
    kind = Sometimes


class Upward(Changed):
    def change(self, entry: StorageEntry) -> StorageEntry:
        return replace(entry, path=f"../llm/{entry.path}")


@breaks("test_paths_are_relative_and_lead_nowhere_else")
class TestLeadsOut(Shelved):
    kind = Upward


class Final(ShelfProvider):
    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        raise Permanent(f"{uri}: closed")
        yield


@breaks("test_server_that_does_not_answer_may_answer_later", Permanent)
class TestGivesUp(Shelved):
    kind = Final


# Dialects

GROUP = "serving.kserve.io"
SERVICE: Manifest = {
    "apiVersion": f"{GROUP}/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "iris", "namespace": "demo"},
    "spec": {"predictor": {"sklearn": {"storageUri": "s3://a/b"}}},
}
RUNTIMES: Mapping[str, Manifest] = {
    kind: {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": kind,
        "metadata": {"name": "acme"},
        "spec": {"containers": [{"name": "a", "image": "i"}]},
    }
    for kind in ("ServingRuntime", "ClusterServingRuntime")
}
BAD: Manifest = {**SERVICE, "spec": {"predictor": {"sklearn": {"storageUri": 1}, "minReplicas": -1}}}


class Spoken(DialectContract):
    dialect: Any = KServeDialect()
    good: ClassVar = {"service": SERVICE, **RUNTIMES}
    wrong: ClassVar = {"bad": WrongManifest(BAD, ("spec.predictor.minReplicas", "spec.predictor.sklearn.storageUri"))}


class TestRightDialect(Spoken):
    pass


class Serviced(Spoken):
    """With services only: what is wrong with them alone must not pass for runtimes."""

    good: ClassVar = {"service": SERVICE}


@breaks("test_every_kind_has_a_good_manifest")
class TestShowsOneKind(Serviced):
    pass


class Changing(KServeDialect):
    """Changes what ``parse`` returns."""

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        return self.change(super().parse(manifest, catalog))

    def change(self, found: InferenceService) -> InferenceService:
        raise NotImplementedError

    @staticmethod
    def component(found: InferenceService, **changes: Any) -> InferenceService:
        return replace(found, components=(replace(found.predictor, **changes),))


class Renamed(Changing):
    def change(self, found: InferenceService) -> InferenceService:
        return replace(found, ref=replace(found.ref, name="other"))


@breaks("test_good_manifest_is_taken")
class TestRenamesServices(Serviced):
    dialect = Renamed()


class Defaulting(KServeDialect):
    """Writes into the manifest."""

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        manifest["metadata"]["seen"] = "true"
        return super().parse(manifest, catalog)

    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        manifest["metadata"]["seen"] = "true"
        return super().references(manifest)


@breaks("test_parse_is_deterministic_and_leaves_its_argument_alone")
class TestWritesIntoItsArgument(Serviced):
    dialect = Defaulting()
    good: ClassVar = {"service": copy.deepcopy(SERVICE)}


@breaks("test_references_are_deterministic_and_leave_the_manifest_alone")
class TestWritesWhileItRefers(Serviced):
    dialect = Defaulting()
    good: ClassVar = {"service": copy.deepcopy(SERVICE)}


class Trusting(KServeDialect):
    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        return frozenset(manifest["spec"]["predictor"]["sklearn"]["storageUri"][:0])

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        assert isinstance(manifest["spec"]["predictor"], dict)
        return super().parse(manifest, catalog)


@breaks("test_references_of_anything_are_references", Exception)
class TestRefersByTrust(Spoken):
    dialect = Trusting()


@breaks("test_no_value_in_any_place_is_a_surprise", Exception)
class TestTakesValuesByTrust(Serviced):
    dialect = Trusting()


@breaks("test_parse_of_anything_returns_or_says_what_is_wrong", Exception)
class TestParsesByTrust(Spoken):
    dialect = Trusting()


class Contradicting(Changing):
    def change(self, found: InferenceService) -> InferenceService:
        return self.component(found, selector={"component": "other"})


@breaks("test_selector_agrees_with_the_labels_that_pods_get")
class TestSelectsOtherPods(Serviced):
    dialect = Contradicting()


class Uniform(Changing):
    def change(self, found: InferenceService) -> InferenceService:
        return self.component(found, selector={"app": "isvc"})


@breaks("test_services_of_other_names_are_told_apart")
class TestSelectsEveryService(Serviced):
    dialect = Uniform()


class Lengthy(Changing):
    def change(self, found: InferenceService) -> InferenceService:
        return self.component(found, selector={"app": f"isvc.{found.predictor.object_name}"})


@breaks("test_names_and_label_values_fit_or_the_manifest_is_refused")
class TestLabelsAreTooLong(Serviced):
    dialect = Lengthy()


class Redefined(KServeDialect):
    """Changes its definitions."""

    def crds(self) -> tuple[Manifest, ...]:
        found: Any = copy.deepcopy(tuple(super().crds()))
        self.change(found[0], found[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])
        return found

    def change(self, crd: Any, properties: Any) -> None:
        raise NotImplementedError


class Missing(Redefined):
    def change(self, crd: Any, properties: Any) -> None:
        crd["spec"]["names"]["kind"] = "Other"


@breaks("test_definitions_cover_every_kind")
class TestDefinesAnotherKind(Spoken):
    dialect = Missing()


class Ambiguous(KServeDialect):
    models = KServeDialect.runtimes


@breaks("test_a_kind_has_one_meaning")
class TestTakesARuntimeForAModel(Spoken):
    dialect = Ambiguous()


class Misnamed(Redefined):
    def change(self, crd: Any, properties: Any) -> None:
        crd["metadata"]["name"] = "isvc"


@breaks("test_definitions_are_as_an_api_server_takes_them")
class TestNamesItsDefinitionsFreely(Spoken):
    dialect = Misnamed()


class Untyped(Redefined):
    def change(self, crd: Any, properties: Any) -> None:
        properties["spec"]["properties"]["predictor"]["properties"]["more"] = {}


@breaks("test_schemas_are_structural")
class TestLeavesATypeOut(Spoken):
    dialect = Untyped()


class Narrow(Redefined):
    def change(self, crd: Any, properties: Any) -> None:
        del properties["spec"]["properties"]["predictor"]["properties"]["sklearn"]


@breaks("test_good_manifest_fits_its_definition")
class TestDefinesLessThanItTakes(Serviced):
    dialect = Narrow()


class Statusless(Redefined):
    def change(self, crd: Any, properties: Any) -> None:
        del crd["spec"]["versions"][0]["subresources"]


@breaks("test_services_have_a_status_of_their_own")
class TestHasNoStatus(Spoken):
    dialect = Statusless()


class Hasty(KServeDialect):
    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        try:
            return super().parse(manifest, catalog)
        except Invalid as refused:
            raise Invalid(refused.errors[:1]) from refused


@breaks("test_wrong_manifest_gets_all_its_errors_where_they_are")
class TestSaysTheFirstErrorOnly(Spoken):
    dialect = Hasty()


class Astray(KServeDialect):
    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        raise Invalid([FieldError(path="spec.engine.runner", kind=FieldErrorKind.INVALID)])


@breaks("test_wrong_manifest_gets_all_its_errors_where_they_are")
class TestPointsNowhere(Spoken):
    dialect = Astray()
    wrong: ClassVar = {"bad": WrongManifest(BAD, ("spec.engine.runner",))}


class Written(KServeDialect):
    """Changes what ``write`` returns."""

    def write(self, meant: InferenceService) -> tuple[Manifest, ...]:
        found: Any = copy.deepcopy(super().write(meant))
        self.change(found[0]["spec"]["predictor"])
        return tuple(found)

    def change(self, predictor: Any) -> None:
        raise NotImplementedError


class Forgetful(Written):
    def change(self, predictor: Any) -> None:
        del predictor["model"]["storageUri"]


@breaks("test_service_that_is_written_again_means_the_same")
class TestForgetsTheModel(Serviced):
    dialect = Forgetful()


class Fanciful(Written):
    def change(self, predictor: Any) -> None:
        predictor["storage"] = ("s3://a/b",)


@breaks("test_written_manifests_are_json_that_fits_the_definitions")
class TestWritesFieldsOfItsOwn(Serviced):
    dialect = Fanciful()


class Silent(KServeDialect):
    def write(self, meant: InferenceService) -> tuple[Manifest, ...]:
        raise Invalid([FieldError(path=meant.predictor.field_path, kind=FieldErrorKind.FORBIDDEN)])


@breaks("test_service_that_can_be_said_again_is_among_the_good")
class TestWritesNothing(Serviced):
    dialect = Silent()


class Worded(KServeDialect):
    def status(self, found: ServiceStatus) -> Mapping[str, Json]:
        return {**super().status(found), "observedGeneration": str(found.observed_generation)}


@breaks("test_status_is_json_that_fits_the_definition")
class TestCountsInWords(Spoken):
    dialect = Worded()


class Unconditional(KServeDialect):
    def status(self, found: ServiceStatus) -> Mapping[str, Json]:
        return {key: value for key, value in super().status(found).items() if key != "conditions"}


@breaks("test_status_has_its_conditions_in_kubernetes_own_form", raises=KeyError)
class TestSaysNotWhatIsTrue(Spoken):
    dialect = Unconditional()


# Modes


class TestRightMode(ModeContract):
    mode = RawMode()


class Altered(RawMode):
    """Changes what the raw mode renders."""

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        found: Any = copy.deepcopy(super().render(plan))
        for rendered in found:
            self.alter(rendered, rendered["spec"].get("template"))
        return tuple(found)

    def alter(self, rendered: Any, template: Any) -> None:
        raise NotImplementedError


class Random(Altered):
    numbers = itertools.count()

    def alter(self, rendered: Any, template: Any) -> None:
        rendered["metadata"]["labels"]["number"] = str(next(self.numbers))


@breaks("test_rendering_is_deterministic_and_leaves_the_plan_alone")
class TestNumbersItsObjects(ModeContract):
    mode = Random()


class Tuples(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        rendered["metadata"]["finalizers"] = ("a",)


@breaks("test_objects_are_json")
class TestRendersTuples(ModeContract):
    mode = Tuples()


class Orphans(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        rendered["metadata"]["ownerReferences"] = [{}]


@breaks("test_every_object_is_named_owned_and_labelled")
class TestOwnsNothing(ModeContract):
    mode = Orphans()


class Longer(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        rendered["metadata"]["name"] += "-predictor"


@breaks("test_every_object_is_named_owned_and_labelled")
class TestLengthensNames(ModeContract):
    mode = Longer()


class Greedy(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        if rendered["kind"] == "Service":
            rendered["spec"]["selector"] = {"no": "pods"}


@breaks("test_selector_selects_the_pods_of_one_template")
class TestSelectsNothing(ModeContract):
    mode = Greedy()


class Mounting(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        if template:
            template["spec"]["containers"][0].setdefault("volumeMounts", []).append({"name": "not-there"})


@breaks("test_every_mount_has_a_volume")
class TestMountsNothing(ModeContract):
    mode = Mounting()


class Retagged(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        if template:
            template["spec"]["containers"][0]["image"] = "acme/other:2"


@breaks("test_pod_of_every_workload_runs_as_planned")
class TestRunsAnotherImage(ModeContract):
    mode = Retagged()


class Unlabelled(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        if template:
            template["metadata"]["labels"] = rendered["spec"]["selector"]["matchLabels"]


@breaks("test_pods_carry_the_labels_and_annotations_of_their_workload")
class TestLabelsPodsLess(ModeContract):
    mode = Unlabelled()


class Restless(RawMode):
    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        return super().render(replace(plan, stopped=False))


@breaks("test_stopped_service_has_no_pods")
class TestRunsOn(ModeContract):
    mode = Restless()


class Demanding(Altered):
    def alter(self, rendered: Any, template: Any) -> None:
        if template:
            rendered["apiVersion"] = "serving.knative.dev/v1"


@breaks("test_objects_need_no_more_of_a_cluster_than_it_has")
class TestNeedsMoreThanItSays(ModeContract):
    mode = Demanding()


class Unnamed(RawMode):
    kinds = RawMode.kinds - {kinds.SERVICE}


@breaks("test_objects_are_of_the_kinds_that_it_names")
class TestHidesAKind(ModeContract):
    mode = Unnamed()


class Trusting(RawMode):
    def readiness(self, workload: Workload, found: Mapping[ObjectRef, Manifest]) -> Readiness:
        for deployment in found.values():
            assert isinstance(deployment["status"], dict), "not what a Deployment says"
        return super().readiness(workload, found)


@breaks("test_readiness_is_total")
class TestTrustsTheCluster(ModeContract):
    mode = Trusting()
