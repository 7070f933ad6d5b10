"""What Knative says of a Service."""

from __future__ import annotations

from dataclasses import replace

from servery_sdk.lenient import conditions, is_current, mapping, mappings, text
from servery_sdk.manifests import Manifest
from servery_sdk.model import Condition, ConditionStatus, Readiness, Revisions

_PARTS = {"ConfigurationsReady": "Configuration", "RoutesReady": "Route"}


def of(found: Manifest | None) -> Readiness:
    """Return the readiness of a Knative Service, in its own words, and its revisions.

    Source: KServe PropagateStatus.
    """
    if found is None:
        return _unknown("KnativeServiceMissing", "the Knative Service is not there yet")
    if not is_current(found):
        # What was said of an earlier template is not said of this one; who has the requests is not known either.
        return replace(_unknown("Progressing", "waiting for Knative"), revisions=Revisions())
    status = mapping(found, "status")
    said = conditions(status)
    ready = said.get("Ready", {})
    return Readiness(
        status=_status(ready),
        reason="" if _status(ready) is ConditionStatus.TRUE else text(ready, "reason") or "Progressing",
        message="" if _status(ready) is ConditionStatus.TRUE else text(ready, "message") or "waiting for Knative",
        url=text(status, "url") or None,
        address=text(mapping(status, "address"), "url") or None,
        revisions=_revisions(status),
        parts=tuple(
            Condition(
                type=part,
                status=_status(said[name]),
                reason=text(said[name], "reason"),
                message=text(said[name], "message"),
            )
            for name, part in _PARTS.items()
            if name in said
        ),
    )


def _status(condition: Manifest) -> ConditionStatus:
    found = condition.get("status")
    return ConditionStatus(found) if found in ("True", "False") else ConditionStatus.UNKNOWN


def _revisions(status: Manifest) -> Revisions:
    traffic = tuple(mappings(status, "traffic"))
    ready = text(status, "latestReadyRevisionName") or None
    # Each entry is a share; a tag alone has none.
    whole = any(
        share.get("latestRevision") is True and share.get("percent") == 100 and text(share, "revisionName") == ready
        for share in traffic
    )
    return Revisions(
        latest_created=text(status, "latestCreatedRevisionName") or None,
        latest_ready=ready,
        rolled_out=ready if whole else None,
        traffic=traffic,
    )


def _unknown(reason: str, message: str) -> Readiness:
    return Readiness(status=ConditionStatus.UNKNOWN, reason=reason, message=message)
