"""Manifests as they are read: what is null is not there, and containers and pods have their fields apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from servery_sdk import quantities
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.lenient import mapping, mappings
from servery_sdk.manifests import Json, Manifest

from servery_dialect_ome import schema


def without_nulls(value: Json) -> Json:
    """Return ``value`` without the fields that are null, which an API server takes for absent."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def sound(value: Json, fits: structural.Schema) -> Json:
    """Return the parts of ``value`` that fit a schema, None where nothing does: rules read what has the right shape.

    A list with an item that does not fit is left out whole: the others would have other indices.
    """
    if isinstance(value, Mapping) and fits.get("type") == "object":
        known: Mapping[str, structural.Schema] = fits.get("properties", {})
        rest = fits.get("additionalProperties", _ANYTHING if not known or fits.get(_OPEN) else None)
        found = {name: sound(inner, known.get(name, rest)) for name, inner in value.items() if known.get(name, rest)}
        kept = {name: inner for name, inner in found.items() if inner is not None}
        return None if set(fits.get("required", ())) - kept.keys() else kept
    if isinstance(value, list) and fits.get("type") == "array":
        items = [sound(item, fits.get("items", _ANYTHING)) for item in value]
        return None if any(item is None for item in items) else items
    return None if any(structural.check(value, fits)) else value


_OPEN = "x-kubernetes-preserve-unknown-fields"
_ANYTHING: structural.Schema = {_OPEN: True}


def beyond(rules: Iterable[FieldError], shape: Sequence[FieldError]) -> Iterator[FieldError]:
    """Yield the errors of rules at fields of whose shape nothing is wrong: that is said already."""
    for error in rules:
        if not any(
            error.path == wrong.path or error.path.startswith((f"{wrong.path}.", f"{wrong.path}[")) for wrong in shape
        ):
            yield error


def all_of(errors: Iterable[FieldError]) -> list[FieldError]:
    """Return errors without those that say the same, sorted by path."""
    return sorted({str(error): error for error in errors}.values(), key=lambda error: error.path)


def container_of(found: Manifest) -> dict[str, Json]:
    """Return the fields that make a container."""
    return {key: value for key, value in found.items() if key in schema.CONTAINER}


def pod_of(found: Manifest) -> dict[str, Json]:
    """Return the fields that make a PodSpec, but for its containers."""
    return {key: value for key, value in found.items() if key in schema.POD and key != "containers"}


def main_of(found: Manifest) -> tuple[dict[str, Json], tuple[Manifest, ...]] | None:
    """Return the container that answers requests and those beside it, None where there is none.

    It is the runner, over the container of its name; without a runner, the first container.
    """
    containers = list(found.get("containers", ()))
    runner = container_of(found.get("runner", {}))
    if "resources" in found:
        runner = over({"resources": found["resources"]}, runner)
    if "runner" in found:
        same: Manifest = next((one for one in containers if one["name"] == runner.get("name")), {})
        return over(same, runner), tuple(one for one in containers if one is not same)
    if containers:
        return over(containers[0], runner), tuple(containers[1:])
    return (runner, ()) if runner else None


def over(base: Manifest, overlay: Manifest) -> dict[str, Json]:
    """Return ``base`` with ``overlay`` over it: objects by field, named lists by name, all else replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        found = merged.get(key)
        if isinstance(found, Mapping) and isinstance(value, Mapping):
            merged[key] = over(found, value)
        elif key in {"env", "volumes", "volumeMounts"} and isinstance(found, list) and isinstance(value, list):
            taken = {item["name"] for item in value}
            merged[key] = [*(item for item in found if item["name"] not in taken), *value]
        else:
            merged[key] = value
    return merged


def with_variables(container: Manifest, variables: Mapping[str, str]) -> Manifest:
    """Return a container with ``variables`` over its own."""
    env = [{"name": name, "value": value} for name, value in variables.items()]
    return over({"env": [], **container}, {"env": env}) if env else container


def container_errors(container: Manifest, path: str) -> Iterator[FieldError]:
    """Yield what is wrong with a container beyond its schema."""
    yield from quantities.resource_errors(container.get("resources"), f"{path}.resources")


def pod_errors(found: Manifest, path: str) -> Iterator[FieldError]:
    """Yield what is wrong with what holds a PodSpec, a runner, a leader and workers, each where it is."""
    yield from container_errors(mapping(found, "runner"), f"{path}.runner")
    # Some hold the resources of their runner themselves.
    yield from container_errors(found, path)
    seen: set[str] = set()
    for index, container in enumerate(mappings(found, "containers")):
        at = f"{path}.containers[{index}]"
        yield from container_errors(container, at)
        name = container.get("name")
        if isinstance(name, str) and name in seen:
            yield FieldError(path=f"{at}.name", kind=FieldErrorKind.DUPLICATE, value=name)
        seen.add(str(name))
    for part in ("leader", "worker"):
        if mapping(found, part):
            yield from pod_errors(mapping(found, part), f"{path}.{part}")
