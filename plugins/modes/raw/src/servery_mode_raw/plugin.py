"""The raw mode, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from servery_sdk import kinds
from servery_sdk import objects as shared
from servery_sdk.contract import Mode
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model import AutoscalerClass, Capability, DeploymentPlan, Readiness, ScaleMetric, Workload

from servery_mode_raw import objects, readiness

_WHOLE = 100


class RawMode:
    """Plain Kubernetes objects: Deployments, or LeaderWorkerSets for a model on several machines."""

    name = "raw"
    kinds = frozenset(
        {
            kinds.DEPLOYMENT,
            kinds.LEADER_WORKER_SET,
            kinds.SERVICE,
            kinds.HORIZONTAL_POD_AUTOSCALER,
            kinds.SCALED_OBJECT,
            kinds.POD_DISRUPTION_BUDGET,
            kinds.INGRESS,
            kinds.HTTP_ROUTE,
            kinds.SERVICE_ACCOUNT,
            kinds.ROLE,
            kinds.ROLE_BINDING,
        }
    )

    def requires(self, plan: DeploymentPlan) -> frozenset[Capability]:
        """Return what is more than plain: KEDA, several machines, traffic by weight."""
        needs = set()
        if any(workload.scaling.autoscaler_class is AutoscalerClass.KEDA for workload in plan.workloads):
            needs.add(Capability.KEDA)
        if any(workload.workers is not None for workload in plan.workloads):
            needs.add(Capability.LEADER_WORKER_SET)
        if any(len(route.backends) > 1 for route in plan.routes):
            # An Ingress has no weights.
            needs.add(Capability.GATEWAY_API)
        return frozenset(needs)

    def objections(self, plan: DeploymentPlan) -> tuple[str, ...]:
        """Return canaries by revision, and metrics that a HorizontalPodAutoscaler cannot read.

        It knows a pod's resources, not its requests; and a Deployment has no revisions that stay.
        """
        canaries = tuple(
            f"{workload.component}: {workload.canary.percent} % of the requests for the newest revision needs an engine "
            "that keeps revisions; mode knative does"
            for workload in plan.workloads
            if workload.canary is not None and workload.canary.percent < _WHOLE
        )
        return canaries + tuple(
            f"{workload.component}: a HorizontalPodAutoscaler cannot scale on {workload.scaling.metric}; "
            "it scales on cpu and memory; KEDA with a metric of its own can, and so can mode knative"
            for workload in plan.workloads
            if workload.scaling.autoscaler_class is AutoscalerClass.HPA
            and not workload.scaling.metrics
            and workload.scaling.metric in {ScaleMetric.CONCURRENCY, ScaleMetric.RPS}
        )

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        """Return the objects of ``plan``; none while the service is stopped."""
        return () if plan.stopped else tuple(_rendered(plan))

    def readiness(self, workload: Workload, found: Mapping[ObjectRef, Manifest]) -> Readiness:
        """Return what the Deployment, or the LeaderWorkerSet, says of itself."""
        kind = kinds.DEPLOYMENT if workload.workers is None else kinds.LEADER_WORKER_SET
        name = workload.name_of(kind)
        return readiness.of(kind, next((o for ref, o in found.items() if (ref.kind, ref.name) == (kind, name)), None))


def _rendered(plan: DeploymentPlan) -> Iterator[Manifest]:
    for workload in plan.workloads:
        if workload.reads_pods:
            yield from shared.pod_reader(plan, workload)
        if workload.workers is None:
            yield objects.deployment(plan, workload)
        else:
            yield objects.leader_worker_set(plan, workload, workload.workers)
        yield shared.service(plan, workload)
        if workload.workers is None and (scaler := objects.autoscaler(plan, workload)) is not None:
            yield scaler
        if workload.scaling.min_replicas > 1 or workload.disruption_budget is not None:
            yield shared.pod_disruption_budget(plan, workload)
    if plan.entry is not None:
        yield shared.entry(plan, plan.entry)
    yield from shared.routes(plan)


@hookimpl
def servery_modes() -> Iterable[Mode]:
    """Contribute the mode."""
    yield RawMode()
