"""Kubernetes objects as JSON, and the references between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType, TypeAlias

Json: TypeAlias = Any
"""Anything that JSON can say. Its shape is checked by a schema (CRD, OpenAPI), not by the type checker."""

Manifest: TypeAlias = Mapping[str, Json]
"""A Kubernetes object, or a part of one, as JSON. Never changed in place."""

Namespace = NewType("Namespace", str)

CLUSTER = Namespace("")
"""The namespace of objects that have none."""


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A resource type as an API server knows it.

    Attributes:
        api_version: ``apps/v1``, or ``v1`` for the core group.
        kind: ``Deployment``.
        plural: ``deployments``, as in the URL.
        namespaced: False for cluster-scoped kinds.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group, ``""`` for the core group."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.kind}.{self.api_version}"


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """One object. ``namespace`` is ``""`` for cluster-scoped kinds."""

    kind: Kind
    namespace: Namespace
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {where}{self.name}"


def has_labels(manifest: Manifest, labels: Mapping[str, str]) -> bool:
    """Return whether an object carries all of ``labels``: what a label selector of equalities asks."""
    metadata = manifest.get("metadata")
    found = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if not isinstance(found, Mapping):
        found = {}
    return all(found.get(key) == value for key, value in labels.items())


def owner_reference(owner: Manifest) -> Manifest:
    """Return the controller owner reference that makes ``owner`` collect what carries it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"].get("uid", ""),
        "controller": True,
        "blockOwnerDeletion": True,
    }
