"""What KServe, and OME after it, write of a component's revisions.

An engine says what is; these words also remember what was: the revision that had all requests before the newest.
"""

from __future__ import annotations

from servery_sdk.lenient import mappings, number, text
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Revisions

_ROLLED_OUT, _PREVIOUS = "latestRolledoutRevision", "previousRolledoutRevision"
WHOLE = 100
"""Percent of the requests."""


def stable(before: Manifest) -> str | None:
    """Return the revision that a canary runs beside, from a component's status; None before anything was rolled out."""
    return text(before, _ROLLED_OUT) or None


def remembered(before: Manifest) -> dict[str, Json]:
    """Return the fields of a component's status that nobody could tell again, were they lost."""
    return {key: before[key] for key in (_ROLLED_OUT, _PREVIOUS) if text(before, key)}


def written(seen: Revisions | None, before: Manifest) -> dict[str, Json]:
    """Return the fields of a component's status, from what the engine says and what the status says so far.

    Source: KServe pkg/apis/serving/v1beta1/inference_service_status.go, PropagateStatus.
    """
    if seen is None:
        return {}
    rolled_out, previous = text(before, _ROLLED_OUT), text(before, _PREVIOUS)
    if seen.rolled_out is not None and seen.rolled_out != rolled_out:
        rolled_out, previous = seen.rolled_out, rolled_out
    elif previous and _is_taken_back(seen, rolled_out):
        rolled_out = previous
    fields = {
        "latestCreatedRevision": seen.latest_created,
        "latestReadyRevision": seen.latest_ready,
        _ROLLED_OUT: rolled_out,
        _PREVIOUS: previous,
        "traffic": [dict(share) for share in seen.traffic],
    }
    return {key: value for key, value in fields.items() if value}


def _is_taken_back(seen: Revisions, rolled_out: str) -> bool:
    """Return whether the newest revision, which has all requests, is asked to share them.

    No newer one is on its way, so it can only be meant to share with the one before it.
    """
    if not rolled_out == seen.latest_created == seen.latest_ready:
        return False
    shares = [
        share for share in mappings({"traffic": seen.traffic}, "traffic") if text(share, "revisionName") == rolled_out
    ]
    is_split = any(share.get("latestRevision") is True and number(share, "percent") < WHOLE for share in shares)
    return is_split and sum(number(share, "percent") for share in shares) == WHOLE
