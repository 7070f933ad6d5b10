"""How many replicas a component has, and what moves the number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.lenient import mapping, text
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import AutoscalerClass, ComponentKind, ScaleMetric, Scaling

from servery_dialect_ome import kinds
from servery_dialect_ome.shapes import Shape

_MOST = {ComponentKind.PREDICTOR: 3, ComponentKind.DECODER: 3, ComponentKind.ROUTER: 2}
"""OME's defaults of maxReplicas."""
DEFAULT_UTILIZATION = 80
_CLASSES = {str(found) for found in (AutoscalerClass.HPA, AutoscalerClass.KEDA, AutoscalerClass.EXTERNAL)}
_METRICS = frozenset({"cpu", "memory"})
_AUTH_MODES = frozenset({"basic", "tls", "bearer", "custom"})
_DEFAULT_SERVER = "http://prometheus-operated.monitoring.svc.cluster.local:9090"
_DEFAULT_THRESHOLD = "10"
_KEDA_ANNOTATION = "autoscaling.keda.sh"
_RISING = frozenset({"GreaterThan", "GreaterThanOrEqual"})


def annotations_of(shape: Shape, annotations: Mapping[str, str]) -> Mapping[str, str]:
    """Return the service's annotations with the component's own over them."""
    own = shape.spec.get("annotations")
    return {**annotations, **(own if isinstance(own, dict) else {})}


def keda_of(shape: Shape, spec: Manifest) -> Manifest:
    """Return the component's own ``kedaConfig``, else the service's."""
    return mapping(shape.spec, "kedaConfig") or mapping(spec, "kedaConfig")


def autoscaler_class(shape: Shape, spec: Manifest, annotations: Mapping[str, str]) -> str:
    """Return who sets the replicas: what an annotation says, else KEDA where it is configured."""
    keda = keda_of(shape, spec)
    # A router has no tokens to count: the service's query is about its engines.
    is_asked = bool(mapping(shape.spec, "kedaConfig")) or shape.kind is not ComponentKind.ROUTER
    by_default = "keda" if keda and is_asked and keda.get("enableKeda", True) is not False else "hpa"
    return annotations_of(shape, annotations).get(kinds.AUTOSCALER_CLASS, by_default)


def errors(shape: Shape, spec: Manifest, annotations: Mapping[str, str]) -> Iterator[FieldError]:
    """Yield what is wrong with a component's replicas and metrics."""
    path, found = shape.path, shape.spec
    fewest, most = found.get("minReplicas"), found.get("maxReplicas")
    if isinstance(fewest, int) and isinstance(most, int) and 0 < most < fewest:
        detail = f"must be greater than or equal to minReplicas ({fewest})"
        yield FieldError(path=f"{path}.maxReplicas", kind=FieldErrorKind.INVALID, value=most, detail=detail)
    target = found.get("scaleTarget")
    is_share = found.get("scaleMetric", "cpu") in _METRICS
    if isinstance(target, int) and not 1 <= target <= (100 if is_share else target):
        detail = "must be between 1 and 100, a percentage" if is_share else "must be at least 1"
        yield FieldError(path=f"{path}.scaleTarget", kind=FieldErrorKind.INVALID, value=target, detail=detail)
    if "minAvailable" in found and "maxUnavailable" in found:
        detail = "a disruption budget has minAvailable or maxUnavailable"
        yield FieldError(path=f"{path}.maxUnavailable", kind=FieldErrorKind.FORBIDDEN, detail=detail)
    if isinstance(found.get("annotations"), dict):
        yield from annotation_errors(found["annotations"], f"{path}.annotations")
    if "kedaConfig" in found:
        yield from keda_errors(mapping(found, "kedaConfig"), f"{path}.kedaConfig")


def annotation_errors(annotations: Mapping[str, Json], path: str) -> Iterator[FieldError]:
    """Yield what is wrong with the annotations about scaling."""
    closed = {
        kinds.AUTOSCALER_CLASS: _CLASSES,
        kinds.METRICS: _METRICS,
        f"{_KEDA_ANNOTATION}/operator": _RISING,
    }
    for name, allowed in closed.items():
        found = annotations.get(name)
        if found is not None and found not in allowed:
            yield unsupported(f"{path}[{name}]", found, allowed)
    share = annotations.get(kinds.TARGET_UTILIZATION)
    if isinstance(share, str) and not (share.isdecimal() and 1 <= int(share) <= 100):
        detail = "must be between 1 and 100, a percentage"
        yield FieldError(
            path=f"{path}[{kinds.TARGET_UTILIZATION}]", kind=FieldErrorKind.INVALID, value=share, detail=detail
        )


