"""The mode ``pinned``, for a fixed set of machines: one pod each, which keeps its machine whatever happens to it.

No machine runs two, none is scaled away, and an update gives a machine up before it is used again: there is no spare.
"""

from collections.abc import Iterable, Iterator, Mapping

from servery_sdk import kinds, objects
from servery_sdk.contract import Mode
from servery_sdk.hooks import hookimpl
from servery_sdk.lenient import is_current, mapping, number
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Capability, ConditionStatus, DeploymentPlan, Readiness, Workload

ONE_AT_A_TIME = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
STAYS = [
    # Kubernetes would move the pod elsewhere five minutes after its machine has gone.
    {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute"}
    for why in ("not-ready", "unreachable")
]


class PinnedMode:
    """A Deployment with as many pods as machines, a Service, and routes."""

    name = "pinned"
    kinds = frozenset(
        {
            kinds.DEPLOYMENT,
            kinds.SERVICE,
            kinds.HTTP_ROUTE,
            kinds.INGRESS,
            kinds.SERVICE_ACCOUNT,
            kinds.ROLE,
            kinds.ROLE_BINDING,
        }
    )

    def requires(self, plan: DeploymentPlan) -> frozenset[Capability]:
        is_split = any(len(route.backends) > 1 for route in plan.routes)
        return frozenset({Capability.GATEWAY_API} if is_split else ())

    def objections(self, plan: DeploymentPlan) -> tuple[str, ...]:
        return tuple(f"{workload.component}: {why}" for workload in plan.workloads for why in _objections(workload))

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        return () if plan.stopped else tuple(_rendered(plan))

    def readiness(self, workload: Workload, found: Mapping[ObjectRef, Manifest]) -> Readiness:
        ours = (o for ref, o in found.items() if (ref.kind, ref.name) == (kinds.DEPLOYMENT, workload.name))
        if (deployment := next(ours, None)) is None:
            return Readiness(status=ConditionStatus.UNKNOWN, reason="DeploymentMissing", message="not there yet")
        machines = _machines(workload)
        ready = number(mapping(deployment, "status"), "readyReplicas") if is_current(deployment) else 0
        # An update, or a repair, has one machine at a time.
        if ready >= max(1, machines - 1):
            return Readiness(status=ConditionStatus.TRUE)
        message = f"{ready} of {machines} machines serve"
        return Readiness(status=ConditionStatus.UNKNOWN, reason="MachinesNotReady", message=message)


def _objections(workload: Workload) -> Iterator[str]:
    if (workload.scaling.max_replicas or 0) > _machines(workload):
        most = workload.scaling.max_replicas
        yield f"machines are fixed, so {_machines(workload)} replicas cannot become {most}"
    if workload.workers is not None:
        yield "each replica has one machine, so no workers"
    if workload.canary is not None and workload.canary.percent < 100:
        yield "there is no spare machine for a canary"


def _rendered(plan: DeploymentPlan) -> Iterator[Manifest]:
    for workload in plan.workloads:
        if workload.reads_pods:
            yield from objects.pod_reader(plan, workload)
        yield _deployment(plan, workload)
        yield objects.service(plan, workload)
    if plan.entry is not None:
        yield objects.entry(plan, plan.entry)
    yield from objects.routes(plan)


def _deployment(plan: DeploymentPlan, workload: Workload) -> Manifest:
    selector = {"matchLabels": dict(workload.selector)}
    metadata = {"labels": dict(workload.pod_labels), "annotations": dict(workload.pod_annotations)}
    spec = {
        "replicas": _machines(workload),
        "selector": selector,
        "strategy": ONE_AT_A_TIME,
        "template": {"metadata": metadata, "spec": _pod(workload, selector)},
    }
    return objects.owned(plan, kinds.DEPLOYMENT, workload.name, workload.labels, spec)


def _pod(workload: Workload, selector: Manifest) -> Json:
    affinity = mapping(workload.pod, "affinity")
    apart, rule = mapping(affinity, "podAntiAffinity"), "requiredDuringSchedulingIgnoredDuringExecution"
    alone = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    return {
        **workload.pod,
        **({"serviceAccountName": workload.name} if workload.reads_pods else {}),
        "affinity": {**affinity, "podAntiAffinity": {**apart, rule: [*apart.get(rule, ()), alone]}},
        "tolerations": [*workload.pod.get("tolerations", ()), *STAYS],
    }


def _machines(workload: Workload) -> int:
    return max(1, workload.scaling.min_replicas)


@hookimpl
def servery_modes() -> Iterable[Mode]:
    yield PinnedMode()
