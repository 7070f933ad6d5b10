"""What is there and no longer wanted."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model import Observed


def prune(desired: Iterable[Manifest], observed: Observed, *, owner_uid: str) -> tuple[ObjectRef, ...]:
    """Return the objects that this service owns and that are not desired, in order.

    What carries the labels but is owned by somebody else is left alone.
    """
    wanted = {(d["apiVersion"], d["kind"], d["metadata"]["name"]) for d in desired}
    return tuple(
        sorted(
            ref
            for ref, found in observed.objects.items()
            if (ref.kind.api_version, ref.kind.kind, ref.name) not in wanted
            and any(owner.get("uid") == owner_uid for owner in found["metadata"].get("ownerReferences", ()))
        )
    )
