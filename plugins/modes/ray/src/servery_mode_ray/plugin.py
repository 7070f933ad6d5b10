"""The Ray mode, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from servery_sdk import kinds, objects
from servery_sdk.contract import Mode
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model import AutoscalerClass, Capability, DeploymentPlan, Readiness, ScaleMetric, Scaling, Workload

from servery_mode_ray import clusters, readiness, services

_WHOLE = 100
_KUBERNETES_STRATEGY: Manifest = {"maxUnavailable": "25%", "maxSurge": "25%"}


class RayMode:
    """A RayService for each component; a RayCluster for each replica of a model on several machines."""

    name = "ray"
    kinds = frozenset(
        {
            kinds.RAY_SERVICE,
            kinds.RAY_CLUSTER,
            kinds.SERVICE,
            kinds.POD_DISRUPTION_BUDGET,
            kinds.INGRESS,
            kinds.HTTP_ROUTE,
            kinds.SERVICE_ACCOUNT,
            kinds.ROLE,
            kinds.ROLE_BINDING,
        }
    )

    def requires(self, plan: DeploymentPlan) -> frozenset[Capability]:
        """Return KubeRay, and the Gateway API for traffic by weight: an Ingress has none."""
        weighted = any(len(route.backends) > 1 for route in plan.routes)
        return frozenset({Capability.KUBERAY} | ({Capability.GATEWAY_API} if weighted else set()))

    def objections(self, plan: DeploymentPlan) -> tuple[str, ...]:
        """Return what Ray Serve has no words for, and servers that cannot be started beside Ray."""
        return tuple(_objections(plan))

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        """Return the objects of ``plan``; none while the service is stopped."""
        return () if plan.stopped else tuple(_rendered(plan))

    def readiness(self, workload: Workload, found: Mapping[ObjectRef, Manifest]) -> Readiness:
        """Return what the RayService, or all the RayClusters, say of themselves."""
        if workload.workers is None:
            return readiness.of_service(_find(found, workload.name))
        return readiness.of_clusters([_find(found, name) for name in clusters.names_of(workload)])


def _find(found: Mapping[ObjectRef, Manifest], name: str) -> Manifest | None:
    ours = {kinds.RAY_SERVICE, kinds.RAY_CLUSTER}
    return next((o for ref, o in found.items() if ref.kind in ours and ref.name == name), None)


def _objections(plan: DeploymentPlan) -> Iterator[str]:
    for workload in plan.workloads:
        if workload.canary is not None and workload.canary.percent < _WHOLE:
            yield (
                f"{workload.component}: {workload.canary.percent} % of the requests for the newest revision needs an "
                "engine that keeps revisions; mode knative does"
            )
        if workload.ports[0].app_protocol is not None and workload.workers is None:
            yield (
                f"{workload.component}: its first port is {workload.ports[0].name} (gRPC), and Ray Serve's proxy speaks "
                "HTTP/1.1; let the first port be the server's REST port, or choose mode raw or knative"
            )
        if workload.held is not None:
            yield (
                f"{workload.component}: models that come and go are loaded by an agent in the server's own pod, and Ray "
                "Serve's replicas have none; choose mode raw or knative"
            )
        yield from (f"{workload.component}: {objection}" for objection in _scaling_objections(workload.scaling))
        if not _is_rolling(workload.strategy):
            yield (
                f"{workload.component}: KubeRay makes a second cluster and moves all requests to it; a deployment strategy "
                "belongs to mode raw"
            )
        if workload.workers is not None and not workload.pod["containers"][0].get("command"):
            yield (
                f"{workload.component}: container {workload.main_container} names no command, and Ray has to be started "
                "before it; give the container a command"
            )


def _scaling_objections(scaling: Scaling) -> Iterator[str]:
    if scaling.metric not in {None, ScaleMetric.CONCURRENCY} or scaling.metrics:
        yield (
            "Ray Serve scales on the requests in flight of a replica (concurrency), "
            f"not on {scaling.metric or 'other metrics'}"
        )
    if scaling.autoscaler_class in {AutoscalerClass.KEDA, AutoscalerClass.EXTERNAL}:
        yield f"Ray Serve sets the replicas itself; autoscaler class {scaling.autoscaler_class} belongs to mode raw"
    if scaling.behavior is not None:
        yield "Ray Serve has no scaling behavior: it adds replicas after 30 seconds of load and takes them after 600"


def _is_rolling(strategy: Manifest) -> bool:
    """Return whether a strategy is Kubernetes' own, or asks for no more than that no pod goes before another is there."""
    rolling = {**_KUBERNETES_STRATEGY, **(strategy.get("rollingUpdate") or {})}
    is_met = rolling == _KUBERNETES_STRATEGY or rolling["maxUnavailable"] in {0, "0", "0%"}
    return strategy.get("type", "RollingUpdate") == "RollingUpdate" and is_met


def _rendered(plan: DeploymentPlan) -> Iterator[Manifest]:
    for workload in plan.workloads:
        if workload.reads_pods:
            yield from objects.pod_reader(plan, workload)
        if workload.workers is None:
            yield services.ray_service(plan, workload)
            yield services.front(plan, workload)
        else:
            yield from clusters.ray_clusters(plan, workload, workload.workers)
            yield objects.service(plan, workload)
        if workload.scaling.min_replicas > 1 or workload.disruption_budget is not None:
            yield objects.pod_disruption_budget(plan, workload)
    if plan.entry is not None:
        yield objects.entry(plan, services.entry(plan, plan.entry))
    yield from objects.routes(plan)


@hookimpl
def servery_modes() -> Iterable[Mode]:
    """Contribute the mode."""
    yield RayMode()
