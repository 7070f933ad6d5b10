"""A manifest's container and PodSpec over a runtime's, as Kubernetes' strategic merge would have it.

Arguments are the exception, and KServe's: the manifest's come behind the runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servery_sdk.manifests import Json, Manifest

_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "resourceClaims": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""Lists that merge by key; all others are replaced, or joined where the runtime's must stay."""

_JOINED = frozenset({"args", "tolerations", "envFrom"})
_DEFAULTS: Mapping[str, Json] = {"protocol": "TCP"}


def merge(base: Manifest, overlay: Manifest) -> dict[str, Json]:
    """Return ``base`` with ``overlay`` over it; neither is changed."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None:
            continue
        found = merged.get(key)
        if isinstance(found, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge_object(key, found, value)
        elif isinstance(found, list) and isinstance(value, list):
            merged[key] = _merge_list(key, found, value)
        else:
            merged[key] = value
    return merged


def _merge_object(key: str, base: Manifest, overlay: Manifest) -> Json:
    # A probe or a volume has one source: a second one beside it would be refused.
    if key.endswith("Probe") and base.keys() & _HANDLERS and overlay.keys() & _HANDLERS:
        base = {name: value for name, value in base.items() if name not in _HANDLERS}
    return merge(base, overlay)


_HANDLERS = frozenset({"httpGet", "tcpSocket", "exec", "grpc"})


def _merge_list(key: str, base: Sequence[Json], overlay: Sequence[Json]) -> list[Json]:
    if key in _JOINED:
        return [*base, *overlay]
    keys = _KEYS.get(key)
    if keys is None:
        return list(overlay)
    merged = {_identity(item, keys): item for item in base}
    for item in overlay:
        identity = _identity(item, keys)
        found = merged.get(identity)
        if found is None:
            merged[identity] = item
        elif key in {"env", "volumes"}:
            # value and valueFrom, or two volume sources, exclude each other.
            merged[identity] = item
        else:
            merged[identity] = merge(found, item)
    return list(merged.values())


def _identity(item: Manifest, keys: Sequence[str]) -> tuple[Json, ...]:
    return tuple(item.get(key, _DEFAULTS.get(key)) for key in keys)
