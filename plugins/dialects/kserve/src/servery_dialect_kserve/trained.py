"""TrainedModel: a model that a predictor holds beside others.

Source: KServe pkg/apis/serving/v1alpha1/trainedmodel_types.go, pkg/controller/v1alpha1/trainedmodel.
"""

from __future__ import annotations

from collections.abc import Mapping

from servery_sdk import schema as structural
from servery_sdk import statuses
from servery_sdk.lenient import mapping, text
from servery_sdk.manifests import Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import Catalog, HeldModel, HeldStatus

from servery_dialect_kserve import schema
from servery_dialect_kserve.kinds import INFERENCE_SERVICE, TRAINED_MODEL

ALONE = frozenset({"huggingface", "vLLM"})
"""Formats whose servers find their model by themselves: without a storage URI they hold that one."""

MULTI_MODEL_SERVER = "MULTI_MODEL_SERVER"
"""KServe's variable that a custom predictor says it with."""


def holder(manifest: Manifest) -> ObjectRef:
    """Return the InferenceService that ``manifest`` names. Total: never raises."""
    namespace = Namespace(text(mapping(manifest, "metadata"), "namespace") or "default")
    return ObjectRef(INFERENCE_SERVICE, namespace, text(mapping(manifest, "spec"), "inferenceService"))


def held(service: ObjectRef, catalog: Catalog) -> tuple[HeldModel, ...]:
    """Return what names ``service``, oldest first; what an API server would not have taken is none of them."""
    found = [
        _model(ref, manifest)
        for ref, manifest in catalog.objects.items()
        if ref.kind == TRAINED_MODEL
        and holder(manifest) == service
        and not any(structural.check(manifest, schema.TRAINED_MODEL))
    ]
    return tuple(sorted(found, key=lambda model: (model.created, model.ref.name)))


def _model(ref: ObjectRef, manifest: Manifest) -> HeldModel:
    model = manifest["spec"]["model"]
    return HeldModel(
        ref=ref,
        uri=model["storageUri"],
        framework=model["framework"],
        memory=str(model["memory"]),
        created=text(mapping(manifest, "metadata"), "creationTimestamp"),
    )


def is_multi_model(predictor: Manifest, model_field: str | None) -> bool:
    """Return whether a predictor's models come from TrainedModels: KServe's IsMMSPredictor.

    Source: KServe pkg/controller/v1beta1/inferenceservice/utils/utils.go.
    """
    if model_field is None:
        containers = predictor.get("containers") or [{}]
        return {"name": MULTI_MODEL_SERVER, "value": "true"} in (containers[0].get("env") or [])
    model = predictor[model_field]
    named = (model.get("modelFormat") or {}).get("name", model_field)
    has_source = any(model.get(field) is not None for field in ("storageUri", "storage"))
    return not has_source and predictor.get("storageUris") is None and named not in ALONE


def status(found: HeldStatus) -> Mapping[str, Json]:
    """Return ``.status`` as KServe's users and tools read it."""
    written: dict[str, Json] = {
        "observedGeneration": found.observed_generation,
        "conditions": [statuses.condition(one) for one in sorted(found.conditions, key=lambda one: one.type)],
        "url": found.url,
        "address": {"url": found.address} if found.address else None,
    }
    return {key: value for key, value in written.items() if value is not None}
