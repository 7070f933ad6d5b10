"""Who owns which field: how server-side apply merges, and what ``metadata.managedFields`` says.

A field is a path of steps, spelled as FieldsV1 spells them: ``f:spec``, ``k:{"name":"main"}``, ``v:"finalizer"``.

Source: Kubernetes "Server-Side Apply"; sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from servery_sdk.manifests import Json, Manifest
from servery_sdk.schema import Schema

Path: TypeAlias = tuple[str, ...]
Fields: TypeAlias = frozenset[Path]


class Manager(NamedTuple):
    """Who wrote: one entry of ``managedFields``."""

    name: str
    operation: Literal["Apply", "Update"]
    subresource: str = ""


Owned: TypeAlias = Mapping[Manager, Fields]


class Shape(Protocol):
    """How the values at one place of a type merge."""

    @property
    def is_atomic(self) -> bool:
        """The map here is one value."""

    @property
    def is_set(self) -> bool:
        """The list here is a set of scalars."""

    def field(self, name: str) -> Shape:
        """Return the shape of a field, or of an item's."""

    def keys(self, items: Sequence[Json]) -> tuple[str, ...] | None:
        """Return the fields that tell the items of the list here apart, None where the list is one value."""


_LIST_MAP_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_ATOMIC = frozenset(
    {"selector", "nodeSelector", "secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef", "scaleTargetRef"}
)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A place of Kubernetes' own types, which are told by their fields' names."""

    name: str = ""

    @property
    def is_atomic(self) -> bool:
        """Selectors and references are whole or not at all."""
        return self.name in _ATOMIC

    @property
    def is_set(self) -> bool:
        """Finalizers are the one set that is written here."""
        return self.name == "finalizers"

    def field(self, name: str) -> Shape:
        """Return the shape of a field."""
        return BuiltIn(name)

    def keys(self, items: Sequence[Json]) -> tuple[str, ...] | None:
        """Return the type's keys; those of ``ports`` depend on whose ports they are."""
        if not all(isinstance(item, Mapping) for item in items):
            return None
        if self.name == "ports" and items:
            return ("containerPort", "protocol") if "containerPort" in items[0] else ("port", "protocol")
        return _LIST_MAP_KEYS.get(self.name)


@dataclass(frozen=True, slots=True)
class Declared:
    """A place of a custom resource, as its schema declares it."""

    schema: Schema
    is_root: bool = False

    @property
    def is_atomic(self) -> bool:
        """By ``x-kubernetes-map-type``."""
        return self.schema.get("x-kubernetes-map-type") == "atomic"

    @property
    def is_set(self) -> bool:
        """By ``x-kubernetes-list-type``."""
        return self.schema.get("x-kubernetes-list-type") == "set"

    def field(self, name: str) -> Shape:
        """Return the shape of a field; metadata is Kubernetes' own."""
        if self.is_root and name == "metadata":
            return BuiltIn("metadata")
        inner = self.schema.get("items", self.schema)
        known = inner.get("properties", {}).get(name, inner.get("additionalProperties"))
        return Declared(known if isinstance(known, Mapping) else {})

    def keys(self, items: Sequence[Json]) -> tuple[str, ...] | None:
        """Return ``x-kubernetes-list-map-keys``."""
        if self.schema.get("x-kubernetes-list-type") != "map":
            return None
        return tuple(self.schema.get("x-kubernetes-list-map-keys", ()))


_UNOWNED_METADATA = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp"}
)


def fields(manifest: Manifest, shape: Shape) -> dict[Path, Json]:
    """Return every field that somebody who writes ``manifest`` owns, with its value."""
    metadata = {key: value for key, value in manifest.get("metadata", {}).items() if key not in _UNOWNED_METADATA}
    metadata.pop("managedFields", None)
    owned = {key: value for key, value in manifest.items() if key not in {"apiVersion", "kind", "metadata"}}
    written = {**owned, "metadata": metadata} if metadata else owned
    return dict(_leaves(written, shape)) if written else {}


def apply(live: Manifest, wanted: Manifest, shape: Shape, manager: Manager, owned: Owned) -> tuple[Manifest, Owned]:
    """Return ``live`` with ``wanted`` merged in, and who owns what then.

    What ``manager`` applied before and no longer wants goes, unless somebody else owns it too. It takes over what it
    changes.
    """
    asked = fields(wanted, shape)
    others = frozenset(path for other, paths in owned.items() if other != manager for path in paths)
    above = {path[:depth] for path in asked.keys() | others for depth in range(1, len(path))}
    gone = owned.get(manager, frozenset()) - asked.keys() - others
    # What was empty or a scalar may be a map by now; an item goes by what is left of it.
    dropped = frozenset(path for path in gone if path not in above or path[-1].startswith("k:"))
    left = (_without(live, _Tree.of(dropped), _Tree.of(others), shape) or {}) if dropped else live
    merged = _overlaid(left, wanted, shape)
    return merged, _handed_over(owned, fields(live, shape), asked, fields(merged, shape), manager, frozenset(asked))


