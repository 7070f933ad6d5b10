"""From an InferenceService manifest, older or newer, to what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk import names, openapi
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid, unsupported
from servery_sdk.kinds import SERVICE_ACCOUNT
from servery_sdk.lenient import mapping, text
from servery_sdk.manifests import CLUSTER, Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import Catalog, ComponentKind, InferenceService

from servery_dialect_ome import kinds, models, modes, scaling, schema, shapes
from servery_dialect_ome.components import components, entry
from servery_dialect_ome.plain import all_of, beyond, sound, without_nulls
from servery_dialect_ome.resolved import Resolved, resolve
from servery_dialect_ome.shapes import Shapes

_DEFAULT_NAMESPACE = "default"
_NO_CHOICE = "Servery does not choose among accelerator classes yet; name one in acceleratorClass"
_NOT_YET: Mapping[str, str] = {
    f"{holder}.{name}": _NO_CHOICE
    for holder in (
        "spec.acceleratorSelector",
        "spec.engine.acceleratorOverride",
        "spec.decoder.acceleratorOverride",
    )
    for name in ("policy", "constraints")
}
"""Field paths of which Servery cannot give the meaning yet, and what to do."""

_NOT_YET_ANNOTATIONS: Mapping[str, str] = {
    f"{kinds.GROUP}/load-balancer-ip": "set spec.loadBalancerIP by the annotations of your cloud's load balancer",
    f"{kinds.GROUP}/inject-serving-sidecar": "write the sidecar into the component's containers",
    f"{kinds.GROUP}/enable-metric-aggregation": "scrape the server's own port",
    f"{kinds.GROUP}/enable-prometheus-scraping": "write prometheus.io/scrape, port and path into the annotations",
    f"{kinds.GROUP}/enable-tag-routing": "call a revision by the URL in status.components",
    "rdma.ome.io/auto-inject": "write the devices, variables and privileges into the runtime",
    **{
        f"{kinds.GROUP}/ingress-{name}": "hosts are the installation's to choose"
        for name in (
            "domain-template",
            "domain",
            "additional-domains",
            "url-scheme",
            "path-template",
            "disable-istio-virtualhost",
        )
    },
}
"""Annotations likewise."""

_SERVICE_TYPES = frozenset({"ClusterIP", "NodePort", "LoadBalancer"})


def parse(manifest: Manifest, catalog: Catalog) -> InferenceService:
    """Return what ``manifest`` means.

    Raises:
        Invalid: Every error at once.
    """
    found = without_nulls(manifest)
    shape = [*structural.check(manifest, schema.SERVICE), *_metadata_shape(found.get("metadata"))]
    spec = mapping(sound(found, schema.SERVICE) or {}, "spec")
    metadata = sound(found.get("metadata"), openapi.METADATA) or {}
    form = shapes.shapes(spec)
    annotations: Mapping[str, str] = metadata.get("annotations", {})
    namespace = Namespace(metadata.get("namespace") or _DEFAULT_NAMESPACE)
    resolved = resolve(form, spec, annotations, namespace, catalog)
    rules = [
        *_metadata_errors(metadata, form),
        *_not_yet(spec),
        *shapes.errors(spec),
        *_scaling_errors(form, spec, annotations),
        *resolved.errors,
    ]
    if errors := [*shape, *beyond(rules, shape)]:
        raise Invalid(all_of(errors))
    return _service(found, form, resolved, namespace)


def references(manifest: Manifest) -> frozenset[ObjectRef]:
    """Return models, weights, accelerator classes and service accounts that ``parse`` and planning look for."""
    found = without_nulls(manifest) if isinstance(manifest, Mapping) else {}
    spec = mapping(sound(found, schema.SERVICE) or {}, "spec") or mapping(_partly(found), "spec")
    metadata = sound(found.get("metadata"), openapi.METADATA) or {}
    namespace = Namespace(metadata.get("namespace") or _DEFAULT_NAMESPACE)
    form = shapes.shapes(spec)
    refs: set[ObjectRef] = set(models.references(form.model, namespace)) if form.model else set()
    refs |= {ObjectRef(kinds.FINE_TUNED_WEIGHT, CLUSTER, name) for name in form.weights}
    selectors = [mapping(spec, "acceleratorSelector")]
    for shape in form.components:
        selectors.append(mapping(shape.spec, "acceleratorOverride"))
        if shape.kind is not ComponentKind.ROUTER:
            account = text(shape.spec, "serviceAccountName") or "default"
            refs.add(ObjectRef(SERVICE_ACCOUNT, namespace, account))
    refs |= {
        ObjectRef(kinds.ACCELERATOR_CLASS, CLUSTER, name)
        for selector in selectors
        if (name := text(selector, "acceleratorClass"))
    }
    return frozenset(refs)


def _partly(found: Manifest) -> Manifest:
    """Return the spec of a manifest of which other parts are wrong."""
    return {"spec": sound(found.get("spec"), schema.SERVICE["properties"]["spec"]) or {}}


def _metadata_shape(metadata: Json) -> Iterator[FieldError]:
    if metadata is None:
        yield FieldError(path="metadata", kind=FieldErrorKind.REQUIRED)
    else:
        yield from structural.check(metadata, openapi.METADATA, "metadata")


def _metadata_errors(metadata: Manifest, form: Shapes) -> Iterator[FieldError]:
    longest = max((shape.word for shape in form.components), key=len, default="engine")
    wrong = names.objection(metadata.get("name"), "metadata.name", suffix=f"-{longest}")
    if wrong is not None:
        yield wrong
    annotations: Mapping[str, str] = metadata.get("annotations", {})
    path = "metadata.annotations"
    yield from modes.errors(annotations, path)
    yield from scaling.annotation_errors(annotations, path)
    for name, why in _NOT_YET_ANNOTATIONS.items():
        if name in annotations and annotations[name].lower() != "false":
            detail = f"not supported by Servery yet; {why}"
            yield FieldError(path=f"{path}[{name}]", kind=FieldErrorKind.FORBIDDEN, detail=detail)
    wanted = annotations.get(kinds.SERVICE_TYPE, "ClusterIP")
    if wanted not in _SERVICE_TYPES:
        yield unsupported(f"{path}[{kinds.SERVICE_TYPE}]", wanted, _SERVICE_TYPES)


def _not_yet(spec: Manifest) -> Iterator[FieldError]:
    for path, why in _NOT_YET.items():
        found: Json = {"spec": spec}
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            yield FieldError(path=path, kind=FieldErrorKind.FORBIDDEN, detail=why)


def _scaling_errors(form: Shapes, spec: Manifest, annotations: Mapping[str, str]) -> Iterator[FieldError]:
    if "kedaConfig" in spec:
        yield from scaling.keda_errors(spec["kedaConfig"], "spec.kedaConfig")
    for shape in form.components:
        yield from scaling.errors(shape, spec, annotations)
        yield from modes.errors(shape.spec.get("annotations", {}), f"{shape.path}.annotations")
    yield from modes.component_errors(form, spec, annotations)


def _service(manifest: Manifest, form: Shapes, resolved: Resolved, namespace: Namespace) -> InferenceService:
    metadata, spec = manifest["metadata"], manifest["spec"]
    annotations: Mapping[str, str] = metadata.get("annotations", {})
    labels: Mapping[str, str] = metadata.get("labels", {})
    mode = modes.mode(form, spec, annotations)
    made = components(manifest, form, resolved, mode)
    return InferenceService(
        ref=ObjectRef(kinds.INFERENCE_SERVICE, namespace, metadata["name"]),
        metadata={**metadata, "namespace": namespace},
        components=made,
        owned_labels={kinds.SERVICE_LABEL: metadata["name"]},
        mode=modes.MODES[mode] if mode is not None else None,
        # Knative's requests come through its gateway, by the component's own name.
        entry=None if mode == kinds.SERVERLESS else entry(metadata["name"], annotations, made),
        cluster_local=annotations.get(kinds.NO_INGRESS, "").lower() == "true"
        or any(labels.get(label) == "cluster-local" for label in kinds.VISIBILITY),
        own=kinds.OWN,
        defaults=tuple(_defaults(form, resolved)),
        warnings=tuple(_warnings(form, spec, mode, annotations)),
    )


def _defaults(form: Shapes, resolved: Resolved) -> Iterator[str]:
    for shape in form.components:
        if "minReplicas" not in shape.spec:
            yield f"{shape.path}.minReplicas: 1 (OME's default)"
    if resolved.runtime and not form.runtime:
        yield (
            f"{form.runtime_path}: {resolved.runtime} (the base model says no modelFormat; the runtime is named for it)"
        )


def _warnings(form: Shapes, spec: Manifest, mode: str | None, annotations: Mapping[str, str]) -> Iterator[str]:
    engine = form.components[0]
    if engine.joins_args:
        yield "spec.predictor: the older form; spec.engine, spec.model and spec.runtime say the same"
    if mode in kinds.PLAIN and modes.word(annotations) == kinds.SERVERLESS:
        yield f"metadata.annotations[{kinds.MODES[0]}]: a service with a decoder runs as plain objects, not Serverless"
    is_hpa = scaling.autoscaler_class(engine, spec, annotations) == "hpa"
    if engine.spec.get("minReplicas") == 0 and mode in kinds.PLAIN and is_hpa:
        yield f"{engine.path}.minReplicas: a HorizontalPodAutoscaler keeps one replica"
