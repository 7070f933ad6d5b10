"""The two forms of an InferenceService, read as one.

The older form, ``spec.predictor``, becomes an engine; every value keeps the path at which the manifest has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.lenient import mapping, mappings, text
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import ComponentKind

from servery_dialect_ome import kinds, schema
from servery_dialect_ome.labels import WORDS
from servery_dialect_ome.plain import container_of, over, pod_errors

_NAMED = ("ome-container", "ome")
"""Parts of names by which OME knows the main container of an older predictor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One component as the manifest has it.

    Attributes:
        path: Of the field that holds it.
        spec: In the newer form: a PodSpec, ``runner``, ``leader``, ``worker`` and the words of scaling.
        joins_args: Its arguments come behind the runtime's.
    """

    kind: ComponentKind
    path: str
    spec: Manifest
    joins_args: bool = False

    @property
    def word(self) -> str:
        """OME's word for it."""
        return WORDS[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """A service as the manifest has it.

    Attributes:
        model: Name of the base model; empty where it names none.
        storage_uri: Where a model is that is no base model.
        weights: Names of fine-tuned weights.
        configuration: Of the model, over its own.
    """

    components: tuple[Shape, ...]
    model: str = ""
    model_path: str = "spec.model.name"
    storage_uri: str = ""
    weights: tuple[str, ...] = ()
    weights_path: str = "spec.model.fineTunedWeights"
    configuration: Manifest = field(default_factory=dict)
    runtime: str = ""
    runtime_path: str = "spec.runtime"
    runtime_version: str | None = None
    protocol: str | None = None


def shapes(spec: Manifest) -> Shapes:
    """Return what ``spec`` (without nulls) says, whatever form it has; of a wrong one, what can be read."""
    others = [
        Shape(kind=kind, path=f"spec.{word}", spec=mapping(spec, word))
        for kind, word in WORDS.items()
        if isinstance(spec.get(word), dict)
    ]
    model, runtime = mapping(spec, "model"), mapping(spec, "runtime")
    found = Shapes(
        components=tuple(others),
        model=text(model, "name"),
        weights=_texts(model, "fineTunedWeights"),
        runtime=text(runtime, "name"),
    )
    if not isinstance(spec.get("predictor"), dict):
        return found
    return _older(mapping(spec, "predictor"), found)


def _older(predictor: Manifest, newer: Shapes) -> Shapes:
    model = mapping(predictor, "model")
    path = "spec.predictor.model"
    engine = Shape(kind=ComponentKind.PREDICTOR, path="spec.predictor", spec=_engine(predictor), joins_args=True)
    rest = tuple(found for found in newer.components if found.kind is not ComponentKind.PREDICTOR)
    names_model, names_runtime = "baseModel" in model, "runtime" in model
    is_named = names_model or not newer.model
    return Shapes(
        components=(engine, *rest),
        model=text(model, "baseModel") if names_model else newer.model,
        model_path=f"{path}.baseModel" if is_named else newer.model_path,
        storage_uri=text(model, "storageUri"),
        weights=_texts(model, "fineTunedWeights") if is_named else newer.weights,
        weights_path=f"{path}.fineTunedWeights" if is_named else newer.weights_path,
        configuration=mapping(model, "modelConfiguration"),
        runtime=text(model, "runtime") if names_runtime else newer.runtime,
        runtime_path=f"{path}.runtime" if names_runtime or not newer.runtime else newer.runtime_path,
        runtime_version=text(model, "runtimeVersion") or None,
        protocol=text(model, "protocolVersion") or None,
    )


def _texts(found: Manifest, key: str) -> tuple[str, ...]:
    listed = found.get(key)
    return tuple(item for item in listed if isinstance(item, str)) if isinstance(listed, list) else ()


def _engine(predictor: Manifest) -> Manifest:
    """Return the engine that a predictor is: OME's own migration, but nothing of the predictor is lost."""
    model, workers = mapping(predictor, "model"), mapping(predictor, "workerSpec")
    own = {key: predictor[key] for key in ("resources", "env") if key in predictor}
    # The container's name is the runtime's.
    runner = over(own, {key: value for key, value in container_of(model).items() if key != "name"})
    containers = list(mappings(predictor, "containers"))
    main = _main(containers, has_model=bool(model))
    if main is not None:
        runner = over(main, runner)
        containers = [found for found in containers if found is not main]
    made = {
        key: value for key, value in predictor.items() if key in schema.POD or key in schema.SCALING or key in _METADATA
    }
    made.pop("containers", None)
    if containers:
        made["containers"] = containers
    if runner or (model and containers):
        # Without a runner, the first of the sidecars would be taken for what answers.
        made["runner"] = runner
    if workers:
        made["worker"] = _worker(workers)
    return made


_METADATA = frozenset({"labels", "annotations"})


def _main(containers: list[Manifest], *, has_model: bool) -> Manifest | None:
    for part in _NAMED:
        named = [found for found in containers if part in text(found, "name")]
        if named:
            return named[0]
    return containers[0] if containers and not has_model else None


def _worker(workers: Manifest) -> Manifest:
    made: dict[str, Json] = {
        key: value for key, value in workers.items() if key not in {"worldSize", "resources", "runner"}
    }
    if "worldSize" in workers:
        made["size"] = workers["worldSize"]
    own = {"resources": workers["resources"]} if "resources" in workers else {}
    runner = over(own, mapping(workers, "runner"))
    return {**made, "runner": runner} if runner else made


def errors(spec: Manifest) -> Iterator[FieldError]:
    """Yield what is wrong with the form: parts that are missing, or said twice."""
    predictor, found = mapping(spec, "predictor"), shapes(spec)
    model, path = mapping(predictor, "model"), "spec.predictor.model"
    if "predictor" in spec and "engine" in spec:
        detail = "the older form of spec.engine; write one of them"
        yield FieldError(path="spec.predictor", kind=FieldErrorKind.FORBIDDEN, detail=detail)
    if "predictor" not in spec and "engine" not in spec:
        detail = "the server of the model; {} takes all of it from the runtime"
        yield FieldError(path="spec.engine", kind=FieldErrorKind.REQUIRED, detail=detail)
    for name, newer in (("baseModel", "model"), ("runtime", "runtime")):
        if name in model and newer in spec:
            detail = f"the older form of spec.{newer}; write one of them"
            yield FieldError(path=f"{path}.{name}", kind=FieldErrorKind.FORBIDDEN, detail=detail)
    if "storageUri" in model and found.model:
        detail = "a base model says itself where it is; write one of them"
        yield FieldError(path=f"{path}.storageUri", kind=FieldErrorKind.FORBIDDEN, detail=detail)
    if text(model, "name") not in {"", kinds.MAIN_CONTAINER}:
        what = "its container is the runtime's; supported values"
        yield unsupported(f"{path}.name", model["name"], (kinds.MAIN_CONTAINER,), what=what)
    if found.protocol is not None and found.protocol not in kinds.PROTOCOLS:
        yield unsupported(f"{path}.protocolVersion", found.protocol, kinds.PROTOCOLS)
    if len(found.weights) > 1:
        detail = "one fine-tuned weight can be served at a time"
        yield FieldError(path=found.weights_path, kind=FieldErrorKind.INVALID, value=list(found.weights), detail=detail)
    workers = mapping(predictor, "workerSpec")
    if {"size", "worldSize"} <= workers.keys() and workers["size"] != workers["worldSize"]:
        detail = f"must be the same as size ({workers['size']})"
        yield FieldError(
            path="spec.predictor.workerSpec.worldSize",
            kind=FieldErrorKind.INVALID,
            value=workers["worldSize"],
            detail=detail,
        )
    for word in ("engine", "decoder", "router", "predictor"):
        yield from pod_errors(mapping(spec, word), f"spec.{word}")
    yield from pod_errors(model, path)
    yield from pod_errors(workers, "spec.predictor.workerSpec")