def update(live: Manifest, wanted: Manifest, shape: Shape, manager: Manager, owned: Owned) -> Owned:
    """Return who owns what after ``wanted`` has replaced ``live``: ``manager`` what it changed."""
    before, after = fields(live, shape), fields(wanted, shape)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    kept = owned.get(manager, frozenset()) & after.keys()
    return _handed_over(owned, before, after, after, manager, kept | changed)


def managed_fields(paths: Fields) -> dict[str, Json]:
    """Return ``fieldsV1``."""
    written: dict[str, Json] = {}
    for path in sorted(paths):
        at = written
        for step in path:
            at = at.setdefault(step, {})
        if path[-1].startswith("k:"):
            at["."] = {}
    return written


def _handed_over(
    owned: Owned,
    before: Mapping[Path, Json],
    asked: Mapping[Path, Json],
    there: Mapping[Path, Json],
    manager: Manager,
    own: Fields,
) -> Owned:
    taken = {path for path, value in asked.items() if path not in before or before[path] != value}
    kept = {
        other: left for other, paths in owned.items() if other != manager and (left := (paths - taken) & there.keys())
    }
    return {**kept, manager: own} if own else kept


def _leaves(value: Json, shape: Shape, at: Path = ()) -> Iterator[tuple[Path, Json]]:
    if isinstance(value, Mapping) and value and not shape.is_atomic:
        for name, inner in value.items():
            yield from _leaves(inner, shape.field(name), (*at, f"f:{name}"))
    elif isinstance(value, list | tuple) and value and shape.is_set:
        yield from (((*at, f"v:{json.dumps(item)}"), item) for item in value)
    elif isinstance(value, list | tuple) and value and (keys := shape.keys(value)) is not None:
        for item in value:
            place = (*at, _key(item, keys))
            yield place, None
            for name, inner in item.items():
                yield from _leaves(inner, shape.field(name), (*place, f"f:{name}"))
    else:
        yield at, value


def _key(item: Manifest, keys: Sequence[str]) -> str:
    found = {key: item.get(key, "TCP" if key == "protocol" else None) for key in sorted(keys)}
    return f"k:{json.dumps(found, separators=(',', ':'))}"


def _overlaid(live: Json, wanted: Json, shape: Shape) -> Json:
    if isinstance(wanted, Mapping):
        if shape.is_atomic or not isinstance(live, Mapping):
            return dict(wanted)
        changed = {name: _overlaid(live.get(name), inner, shape.field(name)) for name, inner in wanted.items()}
        return {**live, **changed}
    if isinstance(wanted, list | tuple):
        if not isinstance(live, list):
            return list(wanted)
        if shape.is_set:
            return [*live, *(item for item in wanted if item not in live)]
        keys = shape.keys(wanted or live)
        if keys is not None:
            return _overlaid_items(live, wanted, keys, shape)
        return list(wanted)
    return wanted


def _overlaid_items(
    live: Sequence[Manifest], wanted: Sequence[Manifest], keys: Sequence[str], shape: Shape
) -> list[Json]:
    new = {_key(item, keys): item for item in wanted}
    there = {_key(item, keys): item for item in live}
    merged = []
    for name, item in new.items():
        old = there.get(name, {})
        merged.append({**old, **{k: _overlaid(old.get(k), inner, shape.field(k)) for k, inner in item.items()}})
    return [*merged, *(item for name, item in there.items() if name not in new)]


class _Tree(dict[str, "_Tree"]):
    """Paths by their steps; one that ends here is marked."""

    ends = False

    @classmethod
    def of(cls, paths: Iterable[Path]) -> _Tree:
        tree = cls()
        for path in paths:
            at = tree
            for step in path:
                at = at.setdefault(step, cls())
            at.ends = True
        return tree


_NONE = _Tree()


def _without(value: Json, dropped: _Tree, others: _Tree, shape: Shape) -> Json:
    """Return what is left of ``value``, None for nothing."""
    if dropped.ends:
        return None
    if isinstance(value, Mapping):
        left = {}
        for name, inner in value.items():
            step = f"f:{name}"
            if step not in dropped:
                left[name] = inner
                continue
            rest = _without(inner, dropped[step], others.get(step, _NONE), shape.field(name))
            if rest is not None:
                left[name] = rest
        return left or None
    if isinstance(value, list):
        if shape.is_set:
            return [item for item in value if f"v:{json.dumps(item)}" not in dropped] or None
        keys = shape.keys(value) or ()
        kept = (_item_without(item, _key(item, keys), keys, dropped, others, shape) for item in value)
        return [item for item in kept if item is not None] or None
    return value


def _item_without(
    item: Manifest, step: str, keys: Sequence[str], dropped: _Tree, others: _Tree, shape: Shape
) -> Manifest | None:
    if step not in dropped:
        return item
    if dropped[step].ends and step not in others:
        # Nobody else has a part of it: what the server filled in goes with it.
        return None
    rest: Manifest = _without(dict(item), _inner(dropped[step]), others.get(step, _NONE), shape) or {}
    return {**{key: item[key] for key in keys if key in item}, **rest}


def _inner(tree: _Tree) -> _Tree:
    found = _Tree(tree)
    found.ends = False
    return found
