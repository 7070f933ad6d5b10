"""The objects that services point at: base models, fine-tuned weights, classes of accelerators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from servery_sdk import quantities
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.lenient import mapping, mappings, text
from servery_sdk.manifests import CLUSTER, Json, Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import Artifact, Catalog, ModelFormat, ModelTraits

from servery_dialect_ome import kinds, schema
from servery_dialect_ome.places import Place
from servery_dialect_ome.plain import without_nulls

DEFAULT_PATH = "/mnt/models"
_SIZES = {"": 1, "M": 10**6, "B": 10**9, "T": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([MBT]?)")
_BY_KIND: Mapping[Kind, structural.Schema] = {
    kinds.BASE_MODEL: schema.MODEL,
    kinds.CLUSTER_BASE_MODEL: schema.MODEL,
    kinds.FINE_TUNED_WEIGHT: schema.WEIGHT,
    kinds.ACCELERATOR_CLASS: schema.ACCELERATOR_CLASS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A base model, or the weights that take its place.

    Attributes:
        format: None where it does not say.
        path: Where servers find it.
        uri: Where it comes from.
        token: The secret and its field that open ``uri``, or a token itself; empty for none.
        place: Nodes that may serve it.
        configuration: Its settings.
        namespace: Of a BaseModel; none of one of the cluster.
    """

    name: str
    namespace: Namespace = CLUSTER
    vendor: str = ""
    category: str = "SMALL"
    format: ModelFormat | None = None
    traits: ModelTraits = field(default_factory=ModelTraits)
    path: str = DEFAULT_PATH
    uri: str = ""
    env: tuple[Manifest, ...] = ()
    place: Place = field(default_factory=Place)
    configuration: Manifest = field(default_factory=dict)
    is_disabled: bool = False

    def artifact(self, field_path: str, *, mount_path: str = "") -> Artifact:
        """Return its files; ``field_path`` is the manifest's field that names it."""
        return Artifact(uri=self.uri, mount_path=mount_path or self.path, field_path=field_path, env=self.env)


def references(name: str, namespace: Namespace) -> tuple[ObjectRef, ObjectRef]:
    """Return where a base model may be, in the order of preference.

    Source: OME GetBaseModel, which passes over the kind that the reference names.
    """
    return ObjectRef(kinds.BASE_MODEL, namespace, name), ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, name)


