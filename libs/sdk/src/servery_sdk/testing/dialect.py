"""What every dialect must do, whatever its words."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servery_sdk import intent, kinds, schema
from servery_sdk.contract import Dialect
from servery_sdk.errors import FieldErrorKind, Invalid
from servery_sdk.manifests import CLUSTER, Json, Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    Catalog,
    ComponentKind,
    ComponentStatus,
    Condition,
    ConditionStatus,
    Failure,
    InferenceService,
    ModelState,
    ModelStatus,
    ServiceStatus,
    TransitionStatus,
)

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 63

_AWKWARD: tuple[Json, ...] = (None, True, -1, 1.5, "", "x y", [], {}, [[]], [{}], {"x": []})
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_STATUSES = st.builds(
    ServiceStatus,
    observed_generation=st.integers(0, 2**53),
    conditions=st.lists(
        st.builds(
            Condition,
            type=st.sampled_from(["PredictorReady", "IngressReady", "Stopped", "Ready"]),
            status=st.sampled_from(ConditionStatus),
            reason=_TEXT,
            message=_TEXT,
            severity=_TEXT,
            last_transition_time=st.sampled_from(["", "2024-01-01T00:00:00Z"]),
        ),
        unique_by=lambda condition: condition.type,
    ).map(tuple),
    mode=st.none() | st.sampled_from(["raw", "knative", "ray"]) | _TEXT,
    url=st.none() | _TEXT,
    address=st.none() | _TEXT,
    components=st.lists(
        st.builds(
            ComponentStatus,
            kind=st.sampled_from(ComponentKind),
            url=st.none() | _TEXT,
            address=st.none() | _TEXT,
            ready_replicas=st.integers(0, 9),
        ),
        unique_by=lambda component: component.kind,
    ).map(tuple),
    model=st.none()
    | st.builds(
        ModelStatus,
        transition=st.sampled_from(TransitionStatus),
        target=st.sampled_from(ModelState),
        active=st.none() | st.sampled_from(ModelState),
        failure=st.none()
        | st.builds(
            Failure,
            reason=_TEXT,
            message=_TEXT,
            location=_TEXT,
            exit_code=st.none() | st.integers(0, 255),
            time=st.sampled_from(["", "2024-01-01T00:00:00Z"]),
        ),
        total_copies=st.integers(0, 9),
        failed_copies=st.integers(0, 9),
    ),
    runtime=st.none() | _TEXT,
    runtime_is_cluster_scoped=st.booleans(),
)

# Subclasses share these tests, and Hypothesis minds when different classes run one.
_inherited = settings(suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow], deadline=None)
_thorough = settings(_inherited, max_examples=200)


@dataclass(frozen=True, slots=True)
class WrongManifest:
    """A manifest, and the paths of all the errors that it gets, sorted."""

    manifest: Manifest
    paths: tuple[str, ...]


class DialectContract:
    """Subclass it as ``Test<Dialect>`` with these.

    Attributes:
        good: Manifests of services and runtimes, by what they show; at least one of each kind.
        wrong: Manifests that are refused, by what is wrong with them.
        catalog: What the services' ``parse`` may look up.
    """

    dialect: ClassVar[Dialect]
    good: ClassVar[Mapping[str, Manifest]]
    wrong: ClassVar[Mapping[str, WrongManifest]]
    catalog: ClassVar[Catalog] = Catalog()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give each test a case for every manifest that the subclass brings."""
        cases: dict[str, Mapping[str, Any]] = {
            "manifest": self.good,
            "service": {name: found for name, found in self.good.items() if self._is_service(found)},
            "refused": self.wrong,
        }
        for argument, found in cases.items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, list(found.values()), ids=list(found))

    def test_every_kind_has_a_good_manifest(self) -> None:
        shown = {(found["apiVersion"], found["kind"]) for found in self.good.values()}
        assert shown == {(kind.api_version, kind.kind) for kind in self._kinds()}

    def test_good_manifest_is_taken(self, manifest: Manifest) -> None:
        found, metadata = self._parsed(manifest), manifest["metadata"]
        if isinstance(found, InferenceService):
            assert found.ref.kind in self.dialect.services
            assert (found.ref.name, found.ref.namespace) == (
                metadata["name"],
                metadata.get("namespace", found.ref.namespace),
            )
            assert found.predictor.kind is ComponentKind.PREDICTOR, "a predictor first"
        else:
            assert found.name == metadata["name"]

    def test_parse_is_deterministic_and_leaves_its_argument_alone(self, manifest: Manifest) -> None:
        before = copy.deepcopy(manifest)
        assert self._parsed(manifest) == self._parsed(copy.deepcopy(before))
        assert manifest == before

    def test_references_are_deterministic_and_leave_the_manifest_alone(self, manifest: Manifest) -> None:
        before = copy.deepcopy(manifest)
        assert self.dialect.references(manifest) == self.dialect.references(copy.deepcopy(before))
        assert manifest == before

    def test_no_value_in_any_place_is_a_surprise(self, manifest: Manifest) -> None:
        """One wrong value at a time, in every place there is: Hypothesis tries them together, but not all."""
        for number in range(len(list(_places(dict(manifest))))):
            for value in _AWKWARD:
                wild: Any = copy.deepcopy(manifest)
                holder, key = list(_places(wild))[number]
                holder[key] = copy.deepcopy(value)
                assert isinstance(self.dialect.references(wild), frozenset)
                with contextlib.suppress(Invalid):
                    self._parsed(wild)

    @_thorough
    @given(data=st.data())
    def test_references_of_anything_are_references(self, data: st.DataObject) -> None:
        assert isinstance(self.dialect.references(data.draw(self._wild())), frozenset)

    @_thorough
    @given(data=st.data())
    def test_parse_of_anything_returns_or_says_what_is_wrong(self, data: st.DataObject) -> None:
        wild = data.draw(self._wild())
        before = copy.deepcopy(wild)
        try:
            self._parsed(wild)
        except Invalid as refused:
            assert refused.errors  # noqa: PT017  # returning is right as well
        assert wild == before

    def test_selector_agrees_with_the_labels_that_pods_get(self, service: Manifest) -> None:
        found = self._service(service)
        names = [component.object_name for component in found.components]
        assert len(set(names)) == len(names), "components share a name"
        for component in found.components:
            assert component.selector, "without a selector, nothing tells its pods from others"
            pods = {**component.labels, **component.selector}
            assert component.labels.items() <= pods.items(), "a label contradicts the selector"
            assert found.owned_labels, "without owned labels, nothing tells its objects from others"
            assert found.owned_labels.items() <= pods.items(), "pods are found by the owned labels"
            for value in (*pods.values(), *found.owned_labels.values()):
                assert len(value) <= _LONGEST, value
                assert _LABEL.fullmatch(value) or not value, value
        selectors = [sorted(component.selector.items()) for component in found.components]
        assert all(selectors.count(selector) == 1 for selector in selectors), "components share a selector"

    def test_services_of_other_names_are_told_apart(self, service: Manifest) -> None:
        one, other = self._service(service), self._service(_named(service, "another"))
        assert not one.owned_labels.items() <= other.owned_labels.items()
        assert {component.object_name for component in one.components}.isdisjoint(
            component.object_name for component in other.components
        )
        for component in one.components:
            assert all(component.selector != different.selector for different in other.components)

    def test_names_and_label_values_fit_or_the_manifest_is_refused(self, service: Manifest) -> None:
        for length in range(1, _LONGEST + 1):
            try:
                found = self._service(_named(service, "a" * length))
            except Invalid as refused:
                paths = {error.path for error in refused.errors}
                assert paths == {"metadata.name"}, f"a name of {length}"
                continue
            for component in found.components:
                assert _NAME.fullmatch(component.object_name)
                values = {**component.labels, **component.selector, **found.owned_labels}.values()
                longest = max((component.object_name, *values), key=len)
                assert len(longest) <= _LONGEST, f"a name of {length} makes {longest!r}"

    def test_service_that_is_written_again_means_the_same(self, service: Manifest) -> None:
        meant = self._service(service)
        before = copy.deepcopy(meant)
        try:
            written = self.dialect.write(meant)
        except Invalid as refused:
            assert refused.errors  # noqa: PT017  # what nobody has words for is refused, never left out
            assert all(error.path for error in refused.errors), "no path"  # noqa: PT017
            return
        assert meant == before, "write changed its argument"
        objects = {ref: manifest for manifest in written if (ref := self._model_ref(manifest)) is not None}
        catalog = replace(self.catalog, objects={**self.catalog.objects, **objects})
        assert intent.meaning(self.dialect.parse(written[0], catalog)) == intent.meaning(meant)

    def test_written_manifests_are_json_that_fits_the_definitions(self, service: Manifest) -> None:
        with contextlib.suppress(Invalid):
            for manifest in self.dialect.write(self._service(service)):
                assert json.loads(json.dumps(manifest)) == manifest
                fits = self._schema(manifest["apiVersion"], manifest["kind"])
                assert [str(error) for error in schema.check(manifest, fits)] == []

    def test_service_that_can_be_said_again_is_among_the_good(self) -> None:
        services = [found for found in self.good.values() if self._is_service(found)]
        assert any(self._is_written(found) for found in services), "write refuses them all"

    def test_a_kind_has_one_meaning(self) -> None:
        dialect = self.dialect
        assert len(dialect.services | dialect.runtimes | dialect.models) == sum(
            map(len, (dialect.services, dialect.runtimes, dialect.models))
        )

    def test_definitions_cover_every_kind(self) -> None:
        found = {
            (
                f"{crd['spec']['group']}/{version['name']}",
                crd["spec"]["names"]["kind"],
                crd["spec"]["names"]["plural"],
                crd["spec"]["scope"] == "Namespaced",
            )
            for crd in self.dialect.crds()
            for version in crd["spec"]["versions"]
            if version["served"]
        }
        wanted = {
            (kind.api_version, kind.kind, kind.plural, kind.namespaced) for kind in self._kinds() | self.dialect.models
        }
        assert wanted <= found

    def test_definitions_are_as_an_api_server_takes_them(self) -> None:
        for crd in self.dialect.crds():
            spec = crd["spec"]
            assert crd["apiVersion"] == kinds.CUSTOM_RESOURCE_DEFINITION.api_version
            assert crd["kind"] == kinds.CUSTOM_RESOURCE_DEFINITION.kind
            assert crd["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
            assert [version["storage"] for version in spec["versions"]].count(True) == 1

    def test_schemas_are_structural(self) -> None:
        wrong = [
            f"{crd['spec']['names']['kind']}: {problem}"
            for crd in self.dialect.crds()
            for version in crd["spec"]["versions"]
            for problem in _unstructural(version["schema"]["openAPIV3Schema"], "")
        ]
        assert wrong == []

    def test_good_manifest_fits_its_definition(self, manifest: Manifest) -> None:
        found = schema.check(manifest, self._schema(manifest["apiVersion"], manifest["kind"]))
        assert [str(error) for error in found] == []

    def test_wrong_manifest_gets_all_its_errors_where_they_are(self, refused: WrongManifest) -> None:
        with pytest.raises(Invalid) as raised:
            self._parsed(refused.manifest)
        errors = raised.value.errors
        assert tuple(error.path for error in errors) == refused.paths
        assert list(refused.paths) == sorted(refused.paths), "errors are sorted by path"
        for error in errors:
            where = error.path
            if error.kind is FieldErrorKind.REQUIRED:
                where = re.sub(r"(\.|^)[^.\[\]]+$", "", error.path)
            assert _leads_somewhere(refused.manifest, where), f"there is no such field: {error}"

    def test_services_have_a_status_of_their_own(self) -> None:
        for kind in self.dialect.services:
            version = self._version(kind.api_version, kind.kind)
            assert "status" in version.get("subresources", {})
            assert version["schema"]["openAPIV3Schema"]["properties"]["status"]["type"] == "object"

    @_inherited
    @given(status=_STATUSES)
    def test_status_is_json_that_fits_the_definition(self, status: ServiceStatus) -> None:
        written = self.dialect.status(status)
        assert json.loads(json.dumps(written)) == written
        for kind in self.dialect.services:
            fits = self._schema(kind.api_version, kind.kind)["properties"]["status"]
            assert [str(error) for error in schema.check(written, fits, "status")] == []

    @_inherited
    @given(status=_STATUSES)
    def test_status_has_its_conditions_in_kubernetes_own_form(self, status: ServiceStatus) -> None:
        """``kubectl wait`` and a machine without a cluster read them; the dialect's own words come beside them.

        Only ``Stopped`` may be left out, where services of the dialect cannot be stopped.
        """
        written = self.dialect.status(status)
        assert written["observedGeneration"] == status.observed_generation, "of which spec it speaks"
        said = {found["type"]: found for found in written["conditions"]}
        for condition in status.conditions:
            if condition.type == "Stopped" and condition.type not in said:
                continue
            found = said[condition.type]
            assert found["status"] == condition.status
            assert (found.get("reason", ""), found.get("message", "")) == (condition.reason, condition.message)
            assert found.get("lastTransitionTime", "") == condition.last_transition_time

    def _is_written(self, manifest: Manifest) -> bool:
        try:
            return bool(self.dialect.write(self._service(manifest)))
        except Invalid:
            return False

    def _model_ref(self, manifest: Manifest) -> ObjectRef | None:
        for kind in self.dialect.models:
            if (manifest["apiVersion"], manifest["kind"]) == (kind.api_version, kind.kind):
                namespace = Namespace(manifest["metadata"]["namespace"]) if kind.namespaced else CLUSTER
                return ObjectRef(kind, namespace, manifest["metadata"]["name"])
        return None

    def _kinds(self) -> frozenset[Kind]:
        return self.dialect.services | self.dialect.runtimes

    def _is_service(self, manifest: Manifest) -> bool:
        return any(
            (kind.api_version, kind.kind) == (manifest.get("apiVersion"), manifest.get("kind"))
            for kind in self.dialect.services
        )

    def _parsed(self, manifest: Manifest) -> Any:
        if self._is_service(manifest):
            return self.dialect.parse(manifest, self.catalog)
        return self.dialect.parse_runtime(manifest)

    def _service(self, manifest: Manifest) -> InferenceService:
        return self.dialect.parse(manifest, self.catalog)

    def _version(self, api_version: str, kind: str) -> Json:
        return next(
            version
            for crd in self.dialect.crds()
            if crd["spec"]["names"]["kind"] == kind
            for version in crd["spec"]["versions"]
            if f"{crd['spec']['group']}/{version['name']}" == api_version
        )

    def _schema(self, api_version: str, kind: str) -> Json:
        return self._version(api_version, kind)["schema"]["openAPIV3Schema"]

    def _wild(self) -> st.SearchStrategy[Manifest]:
        """Good manifests with other JSON in some places, and objects of the dialect's own field names."""
        names = sorted(
            {
                name
                for crd in self.dialect.crds()
                for version in crd["spec"]["versions"]
                for name in _field_names(version["schema"]["openAPIV3Schema"])
            }
        )
        good = list(self.good.values())
        anything = st.builds(
            lambda like, fields: {"apiVersion": like["apiVersion"], "kind": like["kind"], **fields},
            st.sampled_from(good),
            st.dictionaries(st.sampled_from(names), _json(names), max_size=4),
        )
        return _changed(good, names) | anything


@st.composite
def _changed(draw: st.DrawFn, good: Sequence[Manifest], names: Sequence[str]) -> Manifest:
    manifest = copy.deepcopy(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(manifest))))
        holder[key] = draw(_json(names))
    return manifest