def keda_errors(keda: Manifest, path: str) -> Iterator[FieldError]:
    """Yield what is wrong with a ``kedaConfig``."""
    operator = keda.get("scalingOperator")
    if operator in {"LessThan", "LessThanOrEqual"}:
        detail = "KEDA adds replicas as the query's value grows; turn the query round, as in 1/(…)"
        yield FieldError(path=f"{path}.scalingOperator", kind=FieldErrorKind.FORBIDDEN, detail=f"{operator}: {detail}")
    modes = [word.strip() for word in text(keda, "authModes").split(",") if word.strip()]
    for word in modes:
        if word not in _AUTH_MODES:
            yield unsupported(f"{path}.authModes", word, _AUTH_MODES)
    if modes and "authenticationRef" not in keda:
        detail = "authModes say how it is used"
        yield FieldError(path=f"{path}.authenticationRef", kind=FieldErrorKind.REQUIRED, detail=detail)


def scaling(
    shape: Shape, spec: Manifest, annotations: Mapping[str, str], *, service: str, name: str, mode: str | None
) -> Scaling:
    """Return the scaling of a component of ``service`` whose objects are called ``name``."""
    found, said = shape.spec, annotations_of(shape, annotations)
    wanted = AutoscalerClass(autoscaler_class(shape, spec, annotations))
    fewest = found.get("minReplicas", 1)
    said_metric = found.get("scaleMetric") or said.get(kinds.METRICS)
    share = said.get(kinds.TARGET_UTILIZATION)
    target = int(share) if share else found.get("scaleTarget")
    metrics: tuple[Manifest, ...] = ()
    if wanted is AutoscalerClass.KEDA:
        metrics = (_prometheus(keda_of(shape, spec), said, shape, service=service, name=name),)
    elif said_metric == ScaleMetric.MEMORY and mode != kinds.SERVERLESS:
        # OME's target is a percentage of what is requested.
        metrics = (of_memory(target),)
    return Scaling(
        min_replicas=fewest,
        max_replicas=max(fewest, found.get("maxReplicas") or _MOST[shape.kind]),
        autoscaler_class=wanted,
        metric=ScaleMetric(said_metric) if said_metric else None,
        target=target,
        metrics=metrics,
    )


def of_memory(target: int | None) -> Manifest:
    """Return the ``autoscaling/v2`` metric of memory at ``target`` percent of what is requested."""
    of_requested = {"type": "Utilization", "averageUtilization": target or DEFAULT_UTILIZATION}
    return {"type": "Resource", "resource": {"name": "memory", "target": of_requested}}


def _prometheus(
    keda: Manifest, annotations: Mapping[str, str], shape: Shape, *, service: str, name: str
) -> dict[str, Json]:
    """Return KEDA's trigger in the form of an ``autoscaling/v2`` External metric.

    Source: OME's KEDA reconciler, but for the default query, which never scaled: its sums of 0 and 1 stay below its
    threshold. Ours is the number of requests that engines compute or let wait.
    """
    asked = annotations.get(f"{_KEDA_ANNOTATION}/prometheus.query") or keda.get("customPromQuery")
    query = asked.replace("%s", name) if asked else _waiting(service, shape.word)
    server = annotations.get(f"{_KEDA_ANNOTATION}/prometheus.serverAddress") or keda.get("promServerAddress")
    threshold = annotations.get(f"{_KEDA_ANNOTATION}/threshold") or keda.get("scalingThreshold")
    external: dict[str, Json] = {
        "metric": {"backend": "prometheus", "serverAddress": server or _DEFAULT_SERVER, "query": query},
        "target": {"type": "AverageValue", "value": threshold or _DEFAULT_THRESHOLD},
    }
    if "authenticationRef" in keda:
        reference = {"kind": "TriggerAuthentication", **keda["authenticationRef"]}
        external["authenticationRef"] = {"authenticationRef": reference}
        if modes := keda.get("authModes"):
            external["authenticationRef"]["authModes"] = modes
    return {"type": "External", "external": external}


def _waiting(service: str, word: str) -> str:
    requests = "vllm:num_requests_(running|waiting)|sglang:num_(running|queue)_reqs"
    return f'sum({{__name__=~"{requests}",ome_io_inferenceservice="{service}",component="{word}"}})'
