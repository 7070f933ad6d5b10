"""What the names in a service stand for: its model, weights, accelerators and runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.lenient import mapping, text
from servery_sdk.manifests import CLUSTER, Manifest, Namespace
from servery_sdk.model import Artifact, Catalog, ComponentKind, ModelFormat, ModelTraits, Runtime

from servery_dialect_ome import kinds, models, places
from servery_dialect_ome.models import Accelerator, Model, Weight
from servery_dialect_ome.places import Place
from servery_dialect_ome.shapes import Shape, Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The answers, and what is wrong with the names.

    Attributes:
        runtime: The name of the runtime: the manifest's, or the one that is named for the model.
        found: The runtime object of that name, where the catalog has one.
        place: Nodes that may serve the files.
        accelerators: By component.
    """

    model: Model | None = None
    weight: Weight | None = None
    artifacts: tuple[Artifact, ...] = ()
    path: str = ""
    configuration: Manifest = field(default_factory=dict)
    runtime: str = ""
    found: Runtime | None = None
    format: ModelFormat | None = None
    traits: ModelTraits = field(default_factory=ModelTraits)
    place: Place = field(default_factory=Place)
    accelerators: Mapping[ComponentKind, Accelerator] = field(default_factory=dict)
    errors: tuple[FieldError, ...] = ()


def resolve(
    form: Shapes, spec: Manifest, annotations: Mapping[str, str], namespace: Namespace, catalog: Catalog
) -> Resolved:
    """Return what ``form`` names; wrong names are among the ``errors``."""
    errors: list[FieldError] = []
    model, weight = _model(form, namespace, catalog, errors), None
    if form.weights:
        path, where = f"{form.weights_path}[0]", model.namespace if model is not None else None
        tuned = models.weight(form.weights[0], form.model or None, where, catalog, path)
        if isinstance(tuned, FieldError):
            errors.append(tuned)
        else:
            weight = tuned
    classes, accelerators = _accelerators(form, spec, annotations, catalog, errors)
    runtime = _runtime_name(form, model, namespace, catalog, errors)
    return Resolved(
        model=model,
        weight=weight,
        artifacts=_artifacts(form, model, weight, namespace, errors),
        path=_path(form, model, weight),
        configuration={**(model.configuration if model else {}), **form.configuration},
        runtime=runtime,
        found=next(iter(_runtimes(runtime, namespace, catalog)), None),
        format=model.format if model else None,
        traits=replace(model.traits if model else ModelTraits(), accelerators=classes),
        place=_place(form, model, weight, errors),
        accelerators=accelerators,
        errors=tuple(errors),
    )


def _model(form: Shapes, namespace: Namespace, catalog: Catalog, errors: list[FieldError]) -> Model | None:
    if not form.model:
        return None
    found = models.base_model(form.model, namespace, catalog, form.model_path)
    if isinstance(found, FieldError):
        errors.append(found)
        return None
    return found


def _place(form: Shapes, model: Model | None, weight: Weight | None, errors: list[FieldError]) -> Place:
    """Return the nodes that may serve the files: those of merged weights hold the base model, and it is not fetched."""
    base, tuned = model.place if model is not None else Place(), weight.model.place if weight is not None else Place()
    if weight is not None and weight.is_merged:
        return tuned
    if weight is not None and (label := places.contradiction(base, tuned)) is not None:
        detail = (
            f"is on nodes whose {label} is {tuned.node_selector[label]}, its base model on {base.node_selector[label]}"
        )
        path = f"{form.weights_path}[0]"
        errors.append(FieldError(path=path, kind=FieldErrorKind.INVALID, value=weight.model.name, detail=detail))
    return places.both(base, tuned)


def _path(form: Shapes, model: Model | None, weight: Weight | None) -> str:
    if weight is not None and weight.is_merged and weight.model.path:
        return weight.model.path
    if model is not None:
        return model.path
    return models.DEFAULT_PATH if form.storage_uri else ""


def _artifacts(
    form: Shapes, model: Model | None, weight: Weight | None, namespace: Namespace, errors: list[FieldError]
) -> tuple[Artifact, ...]:
    path = _path(form, model, weight)
    found: list[Artifact] = []
    if weight is not None and weight.is_merged:
        found.append(weight.model.artifact(f"{form.weights_path}[0]", mount_path=path))
    elif model is not None:
        found.append(model.artifact(form.model_path))
    elif form.storage_uri:
        found.append(Artifact(uri=form.storage_uri, mount_path=path, field_path="spec.predictor.model.storageUri"))
    if weight is not None and not weight.is_merged:
        mount = f"{kinds.ADAPTER_PATH}/{weight.model.name}"
        found.append(weight.model.artifact(f"{form.weights_path}[0]", mount_path=mount))
    return tuple(_portable(artifact, namespace, errors) for artifact in found)


