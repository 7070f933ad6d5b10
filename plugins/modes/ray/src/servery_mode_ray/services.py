"""A component as a Ray Serve application on a RayService.

The workers run the plan's pod. A model of Servery's own predictor is the Serve application itself; any other server
runs as it is, and a Serve application beside it in the pod passes requests on.

Source: KubeRay RayService v1; Ray Serve config schema (ServeDeploySchema).
"""

from __future__ import annotations

from dataclasses import replace

import yaml
from servery_sdk import kinds, objects
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import AutoscalerClass, DeploymentPlan, EntryService, Port, Scaling, Workload
from servery_sdk.quantities import parse
from servery_sdk.runtimes import VERSION

SERVE_PORT = 8000
"""Where Ray Serve answers on every node that has a replica."""

RAY_IMAGE = f"servery/ray:{VERSION}"
RAY_VERSION = "2.60.0"
_GPU = "nvidia.com/gpu"
_PROBES = frozenset({"livenessProbe", "readinessProbe", "startupProbe"})
_STARTED_BY_RAY = frozenset({"args", "command", "ports"}) | _PROBES
_CLOSED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "runAsNonRoot": True,
}


def ray_service(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the RayService: a head without work, and a group of workers that Serve's replicas fill one by one."""
    scaling = workload.scaling
    fewest, most = scaling.min_replicas, max(1, scaling.min_replicas, _most(scaling) or 0)
    group = {
        "groupName": "replicas",
        "replicas": max(fewest, scaling.initial_replicas or 0),
        "minReplicas": fewest,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": _worker(workload),
    }
    cluster: dict[str, Json] = {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": _head(workload),
        },
        "workerGroupSpecs": [group],
    }
    if most > fewest:
        cluster["enableInTreeAutoscaling"] = True
    spec = {
        "serveConfigV2": yaml.safe_dump(serve_config(workload), sort_keys=False, width=120),
        # Only a pod that has a replica takes requests.
        "excludeHeadPodFromServeSvc": True,
        "rayClusterConfig": cluster,
    }
    return objects.owned(plan, kinds.RAY_SERVICE, workload.name, workload.labels, spec)


def serve_config(workload: Workload) -> Manifest:
    """Return the Serve application: what ``serve run`` takes."""
    container = workload.pod["containers"][0]
    scaling = workload.scaling
    options: dict[str, Json] = {"num_cpus": _cpus(container)}
    if gpus := _resource(container, _GPU):
        options["num_gpus"] = gpus
    deployment: dict[str, Json] = {"name": "predictor" if is_native(workload) else "proxy"}
    most = _most(scaling)
    if most is not None and most > scaling.min_replicas:
        deployment["autoscaling_config"] = {
            "min_replicas": scaling.min_replicas,
            "initial_replicas": scaling.initial_replicas or max(1, scaling.min_replicas),
            "max_replicas": most,
            "target_ongoing_requests": scaling.target or 2,
        }
    else:
        deployment["num_replicas"] = max(1, scaling.min_replicas)
    if workload.concurrency is not None:
        deployment["max_ongoing_requests"] = workload.concurrency
    deployment["ray_actor_options"] = options
    application = {
        "name": workload.name,
        "route_prefix": "/",
        "import_path": f"servery_predictor.ray:{deployment['name']}",
        "args": {"argv": [str(argument) for argument in container.get("args", ())]}
        if is_native(workload)
        else {"port": workload.ports[0].target_port},
        "deployments": [deployment],
    }
    return {"proxy_location": "EveryNode", "http_options": {"port": SERVE_PORT}, "applications": [application]}


def _most(scaling: Scaling) -> int | None:
    """Return the most replicas, None where nothing is to move their number."""
    return None if scaling.autoscaler_class is AutoscalerClass.NONE else scaling.max_replicas


def is_native(workload: Workload) -> bool:
    """Return whether the model is served by a class of Servery's own predictor."""
    return workload.selection is not None and workload.selection.runtime.model_class is not None


def front(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the Service of a component: its port leads to Serve, on the workers."""
    return objects.service(plan, replace(workload, ports=(_served(workload.ports[0]),)))


def entry(plan: DeploymentPlan, wanted: EntryService) -> EntryService:
    """Return the Service of the whole, leading to Serve where its workloads are Serve applications."""
    if any(workload.workers is not None for workload in plan.workloads):
        return wanted
    return replace(wanted, ports=(_served(wanted.ports[0]),))


def _served(port: Port) -> Port:
    return replace(port, target_port=SERVE_PORT, app_protocol=None)


def _worker(workload: Workload) -> Manifest:
    main, *others = workload.pod["containers"]
    port = {"name": "serve", "containerPort": SERVE_PORT, "protocol": "TCP"}
    if is_native(workload):
        # Ray starts the container, and its own probes know Serve.
        kept = {key: value for key, value in main.items() if key not in _STARTED_BY_RAY}
        containers = [{**kept, "image": _with_ray(main["image"]), "ports": [port]}, *others]
    else:
        containers = [{**_ray_container(), "ports": [port]}, main, *others]
    metadata = {"labels": dict(workload.pod_labels), "annotations": dict(workload.pod_annotations)}
    return {"metadata": metadata, "spec": {**objects.pod_spec(workload), "containers": containers}}


def _head(workload: Workload) -> Manifest:
    """Return the head's pod: it runs no model, so that losing it loses no model either."""
    labels = {key: value for key, value in workload.pod_labels.items() if key not in workload.selector}
    kept = {"securityContext", "imagePullSecrets", "serviceAccountName", "nodeSelector", "tolerations", "affinity"}
    spec = {**{key: value for key, value in workload.pod.items() if key in kept}, "containers": [_ray_container()]}
    return {"metadata": {"labels": labels, "annotations": dict(workload.pod_annotations)}, "spec": spec}


def _with_ray(image: str) -> str:
    """Return the image of the same name that has Ray too; one that is named by its digest is taken as it is."""
    if "@" in image:
        return image
    return f"{image}-ray" if ":" in image.rpartition("/")[2] else f"{image}:latest-ray"


def _ray_container() -> dict[str, Json]:
    resources = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}}
    return {"name": "ray", "image": RAY_IMAGE, "resources": resources, "securityContext": dict(_CLOSED)}


def _cpus(container: Manifest) -> float:
    """Return the share of a worker that one replica takes: all of it, so that a pod has one."""
    return _resource(container, "cpu") or 1.0


def _resource(container: Manifest, name: str) -> float:
    resources = container.get("resources") or {}
    asked = (resources.get("requests") or {}).get(name, (resources.get("limits") or {}).get(name, 0))
    return float(parse(asked))
