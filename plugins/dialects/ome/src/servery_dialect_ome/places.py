"""Where pods run: what models, weights and accelerators ask of nodes, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.lenient import mapping, mappings
from servery_sdk.manifests import Json, Manifest

_REQUIRED, _PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))
_TERMS = "nodeSelectorTerms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Labels of nodes, and a ``corev1`` Affinity."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    affinity: Manifest = field(default_factory=dict)

    def pod(self) -> dict[str, Json]:
        """Return the fields of a PodSpec that say it."""
        made: dict[str, Json] = {"nodeSelector": dict(self.node_selector)} if self.node_selector else {}
        return {**made, "affinity": self.affinity} if self.affinity else made


def contradiction(one: Place, other: Place) -> str | None:
    """Return the first label of nodes of which the two want different values, None for none."""
    shared = sorted(one.node_selector.keys() & other.node_selector.keys())
    return next((key for key in shared if one.node_selector[key] != other.node_selector[key]), None)


def both(one: Place, other: Place) -> Place:
    """Return the nodes that are right for the two; of what cannot be joined, the second's."""
    nodes = _both_nodes(mapping(one.affinity, "nodeAffinity"), mapping(other.affinity, "nodeAffinity"))
    affinity = {**one.affinity, **other.affinity}
    return Place(
        node_selector={**one.node_selector, **other.node_selector},
        affinity={**affinity, "nodeAffinity": nodes} if nodes else affinity,
    )


def _both_nodes(one: Manifest, other: Manifest) -> Manifest:
    if not one or not other:
        return one or other
    made: dict[str, Json] = {**one, **other}
    first, second = (list(mappings(mapping(found, _REQUIRED), _TERMS)) for found in (one, other))
    if first and second:
        # One of the terms has to hold, so of both lists one pair.
        made[_REQUIRED] = {_TERMS: [_joined(left, right) for left in first for right in second]}
    if preferred := [*mappings(one, _PREFERRED), *mappings(other, _PREFERRED)]:
        made[_PREFERRED] = preferred
    return made


def _joined(one: Manifest, other: Manifest) -> dict[str, Json]:
    """Return the node selector term that holds where both do."""
    return {key: [*mappings(one, key), *mappings(other, key)] for key in sorted({*one, *other})}
