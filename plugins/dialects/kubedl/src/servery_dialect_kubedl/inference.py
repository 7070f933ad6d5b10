"""From an Inference manifest to what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk import names, openapi
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid, unsupported
from servery_sdk.lenient import mapping, text
from servery_sdk.manifests import Manifest, Namespace, ObjectRef
from servery_sdk.model import Catalog, Entry, InferenceService

from servery_dialect_kubedl import schema
from servery_dialect_kubedl.kinds import INFERENCE, INFERENCE_LABEL, MODEL_VERSION, OWN
from servery_dialect_kubedl.predictor import Predictor
from servery_dialect_kubedl.server import SERVERS
from servery_dialect_kubedl.traffic import DEFAULT_WEIGHT, percents


def parse(manifest: Manifest, catalog: Catalog) -> InferenceService:
    """Return what ``manifest`` means.

    A ModelVersion that is not there yet is no error: it may come later, and the pods wait for its claim.

    Raises:
        Invalid: Every error at once.
    """
    predictors = [
        Predictor(text(mapping(manifest, "metadata"), "name"), _framework(manifest), spec, path, found)
        for path, spec, found in _predictors(manifest, catalog.objects)
    ]
    errors = [*structural.check(manifest, schema.INFERENCE), *_metadata_errors(manifest, predictors)]
    errors += _rule_errors(manifest, predictors)
    for predictor in predictors:
        errors += predictor.errors()
    if errors:
        # A schema's error and a rule's may say the same.
        raise Invalid(sorted({str(error): error for error in errors}.values(), key=lambda error: error.path))
    return _service(manifest, predictors)


def references(manifest: Manifest) -> frozenset[ObjectRef]:
    """Return the ModelVersions of the predictors. Total: never raises."""
    return frozenset(ref for _, spec, _ in _predictors(manifest, {}) if (ref := _version(manifest, spec)) is not None)


def _predictors(
    manifest: Manifest, objects: Mapping[ObjectRef, Manifest]
) -> Iterator[tuple[str, Manifest, Manifest | None]]:
    """Yield path, entry and ModelVersion of every predictor that is an object."""
    given = mapping(manifest, "spec").get("predictors")
    for index, spec in enumerate(given if isinstance(given, list) else ()):
        if isinstance(spec, Mapping):
            ref = _version(manifest, spec)
            yield f"spec.predictors[{index}]", spec, objects.get(ref) if ref is not None else None


def _version(manifest: Manifest, spec: Manifest) -> ObjectRef | None:
    name = text(spec, "modelVersion")
    return ObjectRef(MODEL_VERSION, _namespace(manifest), name) if name else None


def _namespace(manifest: Manifest) -> Namespace:
    return Namespace(text(mapping(manifest, "metadata"), "namespace") or "default")


def _framework(manifest: Manifest) -> str:
    return text(mapping(manifest, "spec"), "framework")


def _metadata_errors(manifest: Manifest, predictors: list[Predictor]) -> Iterator[FieldError]:
    if manifest.get("metadata") is None:
        yield FieldError(path="metadata", kind=FieldErrorKind.REQUIRED)
        return
    yield from structural.check(manifest["metadata"], openapi.METADATA, "metadata")
    name = mapping(manifest, "metadata").get("name")
    longest = max((predictor.name for predictor in predictors), key=len, default="")
    if isinstance(manifest["metadata"], Mapping) and (
        wrong := names.objection(name, "metadata.name", suffix=f"-{longest}")
    ):
        yield wrong


def _rule_errors(manifest: Manifest, predictors: list[Predictor]) -> Iterator[FieldError]:
    framework = mapping(manifest, "spec").get("framework")
    if isinstance(framework, str) and framework not in SERVERS:
        yield unsupported("spec.framework", framework, SERVERS)
    seen: set[str] = set()
    for path, spec, _ in _predictors(manifest, {}):
        name = text(spec, "name")
        if name in seen:
            yield FieldError(path=f"{path}.name", kind=FieldErrorKind.DUPLICATE, value=name)
        seen |= {name} - {""}
    weights = [predictor.weight for predictor in predictors]
    if len(weights) > 1 and not any(weight != 0 for weight in weights):
        detail = "their weights are all 0, so no request would have an answer"
        yield FieldError(path="spec.predictors", kind=FieldErrorKind.INVALID, value=weights, detail=detail)


def _service(manifest: Manifest, predictors: list[Predictor]) -> InferenceService:
    metadata, namespace = manifest["metadata"], _namespace(manifest)
    owned = {INFERENCE_LABEL: metadata["name"]}
    weights = [DEFAULT_WEIGHT if predictor.weight is None else predictor.weight for predictor in predictors]
    shares = list(zip(predictors, percents(weights), strict=True))
    return InferenceService(
        ref=ObjectRef(INFERENCE, namespace, metadata["name"]),
        metadata={**metadata, "namespace": namespace},
        components=tuple(predictor.component(percent) for predictor, percent in shares),
        owned_labels=owned,
        entry=Entry(name=metadata["name"], selector=owned, labels=owned),
        own=OWN,
        defaults=tuple(default for predictor, percent in shares for default in predictor.defaults(percent)),
        warnings=tuple(warning for predictor in predictors for warning in predictor.warnings()),
    )
