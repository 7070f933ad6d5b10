"""The fields that a schema has, and values that fit them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from servery_sdk import openapi
from servery_sdk.manifests import Json, Manifest

Schema = Mapping[str, Json]
_FREE = "x-kubernetes-preserve-unknown-fields"
_MANY = 3
_NOT_WRITTEN_BY_USERS = frozenset({"apiVersion", "kind", "metadata", "status"})


@dataclass(frozen=True, slots=True)
class Field:
    """A leaf of a schema.

    Attributes:
        path: ``spec.predictor.containers[].image``.
        holder: ``container`` or ``pod`` where Kubernetes owns the field, else empty.
        alike: ``path: names`` of what has the same schema as something that holds this field, and is not tried itself.
    """

    path: str
    schema: Schema
    holder: str = ""
    alike: str = ""

    @property
    def parent(self) -> str:
        """The path of what holds it, ``.`` included."""
        return self.path[: -len(self.name)] if self.path.endswith(self.name) else ""

    @property
    def name(self) -> str:
        """Its own name; the whole path of what is held by its key."""
        return self.path if self.path.endswith("]") and self.path[-2] != "[" else self.path.rpartition(".")[2]


def fields(schema: Schema) -> Iterator[Field]:
    """Yield the leaves that users write, in the schema's order."""
    for name, inner in schema["properties"].items():
        if name not in _NOT_WRITTEN_BY_USERS:
            yield from _leaves(Field(name, inner))


def _leaves(found: Field) -> Iterator[Field]:
    items = found.schema.get("items", {})
    if "properties" in items and not items.get(_FREE):
        found = replace(found, path=f"{found.path}[]", schema=items)
    properties = found.schema.get("properties")
    if not properties:
        yield found
        return
    alike = _alike(properties)
    for name, inner in properties.items():
        path, holder = f"{found.path}.{name}", _holder(properties, name)
        first, *others = alike.get(name, (name,))
        if name == first:
            said = f"{path}: {', '.join(others)}" if others else found.alike
            yield from _leaves(Field(path, inner, holder, said))


def _alike(properties: Mapping[str, Schema]) -> dict[str, list[str]]:
    """Return the names of objects of one schema, by each of them, where there are at least three."""
    found: list[tuple[Json, list[str]]] = []
    for name, inner in properties.items():
        shape = inner.get("properties")
        same = next((names for known, names in found if shape and known == shape), None)
        if same is None:
            found.append((shape, [name]))
        else:
            same.append(name)
    return {name: names for _, names in found if len(names) >= _MANY for name in names}


def _holder(properties: Mapping[str, Schema], name: str) -> str:
    for holder, known in (("pod", openapi.POD), ("container", openapi.CONTAINER)):
        if name in known and known.keys() <= properties.keys():
            return holder
    return ""


def steps(path: str) -> tuple[str | int, ...]:
    """Return the keys and indices that lead to a path; ``[]`` is the first of a list, ``[a.b/c]`` the key ``a.b/c``."""
    found = re.findall(r"\[([^\]]*)\]|([^.\[]+)", path)
    return tuple(key or inner or 0 for inner, key in found)


def value_at(manifest: Json, path: str) -> Json:
    """Return what a manifest has at ``path``, None where it has nothing."""
    for step in steps(path):
        if isinstance(step, int):
            manifest = manifest[step] if isinstance(manifest, list) and manifest else None
        else:
            manifest = manifest.get(step) if isinstance(manifest, Mapping) else None
    return manifest


def with_value(manifest: Json, path: str, value: Json) -> Json:
    """Return a manifest with ``value`` at ``path``."""
    return _with(manifest, steps(path), value)


def _with(found: Json, way: Sequence[str | int], value: Json) -> Json:
    if not way:
        return value
    first, rest = way[0], way[1:]
    if isinstance(first, int):
        items = found or [None]
        return [_with(items[0], rest, value), *items[1:]]
    holder: Manifest = found or {}
    return {**holder, first: _with(holder.get(first), rest, value)}


def sample(schema: Schema, present: Json) -> Json:
    """Return a value that fits ``schema`` and is not ``present`` nor its default."""
    if schema.get("x-kubernetes-int-or-string"):
        return 2
    if "enum" in schema:
        others = (value for value in schema["enum"] if value not in (present, schema.get("default")))
        return next(others, schema["enum"][0])
    kind = schema.get("type")
    if kind == "boolean":
        return present is not True
    if kind == "integer":
        least = max(schema.get("minimum", 0) + 1, 3)
        wanted = min(least, schema.get("maximum", least))
        return wanted + 1 if wanted == present else wanted
    if kind == "array":
        return [sample(schema.get("items", {}), None)]
    if "properties" in schema:
        return {name: sample(inner, None) for name, inner in schema["properties"].items()}
    if kind == "object":
        return {"example.com/sample": sample(schema.get("additionalProperties") or {"type": "string"}, None)}
    return "sample"
