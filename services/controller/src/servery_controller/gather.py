"""Reads what a manifest points at, and what that points at."""

from __future__ import annotations

from collections.abc import Iterable

from servery_kube.port import KubeApi, NotFound
from servery_sdk import kinds
from servery_sdk.manifests import Manifest, ObjectRef


async def referenced(api: KubeApi, references: Iterable[ObjectRef]) -> dict[ObjectRef, Manifest]:
    """Return the referenced objects that are there, and the secrets of service accounts among them."""
    found: dict[ObjectRef, Manifest] = {}
    waiting = sorted(references)
    while waiting:
        ref = waiting.pop()
        if ref in found:
            continue
        try:
            found[ref] = await api.get(ref)
        except NotFound:
            # What is missing is planning's to judge: most service accounts need no secrets.
            continue
        if ref.kind == kinds.SERVICE_ACCOUNT:
            names = (secret.get("name", "") for secret in found[ref].get("secrets") or ())
            waiting += (ObjectRef(kinds.SECRET, ref.namespace, name) for name in names if name)
    return found