def _portable(artifact: Artifact, namespace: Namespace, errors: list[FieldError]) -> Artifact:
    """Return an artifact whose URI is written as all dialects write it.

    Source: OME pkg/utils/storage: ``pvc://namespace:claim/path``, ``s3://bucket@region/prefix``.
    """
    uri = artifact.uri or ""
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    if scheme == "pvc" and ":" in host:
        where, _, claim = host.partition(":")
        if where == namespace:
            return replace(artifact, uri=f"pvc://{claim}{slash}{path}")
        detail = f"{uri}: a pod cannot mount a claim of another namespace than its own ({namespace})"
        errors.append(FieldError(path=artifact.field_path, kind=FieldErrorKind.FORBIDDEN, detail=detail))
    elif scheme == "s3" and "@" in host:
        bucket, _, region = host.partition("@")
        variable = {"name": "AWS_DEFAULT_REGION", "value": region}
        return replace(artifact, uri=f"s3://{bucket}{slash}{path}", env=(*artifact.env, variable))
    return artifact


def _accelerators(
    form: Shapes,
    spec: Manifest,
    annotations: Mapping[str, str],
    catalog: Catalog,
    errors: list[FieldError],
) -> tuple[frozenset[str], dict[ComponentKind, Accelerator]]:
    """Return the classes that a runtime must serve, and the one of each component."""
    shared = text(mapping(spec, "acceleratorSelector"), "acceleratorClass")
    classes = {annotations.get(kinds.ACCELERATOR, ""), shared}
    by_component: dict[ComponentKind, Accelerator] = {}
    for shape in form.components:
        name, path = _class_of(shape, shared)
        if not name:
            continue
        classes.add(name)
        found = models.accelerator(name, catalog, path)
        if isinstance(found, FieldError):
            errors.append(found)
        else:
            by_component[shape.kind] = found
    return frozenset(classes - {""}), by_component


def _class_of(shape: Shape, shared: str) -> tuple[str, str]:
    own = text(mapping(shape.spec, "acceleratorOverride"), "acceleratorClass")
    if own:
        return own, f"{shape.path}.acceleratorOverride.acceleratorClass"
    return ("" if shape.kind is ComponentKind.ROUTER else shared), "spec.acceleratorSelector.acceleratorClass"


def _runtimes(name: str, namespace: Namespace, catalog: Catalog) -> list[Runtime]:
    found = [
        runtime
        for runtime in catalog.runtimes
        if runtime.name == name
        and runtime.ref is not None
        and runtime.ref.kind.group == kinds.GROUP
        and runtime.ref.namespace in {CLUSTER, namespace}
    ]
    return sorted(found, key=lambda runtime: runtime.ref is not None and runtime.ref.namespace == CLUSTER)


def has_own_containers(shape: Shape) -> bool:
    """Return whether a component says all of itself, so that it needs no runtime."""
    holders = [part for name in ("leader", "worker") if (part := shape.spec.get(name))] or [shape.spec]
    return all(text(mapping(found, "runner"), "image") or mapping_with_image(found) for found in holders)


def mapping_with_image(found: Manifest) -> bool:
    """Return whether a pod's first container has an image, and so may be the one that answers requests."""
    containers = found.get("containers", ())
    return "runner" not in found and bool(containers) and bool(containers[0].get("image"))


def _runtime_name(
    form: Shapes, model: Model | None, namespace: Namespace, catalog: Catalog, errors: list[FieldError]
) -> str:
    """Return the manifest's runtime, or of a model that does not say its format the runtime that is named for it.

    OME's agent reads the format out of the files once a node has them. Nothing has read them here before the pod runs,
    but OME's catalogue calls its runtimes by their models: ``srt-llama-2-7b`` serves ``llama-2-7b``.
    """
    if form.runtime or not form.components or all(map(has_own_containers, form.components)):
        return form.runtime
    if model is None:
        if not form.model:
            detail = "a runtime is chosen for a base model; without one, name the runtime"
            errors.append(FieldError(path=form.runtime_path, kind=FieldErrorKind.REQUIRED, detail=detail))
        return ""
    if model.format is not None:
        return ""
    named = [
        runtime
        for runtime in catalog.runtimes
        if (runtime.name == model.name or runtime.name.endswith(f"-{model.name}"))
        and not runtime.disabled
        and _runtimes(runtime.name, namespace, catalog)
    ]
    chosen = {runtime.name for runtime in named if any(found.auto_select for found in runtime.formats)}
    if len(chosen) == 1:
        return chosen.pop()
    errors.append(_no_choice(form, model.name, chosen, {runtime.name for runtime in named}))
    return ""


def _no_choice(form: Shapes, model: str, chosen: set[str], named: set[str]) -> FieldError:
    why = "no runtime is named for it"
    if chosen:
        why = f"several runtimes are named for it: {', '.join(sorted(chosen))}"
    elif named:
        why = f"autoSelect is off in {', '.join(sorted(named))}, which is named for it"
    detail = (
        f"base model {model!r} says no modelFormat to choose a runtime by, and {why}; "
        "name one, or say in the base model what its files are"
    )
    return FieldError(path=form.runtime_path, kind=FieldErrorKind.REQUIRED, detail=detail)
