"""The raw mode, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from servery_sdk.contract import Mode
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Manifest
from servery_sdk.model import Capability, DeploymentPlan

from servery_mode_raw import objects


class RawMode:
    """Plain Kubernetes objects; needs nothing installed."""

    name = "raw"

    def requires(self) -> frozenset[Capability]:
        """Return nothing: every cluster has Deployments."""
        return frozenset()

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        """Return the objects of ``plan``; none while the service is stopped."""
        return () if plan.stopped else tuple(_rendered(plan))


def _rendered(plan: DeploymentPlan) -> Iterator[Manifest]:
    for workload in plan.workloads:
        yield objects.deployment(plan, workload)
        yield objects.service(plan, workload)
        scaler = objects.autoscaler(plan, workload)
        if scaler is not None:
            yield scaler
        if workload.scaling.min_replicas > 1:
            yield objects.pod_disruption_budget(plan, workload)
    if plan.routes and Capability.GATEWAY_API in plan.capabilities:
        yield from (objects.http_route(plan, route) for route in plan.routes)
    elif plan.routes:
        yield objects.ingress(plan)


@hookimpl
def servery_modes() -> Iterable[Mode]:
    """Contribute the mode."""
    yield RawMode()
