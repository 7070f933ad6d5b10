"""The Deployment controller: from Deployments to pods, by ``rollout``."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

from servery_kube.informer import Informer
from servery_kube.port import KubeApi, NotFound
from servery_sdk import kinds
from servery_sdk.manifests import Manifest, ObjectRef, owner_reference

from servery.local import rollout


class Deployments:
    """Makes and ends pods. ReplicaSets are left out: the template's hash on a pod says all that one would."""

    def __init__(self, api: KubeApi, deployments: Informer, pods: Informer, autoscalers: Informer) -> None:
        self._api = api
        self._deployments, self._pods, self._autoscalers = deployments, pods, autoscalers

    async def run(self) -> None:
        """Reconcile whenever something has changed, until cancelled."""
        changed = asyncio.Event()
        for informer in (self._deployments, self._pods, self._autoscalers):
            informer.subscribe(lambda _: changed.set())
            await informer.synced()
        while True:
            changed.clear()
            for ref, deployment in list(self._deployments.items()):
                await self._reconcile(ref, deployment)
            await changed.wait()

    async def _reconcile(self, ref: ObjectRef, deployment: Manifest) -> None:
        # The cache may not have the last pod yet, and a pod too many would be a model loaded twice.
        listed = await self._api.list(kinds.POD, namespace=ref.namespace)
        uid = deployment["metadata"]["uid"]
        pods = [pod for pod in listed.items if uid in _owners(pod)]
        replicas = self._replicas(ref, deployment)
        step = rollout.step(deployment, replicas, pods)
        for name in step.delete:
            await self._api.delete(ObjectRef(kinds.POD, ref.namespace, name))
        for _ in range(step.create):
            await self._api.create(_pod(ref, deployment), kinds.POD)
        status = rollout.status(deployment, replicas, [p for p in pods if p["metadata"]["name"] not in step.delete])
        if status != deployment.get("status"):
            try:
                await self._api.patch_status(ref, status)
            except NotFound:
                return

    def _replicas(self, ref: ObjectRef, deployment: Manifest) -> int:
        """Return the Deployment's own number, or the least that its autoscaler allows."""
        if "replicas" in deployment["spec"]:
            return int(deployment["spec"]["replicas"])
        for _, autoscaler in self._autoscalers.items():  # noqa: PERF102  # not a dict
            same = autoscaler["metadata"].get("namespace") == ref.namespace
            if same and autoscaler["spec"]["scaleTargetRef"]["name"] == ref.name:
                return int(autoscaler["spec"].get("minReplicas", 1))
        return 1


def _owners(pod: Manifest) -> Iterator[str]:
    return (owner["uid"] for owner in pod["metadata"].get("ownerReferences", ()))


def _pod(ref: ObjectRef, deployment: Manifest) -> Manifest:
    template = deployment["spec"]["template"]
    digest = rollout.template_hash(template)
    metadata = template.get("metadata", {})
    return {
        "apiVersion": kinds.POD.api_version,
        "kind": kinds.POD.kind,
        "metadata": {
            **metadata,
            "name": f"{ref.name}-{digest}-{secrets.token_hex(3)}",
            "namespace": ref.namespace,
            "labels": {**metadata.get("labels", {}), rollout.HASH_LABEL: digest},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": template["spec"],
    }
