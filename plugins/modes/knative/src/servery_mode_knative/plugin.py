"""The Knative mode, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from servery_sdk import kinds, objects
from servery_sdk.contract import Mode
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model import Capability, DeploymentPlan, Readiness, Workload

from servery_mode_knative import readiness, services


class KnativeMode:
    """A Knative Service for each component; Knative makes the pods, their autoscaler and the routes."""

    name = "knative"
    kinds = frozenset(
        {
            kinds.KNATIVE_SERVICE,
            kinds.POD_DISRUPTION_BUDGET,
            kinds.SERVICE_ACCOUNT,
            kinds.ROLE,
            kinds.ROLE_BINDING,
        }
    )

    def requires(self, plan: DeploymentPlan) -> frozenset[Capability]:
        """Return Knative Serving."""
        return frozenset({Capability.KNATIVE})

    def objections(self, plan: DeploymentPlan) -> tuple[str, ...]:
        """Return what Knative has no words for, and traffic between components: each has a host of its own."""
        return tuple(_objections(plan))

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        """Return the objects of ``plan``; none while the service is stopped."""
        return () if plan.stopped else tuple(_rendered(plan))

    def readiness(self, workload: Workload, found: Mapping[ObjectRef, Manifest]) -> Readiness:
        """Return what the Knative Service says of itself."""
        wanted = (kinds.KNATIVE_SERVICE, workload.name)
        return readiness.of(next((o for ref, o in found.items() if (ref.kind, ref.name) == wanted), None))


def _objections(plan: DeploymentPlan) -> Iterator[str]:
    for workload in plan.workloads:
        yield from (f"{workload.component}: {objection}" for objection in services.objections(workload))
    if any(workload.traffic_percent not in {0, 100} for workload in plan.workloads):
        yield "Knative splits requests between revisions of one component, not between components; mode raw does"
    if plan.entry is not None and plan.entry.type != "ClusterIP":
        yield f"a Service of type {plan.entry.type} leads to pods, and Knative's requests come through its gateway"


def _rendered(plan: DeploymentPlan) -> Iterator[Manifest]:
    for workload in plan.workloads:
        if workload.reads_pods:
            yield from objects.pod_reader(plan, workload)
        yield services.knative_service(plan, workload)
        if workload.disruption_budget is not None:
            # Over the pods of all revisions.
            yield objects.pod_disruption_budget(plan, workload)


@hookimpl
def servery_modes() -> Iterable[Mode]:
    """Contribute the mode."""
    yield KnativeMode()
