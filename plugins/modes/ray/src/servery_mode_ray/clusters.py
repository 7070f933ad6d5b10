"""A model on several machines: one RayCluster for each replica, whose head runs the server.

Source: OME's MultiNodeRayVLLM; KubeRay's ``ray.io/overwrite-container-cmd``, which leaves a container's command alone
and gives it Ray's in ``KUBERAY_GEN_RAY_START_CMD``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk import kinds, objects
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import DeploymentPlan, WorkerPods, Workload
from servery_sdk.names import shortened

from servery_mode_ray.services import RAY_VERSION

OWN_COMMAND = "ray.io/overwrite-container-cmd"
_SHELL = ["/bin/bash", "-lc"]
_HEAD = 'ulimit -n 65536; $KUBERAY_GEN_RAY_START_CMD & exec "$@"'
"""Ray's own command never returns; the server, which is behind it in ``$@``, waits for Ray by itself."""
_WORKER = "ulimit -n 65536; exec $KUBERAY_GEN_RAY_START_CMD"


def names_of(workload: Workload) -> tuple[str, ...]:
    """Return the clusters' names, one for each replica."""
    replicas = max(1, workload.scaling.min_replicas)
    return tuple(shortened(f"{workload.name}-{number}") for number in range(replicas))


def ray_clusters(plan: DeploymentPlan, workload: Workload, workers: WorkerPods) -> Iterator[Manifest]:
    """Yield the clusters."""
    for name in names_of(workload):
        head = _wrapped(objects.pod_spec(workload), _HEAD, keeps_command=True)
        group = {
            "groupName": "workers",
            "replicas": workers.count,
            "minReplicas": workers.count,
            "maxReplicas": workers.count,
            "rayStartParams": {},
            "template": _template(
                workers.labels, workers.annotations, _wrapped(workers.pod, _WORKER, keeps_command=False)
            ),
        }
        spec = {
            "rayVersion": RAY_VERSION,
            "headGroupSpec": {
                "rayStartParams": {"dashboard-host": "0.0.0.0"},
                "template": _template(workload.pod_labels, workload.pod_annotations, head),
            },
            "workerGroupSpecs": [group],
        }
        made = objects.owned(plan, kinds.RAY_CLUSTER, name, workload.labels, spec)
        yield {**made, "metadata": {**made["metadata"], "annotations": {OWN_COMMAND: "true"}}}


def _template(labels: Mapping[str, str], annotations: Mapping[str, str], spec: Manifest) -> Manifest:
    return {"metadata": {"labels": dict(labels), "annotations": dict(annotations)}, "spec": spec}


def _wrapped(pod: Manifest, script: str, *, keeps_command: bool) -> dict[str, Json]:
    main, *others = pod["containers"]
    own = [*main.get("command", ()), *main.get("args", ())]
    started = {**main, "command": [*_SHELL, script], "args": ["server", *own]}
    if not keeps_command:
        started = {key: value for key, value in started.items() if key not in {"args", "readinessProbe"}}
    return {**pod, "containers": [started, *others]}
