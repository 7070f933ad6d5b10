"""Which mode a service asks for, in OME's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.manifests import Manifest
from servery_sdk.model import ComponentKind

from servery_dialect_ome import kinds
from servery_dialect_ome.scaling import autoscaler_class
from servery_dialect_ome.shapes import Shapes

MODES = {
    kinds.RAW_DEPLOYMENT: "raw",
    kinds.SERVERLESS: "knative",
    "MultiNode": "raw",
    "MultiNodeRayVLLM": "ray",
    "PDDisaggregated": "raw",
}
"""OME's words for ways to run a service, and the modes that they mean."""

_NOT_YET = {"VirtualDeployment": "a service without servers of its own: not supported by Servery yet"}


def mode(shapes: Shapes, spec: Manifest, annotations: Mapping[str, str]) -> str | None:
    """Return OME's word for the mode, one of ``MODES``; None leaves it to the installation.

    The engine's own annotation comes before the service's. Without either, several pods a replica or a decoder are
    plain objects, and an engine that may go to nothing is Knative's, unless something else scales it.

    Source: OME utils/deployment.go; a decoder keeps its engine from Knative there as well.
    """
    asked = _asked(shapes, annotations)
    kinds_there = {shape.kind for shape in shapes.components}
    if ComponentKind.DECODER in kinds_there and asked == kinds.SERVERLESS:
        return kinds.RAW_DEPLOYMENT
    if asked is not None:
        return asked
    engine = shapes.components[0]
    if ComponentKind.DECODER in kinds_there or engine.spec.keys() & {"leader", "worker"}:
        return kinds.RAW_DEPLOYMENT
    is_hpa = autoscaler_class(engine, spec, annotations) == "hpa"
    return kinds.SERVERLESS if engine.spec.get("minReplicas") == 0 and is_hpa else None


def word(annotations: Mapping[str, str]) -> str | None:
    """Return the mode's word among ``annotations``, in either spelling."""
    return next((annotations[name] for name in kinds.MODES if name in annotations), None)


def _asked(shapes: Shapes, annotations: Mapping[str, str]) -> str | None:
    own: Mapping[str, str] = shapes.components[0].spec.get("annotations", {})
    return word(own) or word(annotations)


def errors(annotations: Mapping[str, str], path: str) -> Iterator[FieldError]:
    """Yield what is wrong with the mode's annotation at ``path``."""
    for name in kinds.MODES:
        found = annotations.get(name)
        if found in _NOT_YET:
            yield FieldError(
                path=f"{path}[{name}]", kind=FieldErrorKind.FORBIDDEN, detail=f"{found}: {_NOT_YET[found]}"
            )
        elif found is not None and found not in MODES:
            yield unsupported(f"{path}[{name}]", found, MODES)


def component_errors(shapes: Shapes, spec: Manifest, annotations: Mapping[str, str]) -> Iterator[FieldError]:
    """Yield what components ask for that their service's mode has not."""
    if not shapes.components or _unknown(shapes, annotations):
        return
    found = mode(shapes, spec, annotations)
    if found == kinds.SERVERLESS and annotations.get(kinds.SERVICE_TYPE, "ClusterIP") != "ClusterIP":
        detail = "Knative's requests come through its gateway; only plain objects have a Service of another type"
        yield FieldError(
            path=f"metadata.annotations[{kinds.SERVICE_TYPE}]", kind=FieldErrorKind.FORBIDDEN, detail=detail
        )
    for shape in shapes.components:
        if 0 < shape.spec.get("canaryTrafficPercent", 0) < 100 and found != kinds.SERVERLESS:
            detail = f"only revisions share traffic; set metadata.annotations[{kinds.MODES[0]}] to Serverless"
            yield FieldError(path=f"{shape.path}.canaryTrafficPercent", kind=FieldErrorKind.FORBIDDEN, detail=detail)
        own = shape.spec.get("annotations", {})
        if (
            shape is not shapes.components[0]
            and (asked := word(own)) is not None
            and MODES.get(asked) != MODES.get(found or "")
        ):
            detail = f"all components of a service run in one mode, which is {found or 'the default'}"
            where = next(name for name in kinds.MODES if name in own)
            yield FieldError(
                path=f"{shape.path}.annotations[{where}]", kind=FieldErrorKind.INVALID, value=asked, detail=detail
            )
        is_hpa = autoscaler_class(shape, spec, annotations) == "hpa"
        if (
            shape.spec.get("minReplicas") == 0
            and found != kinds.SERVERLESS
            and is_hpa
            and shape is not shapes.components[0]
        ):
            detail = "a HorizontalPodAutoscaler keeps one; scale it by KEDA, or all of the service by Serverless"
            yield FieldError(path=f"{shape.path}.minReplicas", kind=FieldErrorKind.INVALID, value=0, detail=detail)


def _unknown(shapes: Shapes, annotations: Mapping[str, str]) -> bool:
    asked = _asked(shapes, annotations)
    return asked is not None and asked not in MODES
