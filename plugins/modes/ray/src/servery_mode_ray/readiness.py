"""What KubeRay says of a RayService and of RayClusters."""

from __future__ import annotations

from collections.abc import Sequence

from servery_sdk.lenient import conditions, mapping, text
from servery_sdk.manifests import Manifest
from servery_sdk.model import ConditionStatus, Readiness

_BAD_STATES = frozenset({"UNHEALTHY", "DEPLOY_FAILED"})


def of_service(found: Manifest | None) -> Readiness:
    """Return the readiness of a RayService; a Serve application that failed says why in its own words.

    Source: KubeRay RayServiceStatuses.
    """
    if found is None:
        return _unknown("RayServiceMissing", "the RayService is not there yet")
    status = mapping(found, "status")
    ready = conditions(status).get("Ready", {})
    if ready.get("status") == "True" or (not ready and status.get("serviceStatus") == "Running"):
        return Readiness(status=ConditionStatus.TRUE)
    for pending in ("pendingServiceStatus", "activeServiceStatus"):
        applications = mapping(mapping(status, pending), "applicationStatuses")
        for name in applications:
            said = mapping(applications, name)
            if text(said, "status") in _BAD_STATES:
                message = text(said, "message")
                return Readiness(status=ConditionStatus.FALSE, reason=text(said, "status"), message=message)
    return _unknown(text(ready, "reason") or "Progressing", text(ready, "message") or "waiting for Ray")


def of_clusters(found: Sequence[Manifest | None]) -> Readiness:
    """Return the readiness of all RayClusters together: the first that is not says why.

    Source: KubeRay RayClusterStatus.
    """
    for cluster in found:
        if cluster is None:
            return _unknown("RayClusterMissing", "a RayCluster is not there yet")
        status = mapping(cluster, "status")
        said = conditions(status)
        provisioned = said.get("RayClusterProvisioned", {}).get("status") == "True" or status.get("state") == "ready"
        head = said.get("HeadPodReady", {})
        if not provisioned or head.get("status", "True") != "True":
            if status.get("state") == "failed":
                return Readiness(
                    status=ConditionStatus.FALSE, reason="RayClusterFailed", message=text(status, "reason")
                )
            return _unknown(text(head, "reason") or "Progressing", text(head, "message") or "waiting for Ray")
    return Readiness(status=ConditionStatus.TRUE)


def _unknown(reason: str, message: str) -> Readiness:
    return Readiness(status=ConditionStatus.UNKNOWN, reason=reason, message=message)
