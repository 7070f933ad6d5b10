"""What of a service is its user's own, whatever dialect it was written in: what ``Dialect.write`` carries over.

A dialect names objects, labels pods and promises variables by itself; none of that is said again in another dialect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Component, InferenceService

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NOBODY = "answers"
"""Stands for the name of a main container where names are not compared."""


def refusal(path: str, dialect: str, what: str) -> FieldError:
    """Return the error for what a dialect has no words for."""
    return FieldError(path=path, kind=FieldErrorKind.FORBIDDEN, detail=f"{dialect} cannot say {what}")


def users(service: InferenceService, found: Mapping[str, str] | None) -> dict[str, str]:
    """Return the labels or annotations among ``found`` that are not the dialect's own, nor kubectl's."""
    keys = (found or {}).items()
    return {key: value for key, value in keys if key not in service.own and key != _LAST_APPLIED and value is not None}


def metadata(service: InferenceService) -> dict[str, Json]:
    """Return the ObjectMeta that the user would write again: name, namespace, labels, annotations."""
    made: dict[str, Json] = {"name": service.ref.name, "namespace": service.ref.namespace}
    for field in ("labels", "annotations"):
        if given := users(service, service.metadata.get(field)):
            made[field] = given
    return made


def beyond(service: InferenceService, component: Component) -> dict[str, dict[str, str]]:
    """Return a component's ``labels`` and ``annotations`` that the service's own do not say already."""
    made = {}
    for field, found in (("labels", component.labels), ("annotations", component.annotations)):
        shared = users(service, service.metadata.get(field))
        if own := {key: value for key, value in users(service, found).items() if shared.get(key) != value}:
            made[field] = own
    return made


def metadata_errors(
    service: InferenceService, dialect: str, own: frozenset[str], *, shared: bool
) -> Iterator[FieldError]:
    """Yield the labels and annotations that would mean something else in ``dialect``.

    Args:
        own: The keys that are that dialect's own words.
        shared: Its pods get the labels and annotations of their service.
    """
    for field in ("labels", "annotations"):
        given = users(service, service.metadata.get(field))
        for component in service.components:
            of_pods = users(service, getattr(component, field))
            for key in sorted(of_pods.keys() & own - given.keys()):
                yield refusal(component.field_path, dialect, f"{field[:-1]} {key}: there it is a word of its own")
            if shared:
                for key in sorted(given.keys() - of_pods.keys()):
                    what = f"a {field[:-1]} of the service alone: its pods get it as well"
                    yield refusal(f"metadata.{field}[{key}]", dialect, what)
        for key in sorted(given.keys() & own):
            yield refusal(f"metadata.{field}[{key}]", dialect, "this key as the user's: there it is a word of its own")


def main(component: Component) -> Manifest:
    """Return the container that answers requests, as far as the manifest says it."""
    listed: list[Manifest] = component.pod.get("containers") or []
    named = next((found for found in listed if found.get("name") == component.main_container), {})
    return {**component.container, **named} if component.runtime is not None else named


def fields(component: Component) -> frozenset[str]:
    """Return the names of all fields that the manifest has over the runtime's containers and pods."""
    workers = (component.workers.container, component.workers.pod) if component.workers is not None else ()
    return frozenset(name for found in (component.container, component.pod, *workers) for name in found)


def carried(service: InferenceService, component: Component) -> dict[str, str]:
    """Return the promised variables that are more than a promise, so that they have to be said in any dialect.

    That is one which the container's own words use (``$(NAME)``), and one whose value nothing else says: neither the
    service's name nor a directory that is mounted, such as settings of the model.
    """
    container = main(component)
    mounts = {str(mount.get("mountPath")) for mount in container.get("volumeMounts") or ()}
    known = {service.ref.name, *(artifact.mount_path for artifact in component.artifacts), *mounts}
    return {name: value for name, value in component.env.items() if value not in known or uses(component, name)}


def uses(component: Component, variable: str) -> bool:
    """Return whether the words of a manifest refer to a variable, as Kubernetes or a shell writes it."""
    workers = (component.workers.container, component.workers.pod) if component.workers is not None else ()
    words = json.dumps([component.container, component.pod, *workers], default=str)
    return re.search(rf"\$[({{]?{re.escape(variable)}\b", words) is not None


def promises(service: InferenceService, component: Component) -> frozenset[str]:
    """Return the names of the variables that a dialect promises by itself, and that nobody needs to say again."""
    promised = {*component.env.keys() - carried(service, component).keys()}
    if component.accelerators_env is not None and not uses(component, component.accelerators_env):
        promised.add(component.accelerators_env)
    return frozenset(promised - {variable.get("name") for variable in main(component).get("env") or ()})


def with_env(container: Manifest, variables: Mapping[str, str]) -> dict[str, Json]:
    """Return a container with ``variables`` before its own, which win."""
    given = container.get("env") or []
    names = {variable.get("name") for variable in given}
    added = [{"name": name, "value": value} for name, value in variables.items() if name not in names]
    return {**container, "env": [*added, *given]} if added else dict(container)


def containers(component: Component, name: str) -> list[dict[str, Json]]:
    """Return the pod's containers with ``name`` for the one that answers, that one first."""
    listed: list[Manifest] = component.pod.get("containers") or []
    answering = [{**found, "name": name} for found in listed if found.get("name") == component.main_container]
    return [*answering, *(dict(found) for found in listed if found.get("name") != component.main_container)]


def name_errors(component: Component, dialect: str, name: str) -> Iterator[FieldError]:
    """Yield an error where a container beside the one that answers has the name that ``dialect`` gives to that one."""
    listed: list[Manifest] = component.pod.get("containers") or []
    if component.main_container != name and any(found.get("name") == name for found in listed):
        yield refusal(
            component.field_path, dialect, f"a container {name} beside the one that answers, which has that name"
        )


def meaning(service: InferenceService) -> InferenceService:
    """Return ``service`` without its paths, its dialect's own names and words: equal for manifests that mean the same.

    Promised variables stand among the container's own, as far as they are more than a promise; the container that
    answers has one name everywhere; ``metadata`` is what the user would write again.
    """
    return replace(
        service,
        metadata=metadata(service),
        components=tuple(_meaning(service, component) for component in service.components),
        defaults=(),
        warnings=(),
    )


def _meaning(service: InferenceService, component: Component) -> Component:
    variables = carried(service, component)
    pod = dict(component.pod)
    if "containers" in pod:
        pod["containers"] = containers(component, _NOBODY)
    container = dict(component.container)
    if component.runtime is not None:
        container = with_env(container, variables)
    elif variables:
        pod["containers"] = [with_env(pod["containers"][0], variables), *pod["containers"][1:]]
    return replace(
        component,
        main_container=_NOBODY,
        runtime=replace(component.runtime, field_path="") if component.runtime is not None else None,
        artifacts=tuple(replace(artifact, field_path="") for artifact in component.artifacts),
        container=container,
        pod=pod,
        env={},
        workers=replace(component.workers, pod=_renamed(component.workers.pod, component.main_container))
        if component.workers is not None
        else None,
        replaced=component.replaced & fields(component),
        labels=users(service, component.labels),
        annotations=users(service, component.annotations),
        # Which revision was rolled out is no wish; the status of the manifest says it.
        canary=replace(component.canary, stable_revision=None) if component.canary is not None else None,
        field_path="",
    )


def _renamed(pod: Manifest, main_container: str) -> Manifest:
    listed = [
        {**found, "name": _NOBODY} if found.get("name") == main_container else found
        for found in pod.get("containers") or ()
    ]
    return {**pod, "containers": listed} if listed else pod