def base_model(name: str, namespace: Namespace, catalog: Catalog, path: str) -> Model | FieldError:
    """Return the base model ``name``, or what is wrong at ``path``, the field that names it."""
    found = _found(references(name, namespace), catalog)
    if found is None:
        listed = _names(catalog, {kinds.BASE_MODEL: namespace, kinds.CLUSTER_BASE_MODEL: CLUSTER})
        detail = f"no BaseModel in namespace {namespace!r} and no ClusterBaseModel has this name; there are: {listed}"
        return FieldError(path=path, kind=FieldErrorKind.NOT_FOUND, value=name, detail=detail)
    if (wrong := _objection(found[0], found[1], path)) is not None:
        return wrong
    metadata, spec = mapping(found[1], "metadata"), mapping(found[1], "spec")
    storage, framework = mapping(spec, "storage"), mapping(spec, "modelFramework")
    return Model(
        name=name,
        namespace=found[0].namespace,
        vendor=text(spec, "vendor"),
        category=text(mapping(metadata, "annotations"), kinds.MODEL_CATEGORY) or "SMALL",
        format=versioned(mapping(spec, "modelFormat")),
        traits=ModelTraits(
            architecture=text(spec, "modelArchitecture") or None,
            framework=versioned(framework),
            quantization=text(spec, "quantization") or None,
            parameters=parameters(text(spec, "modelParameterSize")),
        ),
        path=text(storage, "path") or DEFAULT_PATH,
        uri=text(storage, "storageUri"),
        env=tuple(_token(storage)),
        place=_place(storage),
        configuration=mapping(spec, "modelConfiguration"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Weights that were tuned on top of a base model.

    Attributes:
        is_merged: They hold the base model as well.
        strategy: Of the training, such as ``lora``.
    """

    model: Model
    is_merged: bool
    strategy: str


def weight(
    name: str, base: str | None, namespace: Namespace | None, catalog: Catalog, path: str
) -> Weight | FieldError:
    """Return the FineTunedWeight ``name`` of ``base``, which is in ``namespace``, or what is wrong at ``path``.

    None is a base model that nobody names or knows, which may be the right one.
    """
    found = _found([ObjectRef(kinds.FINE_TUNED_WEIGHT, CLUSTER, name)], catalog)
    if found is None:
        listed = _names(catalog, {kinds.FINE_TUNED_WEIGHT: CLUSTER})
        detail = f"no FineTunedWeight has this name; there are: {listed}"
        return FieldError(path=path, kind=FieldErrorKind.NOT_FOUND, value=name, detail=detail)
    if (wrong := _objection(found[0], found[1], path)) is not None:
        return wrong
    spec = mapping(found[1], "spec")
    reference, storage = mapping(spec, "baseModelRef"), mapping(spec, "storage")
    of, where = text(reference, "name"), text(reference, "namespace")
    is_elsewhere = bool(where) and namespace is not None and where != namespace
    if base is not None and (of != base or is_elsewhere):
        detail = f"was tuned from the base model {of!r}" + (f" of namespace {where!r}" if where else "")
        return FieldError(path=path, kind=FieldErrorKind.INVALID, value=name, detail=detail)
    return Weight(
        model=Model(
            name=name,
            path=text(storage, "path"),
            uri=text(storage, "storageUri"),
            env=tuple(_token(storage)),
            place=_place(storage),
        ),
        is_merged=mapping(spec, "configuration").get("merged_weights") is True,
        strategy=text(mapping(spec, "hyperParameters"), "strategy"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A class of accelerators: where they are, and what a container asks for to have one."""

    place: Place = field(default_factory=Place)
    resources: Mapping[str, str] = field(default_factory=dict)


def accelerator(name: str, catalog: Catalog, path: str) -> Accelerator | FieldError:
    """Return the AcceleratorClass ``name``, or what is wrong at ``path``."""
    found = _found([ObjectRef(kinds.ACCELERATOR_CLASS, CLUSTER, name)], catalog)
    if found is None:
        listed = _names(catalog, {kinds.ACCELERATOR_CLASS: CLUSTER})
        detail = f"no AcceleratorClass has this name; there are: {listed}"
        return FieldError(path=path, kind=FieldErrorKind.NOT_FOUND, value=name, detail=detail)
    if (wrong := _objection(found[0], found[1], path)) is not None:
        return wrong
    spec = mapping(found[1], "spec")
    discovery = mapping(spec, "discovery")
    return Accelerator(
        place=Place(node_selector=mapping(discovery, "nodeSelector"), affinity=mapping(discovery, "affinity")),
        resources=_quantities(spec),
    )


def _quantities(spec: Manifest) -> dict[str, str]:
    return {text(found, "name"): str(found.get("quantity", "1")) for found in mappings(spec, "resources")}


def _place(storage: Manifest) -> Place:
    nodes = mapping(storage, "nodeAffinity")
    return Place(node_selector=mapping(storage, "nodeSelector"), affinity={"nodeAffinity": nodes} if nodes else {})


def versioned(found: Manifest) -> ModelFormat | None:
    """Return a format or framework, None where there is none."""
    return ModelFormat(name=found["name"], version=found.get("version")) if found else None


def parameters(size: str) -> int | None:
    """Return how many parameters ``8B``, ``350M``, ``1T`` or ``1000`` are, None where that is no size."""
    found = _SIZE.fullmatch(size)
    return int(Decimal(found[1]) * _SIZES[found[2]]) if found else None


def _found(places: Iterable[ObjectRef], catalog: Catalog) -> tuple[ObjectRef, Manifest] | None:
    return next(((ref, without_nulls(catalog.objects[ref])) for ref in places if ref in catalog.objects), None)


def _objection(ref: ObjectRef, manifest: Manifest, path: str) -> FieldError | None:
    wrong = list(structural.check(manifest, _BY_KIND[ref.kind])) or list(_rules(ref.kind, mapping(manifest, "spec")))
    if wrong:
        detail = f"{ref} is invalid: {'; '.join(map(str, wrong))}"
        return FieldError(path=path, kind=FieldErrorKind.INVALID, value=ref.name, detail=detail)
    if mapping(manifest, "spec").get("disabled") is True:
        return FieldError(path=path, kind=FieldErrorKind.INVALID, value=ref.name, detail=f"{ref} is disabled")
    return None


def _rules(kind: Kind, spec: Manifest) -> Iterator[FieldError]:
    """Yield what is wrong with the spec of a kind beyond its schema."""
    if kind != kinds.ACCELERATOR_CLASS:
        return
    for index, found in enumerate(mappings(spec, "resources")):
        for wrong in quantities.resource_errors({"limits": _quantities({"resources": [found]})}, ""):
            yield replace(wrong, path=f"spec.resources[{index}].quantity")
    if "volcanoGPUType" in mapping(spec, "integration"):
        detail = "not supported by Servery yet; write what your device plugin reads into the service's annotations"
        yield FieldError(path="spec.integration.volcanoGPUType", kind=FieldErrorKind.FORBIDDEN, detail=detail)


def _names(catalog: Catalog, places: Mapping[Kind, Namespace]) -> str:
    found: Sequence[str] = sorted({ref.name for ref in catalog.objects if places.get(ref.kind) == ref.namespace})
    return ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "") or "none"


def _token(storage: Manifest) -> Iterator[dict[str, Json]]:
    """Yield the variable that opens the hub: out of the secret ``key``, or as the parameter ``token`` says it.

    Source: OME model agent, "HF auth".
    """
    given = mapping(storage, "parameters")
    secret = text(storage, "key") or text(storage, "storageKey")
    if not text(storage, "storageUri").startswith("hf://"):
        return
    if secret:
        # Many a public model names a secret: only the hub knows whether it is needed.
        key = {"name": secret, "key": text(given, "secretKey") or "token", "optional": True}
        yield {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": key}}
    elif text(given, "token"):
        yield {"name": "HF_TOKEN", "value": text(given, "token")}
