"""The KubeRay operator of this machine: each RayService is one pod, in which ``servery.local.ray`` runs.

Serve makes and ends replicas inside of it by itself, so there are no more nodes than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import yaml
from servery_kube.informer import Informer
from servery_kube.port import KubeApi, NotFound
from servery_sdk import kinds
from servery_sdk.lenient import conditions
from servery_sdk.manifests import Manifest, ObjectRef, owner_reference

from servery.local.localize import RAY_IMAGE

_STATUS_PORT = 8265
_PROBE: Manifest = {"httpGet": {"path": "/", "port": _STATUS_PORT}, "timeoutSeconds": 2}


class RayServices:
    """From RayServices to Deployments, and from their status back."""

    def __init__(self, api: KubeApi, services: Informer, deployments: Informer) -> None:
        self._api, self._services, self._deployments = api, services, deployments

    async def run(self) -> None:
        """Reconcile whenever something has changed, until cancelled."""
        changed = asyncio.Event()
        for informer in (self._services, self._deployments):
            informer.subscribe(lambda _: changed.set())
            await informer.synced()
        while True:
            changed.clear()
            for ref, service in list(self._services.items()):
                # It may have been deleted this moment.
                with contextlib.suppress(NotFound):
                    await self._reconcile(ref, service)
            await changed.wait()

    async def _reconcile(self, ref: ObjectRef, service: Manifest) -> None:
        await self._api.apply(deployment(service), kinds.DEPLOYMENT, field_manager="servery-ray")
        made = self._deployments.get(ObjectRef(kinds.DEPLOYMENT, ref.namespace, ref.name))
        status = _status(made) if made else {}
        if status != service.get("status", {}):
            await self._api.patch_status(ref, status)


def deployment(service: Manifest) -> Manifest:
    """Return the Deployment that runs a RayService: one pod like its workers', in which Ray runs first."""
    name, spec = service["metadata"]["name"], service["spec"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    template = group["template"]
    ray, *others = template["spec"]["containers"]
    config = yaml.safe_load(spec["serveConfigV2"])
    config["http_options"]["host"] = "0.0.0.0"
    started = {
        **ray,
        "image": RAY_IMAGE,
        "args": [json.dumps(config)],
        "env": [*ray.get("env", ()), {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}],
        "ports": [*ray["ports"], {"containerPort": _STATUS_PORT}],
        "readinessProbe": _PROBE,
    }
    return {
        "apiVersion": kinds.DEPLOYMENT.api_version,
        "kind": kinds.DEPLOYMENT.kind,
        "metadata": {
            "name": name,
            "namespace": service["metadata"]["namespace"],
            "ownerReferences": [owner_reference(service)],
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": {**template, "spec": {**template["spec"], "containers": [started, *others]}},
        },
    }


def _status(made: Manifest) -> Manifest:
    available = conditions(made.get("status") or {}).get("Available", {})
    is_ready = available.get("status") == "True"
    return {
        "serviceStatus": "Running" if is_ready else "",
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if is_ready else "False",
                "reason": "NonZeroServeEndpoints" if is_ready else "ZeroServeEndpoints",
                "message": "",
            }
        ],
    }
