"""From a ServingRuntime manifest to a Runtime."""

from __future__ import annotations

from collections.abc import Iterator

from servery_sdk import openapi
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid
from servery_sdk.manifests import CLUSTER, Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import Adaptation, ComponentKind, Part, Protocol, Runtime, RuntimeScope, SupportedFormat

from servery_dialect_kserve import schema
from servery_dialect_kserve.kinds import (
    CLUSTER_SERVING_RUNTIME,
    MAIN_CONTAINER,
    SERVER_TYPE,
    SERVING_RUNTIME,
)
from servery_dialect_kserve.server_types import ADAPTATIONS, BY_NAME


def parse(manifest: Manifest) -> Runtime:
    """Return what a runtime object means.

    Raises:
        Invalid: Every error at once.
    """
    errors = list(structural.check(manifest, schema.RUNTIME))
    errors += _metadata_errors(manifest.get("metadata"))
    # Rules read what has the right shape.
    if not any(error.path.startswith("spec.containers") or error.path == "spec" for error in errors):
        errors += _container_errors(manifest["spec"]["containers"])
    if errors:
        raise Invalid(sorted(errors, key=lambda error: error.path))
    metadata, spec = manifest["metadata"], manifest["spec"]
    main = _main(spec["containers"])
    is_cluster = manifest.get("kind") == CLUSTER_SERVING_RUNTIME.kind
    kind = CLUSTER_SERVING_RUNTIME if is_cluster else SERVING_RUNTIME
    namespace = CLUSTER if is_cluster else Namespace(metadata.get("namespace") or "default")
    pod = {key: value for key, value in spec.items() if key in openapi.POD and key != "containers"}
    others = [container for index, container in enumerate(spec["containers"]) if index != main]
    if others:
        pod["containers"] = others
    return Runtime(
        name=metadata["name"],
        scope=RuntimeScope.CLUSTER if is_cluster else RuntimeScope.NAMESPACE,
        ref=ObjectRef(kind, namespace, metadata["name"]),
        formats=tuple(
            SupportedFormat(
                name=found["name"],
                version=found.get("version"),
                auto_select=bool(found.get("autoSelect")),
                priority=found.get("priority"),
            )
            for found in spec.get("supportedModelFormats") or ()
        ),
        protocols=frozenset(Protocol(found) for found in spec.get("protocolVersions") or ()),
        image=spec["containers"][main].get("image", ""),
        parts={
            ComponentKind.PREDICTOR: Part(
                container={key: value for key, value in spec["containers"][main].items() if key != "name"},
                pod=pod,
                labels=spec.get("labels") or {},
                annotations=spec.get("annotations") or {},
            )
        },
        adaptations=_adaptations(metadata),
        disabled=bool(spec.get("disabled")),
        multi_model=bool(spec.get("multiModel")),
        multi_node=spec.get("workerSpec") is not None,
        created=metadata.get("creationTimestamp") or "",
    )


def _adaptations(metadata: Manifest) -> tuple[Adaptation, ...]:
    annotated = (metadata.get("annotations") or {}).get(SERVER_TYPE)
    return ADAPTATIONS.get(annotated or BY_NAME.get(metadata["name"], ""), ())


def _metadata_errors(metadata: Json) -> Iterator[FieldError]:
    if metadata is not None:
        yield from structural.check(metadata, openapi.METADATA, "metadata")
    if metadata is None or (isinstance(metadata, dict) and not metadata.get("name")):
        yield FieldError(path="metadata.name", kind=FieldErrorKind.REQUIRED)


def _container_errors(containers: list[Manifest]) -> Iterator[FieldError]:
    names = [container.get("name") for container in containers]
    if not containers:
        yield FieldError(path="spec.containers", kind=FieldErrorKind.REQUIRED)
    elif len(containers) > 1 and MAIN_CONTAINER not in names:
        detail = f"one of several containers must be named {MAIN_CONTAINER}"
        yield FieldError(path="spec.containers", kind=FieldErrorKind.INVALID, value=names, detail=detail)
    elif len(containers) > 1:
        for index in (index for index, name in enumerate(names) if not name):
            yield FieldError(path=f"spec.containers[{index}].name", kind=FieldErrorKind.REQUIRED)


def _main(containers: list[Manifest]) -> int:
    """Return where the main container is: the one of that name, or the only one."""
    names = [container.get("name") for container in containers]
    return names.index(MAIN_CONTAINER) if MAIN_CONTAINER in names else 0