def _json(names: Sequence[str]) -> st.SearchStrategy[Json]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(names) | st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    )


def _places(value: Json) -> Iterator[tuple[Any, Any]]:
    """Yield every place below ``value``: what holds it, and its key there. A kind stays itself."""
    fields = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(fields):
        if key in ("apiVersion", "kind"):
            continue
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _field_names(found: Json) -> Iterator[str]:
    for name, inner in found.get("properties", {}).items():
        yield name
        yield from _field_names(inner)
    for below in ("items", "additionalProperties"):
        if isinstance(found.get(below), dict):
            yield from _field_names(found[below])


def _unstructural(found: Json, path: str) -> Iterator[str]:
    """Yield what an API server would refuse.

    Source: Kubernetes "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema".
    """
    if not found.get("type") and not found.get("x-kubernetes-int-or-string"):
        yield f"{path or '<root>'} has no type"
    if "properties" in found and "additionalProperties" in found:
        yield f"{path or '<root>'} has both properties and additionalProperties"
    if found.get("type") == "array" and "items" not in found:
        yield f"{path} has no items"
    for name in set(found.get("required", ())) - set(found.get("properties", {})):
        yield f"{path}.{name} is required, but not described"
    for name, inner in found.get("properties", {}).items():
        yield from _unstructural(inner, f"{path}.{name}" if path else name)
    if "items" in found:
        yield from _unstructural(found["items"], f"{path}[*]")
    if isinstance(found.get("additionalProperties"), dict):
        yield from _unstructural(found["additionalProperties"], f"{path}.*")


def _leads_somewhere(value: Json, path: str) -> bool:
    """Whether ``path`` names something in ``value``; keys may hold dots."""
    if not path:
        return True
    if isinstance(value, list):
        index = re.match(r"\[(\d+)\]\.?", path)
        return (
            index is not None
            and int(index[1]) < len(value)
            and _leads_somewhere(value[int(index[1])], path[index.end() :])
        )
    if not isinstance(value, dict):
        return False
    for key, inner in value.items():
        for spelled in (key, f"[{key}]"):
            rest = path.removeprefix(spelled)
            if (
                path.startswith(spelled)
                and rest[:1] in ("", ".", "[")
                and _leads_somewhere(inner, rest.removeprefix("."))
            ):
                return True
    return False


def _named(manifest: Manifest, name: str) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}
