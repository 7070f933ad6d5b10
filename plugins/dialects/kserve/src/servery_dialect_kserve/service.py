"""From an InferenceService manifest to what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from servery_sdk import names, openapi
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid, unsupported
from servery_sdk.kinds import SERVICE_ACCOUNT
from servery_sdk.manifests import Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import AutoscalerClass, Catalog, ComponentKind, InferenceService

from servery_dialect_kserve import kinds, payload_logger, schema
from servery_dialect_kserve.companions import ART, GONE, Explainer, Transformer
from servery_dialect_kserve.kinds import FRAMEWORKS, INFERENCE_SERVICE
from servery_dialect_kserve.predictor import Predictor
from servery_dialect_kserve.trained import held

_MODES = {"Standard": "raw", "RawDeployment": "raw", "Knative": "knative", "Serverless": "knative"}
_COMPONENTS = tuple(f"spec.{kind}" for kind in (Predictor.kind, Transformer.kind, Explainer.kind))

_NOT_YET: Mapping[str, str] = {
    "spec.canary": "canaries",
    "spec.predictor.workerSpec": "multi-node serving",
    "spec.predictor.storageContainerName": "ClusterStorageContainers",
}
"""Field paths whose meaning Servery cannot give yet."""

_GONE = "KServe serves these no more; explain with art, or with containers such as servery/explainer-shap"


def parse(manifest: Manifest, catalog: Catalog) -> InferenceService:
    """Return what ``manifest`` means.

    Raises:
        Invalid: Every error at once.
    """
    errors = list(structural.check(manifest, schema.SERVICE))
    if manifest.get("metadata") is None:
        metadata_errors = [FieldError(path="metadata", kind=FieldErrorKind.REQUIRED)]
    else:
        metadata_errors = list(structural.check(manifest["metadata"], openapi.METADATA, "metadata"))
    errors += metadata_errors or _metadata_errors(manifest)
    errors += _refused(manifest)
    # The rules read what has the right shape; without a predictor or metadata there is nothing to read.
    malformed = {error.path for error in errors}
    if not metadata_errors and malformed.isdisjoint({"spec", "spec.predictor"}):
        errors += Predictor(manifest).errors()
        for companion in _companions(manifest):
            if companion.path not in malformed:
                errors += companion.errors()
    if errors:
        # A schema's error and a rule's may say the same.
        raise Invalid(sorted({str(error): error for error in errors}.values(), key=lambda error: error.path))
    return _service(manifest, catalog)


def references(manifest: Manifest) -> frozenset[ObjectRef]:
    """Return the service accounts of the components that fetch files, or log to a bucket. Total: never raises."""
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return frozenset()
    namespace = Namespace(str(metadata.get("namespace") or "default"))
    components = [spec.get(str(reader.kind)) for reader in (Predictor, Transformer, Explainer)]
    found = [component for component in components if isinstance(component, dict)]
    names = {
        str(component.get("serviceAccountName") or "default")
        for component in found
        if _fetches(component) or _logs_to_a_bucket(component)
    }
    own = {payload_logger.account(component.get("logger")) for component in found if _logs_to_a_bucket(component)}
    return frozenset(ObjectRef(SERVICE_ACCOUNT, namespace, name) for name in names | own if name is not None)


def _fetches(component: Manifest) -> bool:
    models = [component.get(name) for name in (*FRAMEWORKS, "model", ART)]
    uris = [model.get("storageUri") for model in models if isinstance(model, dict)]
    # A model that does not say where it is comes with TrainedModels, which do.
    is_elsewhere = any(model.get("storageUri") is None for model in models if isinstance(model, dict))
    return (
        is_elsewhere
        or bool(component.get("storageUris"))
        or any(isinstance(uri, str) and not uri.startswith("pvc://") for uri in uris)
    )


def _logs_to_a_bucket(component: Manifest) -> bool:
    logger = component.get("logger")
    url = logger.get("url") if isinstance(logger, dict) else None
    return isinstance(url, str) and url.partition("://")[0] not in {"http", "https"}


def _metadata_errors(manifest: Manifest) -> Iterator[FieldError]:
    metadata = manifest["metadata"]
    found = names.objection(metadata.get("name"), "metadata.name", suffix=_longest_suffix(manifest.get("spec")))
    if found is not None:
        yield found
    annotations = metadata.get("annotations") or {}
    mode = annotations.get(kinds.MODE)
    if mode is not None and mode not in _MODES:
        yield unsupported(f"metadata.annotations[{kinds.MODE}]", mode, _MODES)
    scaler = annotations.get(kinds.AUTOSCALER_CLASS)
    if scaler is not None and scaler not in set(AutoscalerClass):
        yield unsupported(f"metadata.annotations[{kinds.AUTOSCALER_CLASS}]", scaler, AutoscalerClass)


def _longest_suffix(spec: Json) -> str:
    """Return what the longest of the objects' names has behind the service's."""
    found = spec if isinstance(spec, dict) else {}
    predictor = found.get("predictor")
    own = predictor.get("name") if isinstance(predictor, dict) else None
    suffixes = [f"-{own}-predictor" if own else "-predictor"]
    beside = (Transformer.kind, Explainer.kind)
    suffixes += [f"-{kind}" for kind in beside if found.get(str(kind)) is not None]
    return max(suffixes, key=len)


def _refused(manifest: Manifest) -> Iterator[FieldError]:
    details = {path: f"{what}: not supported by Servery yet" for path, what in _NOT_YET.items()}
    for path, detail in {**details, **{f"spec.explainer.{name}": _GONE for name in GONE}}.items():
        found: Json = manifest
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            yield FieldError(path=path, kind=FieldErrorKind.FORBIDDEN, detail=detail)


def _companions(manifest: Manifest) -> Iterator[Transformer | Explainer]:
    """Yield the readers of what the manifest has beside its predictor."""
    predictor = Predictor(manifest)
    host = f"{predictor.object_name}.{predictor.namespace}"
    for reader in (Transformer, Explainer):
        if manifest["spec"].get(str(reader.kind)) is not None:
            yield reader(manifest, host)


def _service(manifest: Manifest, catalog: Catalog) -> InferenceService:
    metadata = manifest["metadata"]
    predictor, companions = Predictor(manifest), tuple(_companions(manifest))
    labels = metadata.get("labels") or {}
    ref = ObjectRef(INFERENCE_SERVICE, Namespace(predictor.namespace), metadata["name"])
    is_first = all(companion.kind is not ComponentKind.TRANSFORMER for companion in companions)
    return InferenceService(
        ref=ref,
        metadata={**metadata, "namespace": predictor.namespace, "annotations": _annotations(predictor)},
        components=(
            predictor.component(
                labels,
                traffic_percent=100 if is_first else 0,
                held=held(ref, catalog) if predictor.is_multi_model else None,
            ),
            *(companion.component(labels) for companion in companions),
        ),
        owned_labels={kinds.SERVICE_LABEL: metadata["name"]},
        mode=_MODES.get(predictor.annotations.get(kinds.MODE, "")),
        stopped=predictor.annotations.get(kinds.STOP, "").lower() == "true",
        cluster_local=any(labels.get(label) == "cluster-local" for label in kinds.VISIBILITY),
        own=kinds.OWN,
        defaults=tuple(chain.from_iterable(found.defaults() for found in (predictor, *companions))),
        warnings=tuple(dict.fromkeys(chain.from_iterable(found.warnings() for found in (predictor, *companions)))),
    )


def _annotations(predictor: Predictor) -> Mapping[str, str]:
    """Return the service's annotations with KServe's own ``modelFormat``, which runtimes' placeholders read."""
    if predictor.model_field is None:
        return predictor.annotations
    request = predictor.request()
    assert request.format is not None
    return {"modelFormat": request.format.name, **predictor.annotations}
