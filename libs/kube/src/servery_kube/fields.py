"""How server-side apply merges: which lists are maps, and what a field manager takes away.

Source: Kubernetes "Server-Side Apply", and the list-map keys of the built-in types' OpenAPI schemas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servery_sdk.manifests import Json, Manifest

LIST_MAP_KEYS: Mapping[str, tuple[str, ...]] = {
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
"""Of the built-in types, by field name. ``ports`` depends on where it stands, see ``_keys``."""


def apply(live: Manifest, before: Manifest, wanted: Manifest) -> dict[str, Json]:
    """Return ``live`` with ``wanted`` merged in and what ``before`` had but ``wanted`` has not taken out.

    Args:
        live: The object as it is.
        before: What this field manager applied last; empty the first time.
        wanted: What it applies now.
    """
    return _object(live, before, wanted)


def _object(live: Manifest, before: Manifest, wanted: Manifest) -> dict[str, Json]:
    merged = {key: value for key, value in live.items() if key in wanted or key not in before}
    for key in live.keys() & before.keys() - wanted.keys():
        # Only the leaves that were applied go; what others put beside them stays.
        rest = _without(key, live[key], before[key])
        if rest is not None:
            merged[key] = rest
    for key, value in wanted.items():
        merged[key] = _value(key, live.get(key), before.get(key), value)
    return merged


def _value(key: str, live: Json, before: Json, wanted: Json) -> Json:
    if isinstance(wanted, Mapping):
        return _object(_mapping(live), _mapping(before), wanted)
    if isinstance(wanted, list | tuple):
        keys = _keys(key, wanted)
        if keys is not None and isinstance(live, list):
            return _list_map(keys, live, before if isinstance(before, list | tuple) else (), wanted)
        return list(wanted)
    return wanted


def _list_map(
    keys: tuple[str, ...], live: Sequence[Manifest], before: Sequence[Manifest], wanted: Sequence[Manifest]
) -> list[Json]:
    old = {_identity(item, keys): item for item in before}
    new = {_identity(item, keys): item for item in wanted}
    there = {_identity(item, keys): item for item in live}
    merged = [_object(there.get(name, {}), old.get(name, {}), item) for name, item in new.items()]
    return [*merged, *(item for name, item in there.items() if name not in new and name not in old)]


def _without(key: str, live: Json, before: Json) -> Json:
    """Return what is left of ``live`` when ``before`` is taken out, None for nothing."""
    if isinstance(live, Mapping) and isinstance(before, Mapping):
        return _object(live, before, {}) or None
    keys = _keys(key, live) if isinstance(live, list) else None
    if keys is not None and isinstance(before, list | tuple):
        return _list_map(keys, live, before, ()) or None
    return None


def _keys(key: str, items: Sequence[Json]) -> tuple[str, ...] | None:
    if not all(isinstance(item, Mapping) for item in items):
        return None
    if key == "ports" and items:
        return ("containerPort", "protocol") if "containerPort" in items[0] else ("port", "protocol")
    return LIST_MAP_KEYS.get(key)


def _identity(item: Manifest, keys: tuple[str, ...]) -> tuple[Json, ...]:
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _mapping(value: Json) -> Manifest:
    return value if isinstance(value, Mapping) else {}
