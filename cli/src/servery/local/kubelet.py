"""Runs the pods of the API server as processes, and says in their status how they are."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from servery_http.client import Client
from servery_kube.informer import Informer
from servery_kube.port import KubeApi, NotFound
from servery_sdk import kinds
from servery_sdk.manifests import Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import Runtime

from servery.local.addresses import Addresses
from servery.local.configuration import Configuration, CreateContainerConfigError, File, volume_files
from servery.local.configured import Configurations
from servery.local.containers import Backoff, Container
from servery.local.doors import Doorway
from servery.local.localize import Sandbox
from servery.local.probes import probing_client
from servery.local.volumes import rewrite, write
from servery.state import LABELS


class Kubelet:
    """Owns every process of the platform: none outlives ``run``."""

    def __init__(
        self,
        api: KubeApi,
        pods: Informer,
        configurations: Configurations,
        doorway: Doorway,
        runtimes: Mapping[str, Runtime],
        directory: Path,
        *,
        backoff: Backoff,
    ) -> None:
        self._api = api
        self._pods = pods
        self._configurations = configurations
        self._doorway = doorway
        self._runtimes = tuple(runtimes.values())
        self._directory = directory
        self._backoff = backoff
        self._addresses = Addresses()
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run what is there, until cancelled; then end every process."""
        changed = asyncio.Event()
        self._pods.subscribe(lambda _: changed.set())
        await self._pods.synced()
        await self._configurations.synced()
        # What a platform that was killed could not delete: files of Secrets are among it.
        for left in (self._directory / "pods").glob("*/*/volumes"):
            shutil.rmtree(left)
        async with probing_client() as client, asyncio.TaskGroup() as group:
            while True:
                changed.clear()
                wanted = {str(pod["metadata"]["uid"]): (ref, pod) for ref, pod in self._pods.items()}
                for uid, task in list(self._running.items()):
                    if uid not in wanted:
                        task.cancel()
                        del self._running[uid]
                for uid, (ref, pod) in wanted.items():
                    if uid not in self._running:
                        self._running[uid] = group.create_task(self._run(ref, pod, client), name=f"pod-{ref.name}")
                await changed.wait()

    async def _run(self, ref: ObjectRef, pod: Manifest, client: Client) -> None:
        ports = [
            int(port["containerPort"]) for container in pod["spec"]["containers"] for port in container.get("ports", ())
        ]
        address = self._addresses.take(ports)
        sandbox = Sandbox(
            address=address,
            directory=self._directory / "pods" / ref.namespace / ref.name,
            claims=self._directory / "claims" / ref.namespace,
        )
        try:
            sandbox.directory.mkdir(parents=True, exist_ok=True)
            (sandbox.directory / LABELS).write_text(json.dumps(pod["metadata"].get("labels", {})))
            for volume in pod["spec"].get("volumes", ()):
                sandbox.volume(volume).mkdir(parents=True, exist_ok=True)
            runtimes, configurations = self._runtimes, self._configurations
            made = Pod(self._api, ref, pod, sandbox, runtimes, configurations, self._doorway, client, self._backoff)
            await made.run()
        finally:
            self._addresses.give_back(address)
            shutil.rmtree(sandbox.directory / "volumes", ignore_errors=True)


class Pod:
    """One pod's containers and status."""

    def __init__(
        self,
        api: KubeApi,
        ref: ObjectRef,
        pod: Manifest,
        sandbox: Sandbox,
        runtimes: tuple[Runtime, ...],
        configurations: Configurations,
        doorway: Doorway,
        client: Client,
        backoff: Backoff,
    ) -> None:
        self._api, self._ref, self._pod, self._sandbox = api, ref, pod, sandbox
        self._configurations = configurations
        self._changed = asyncio.Event()

        def made(spec: Manifest) -> Container:
            changed = self._changed.set
            return Container(pod, spec, sandbox, runtimes, configurations, doorway, client, backoff, changed)

        self._init = [made(spec) for spec in pod["spec"].get("initContainers", ())]
        self._main = [made(spec) for spec in pod["spec"]["containers"]]

    async def run(self) -> None:
        """Fill the volumes, run the init containers one after another, then all others together, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report(), name=f"status-{self._ref.name}")
            files = await self._fill_volumes()
            group.create_task(self._renew_volumes(files), name=f"volumes-{self._ref.name}")
            for container in self._init:
                await container.run(until_success=True)
                container.state.ready = True
            for container in self._main:
                group.create_task(container.run(until_success=False), name=f"container-{container.state.name}")

    def _volume_files(self, given: Configuration) -> list[tuple[File, ...]]:
        volumes = self._pod["spec"].get("volumes", ())
        return [volume_files(self._pod, volume, self._sandbox.address, given) for volume in volumes]

    async def _renew_volumes(self, before: list[tuple[File, ...]]) -> None:
        """Bring what changes in ConfigMaps and Secrets to the volumes that are made of them."""
        volumes = self._pod["spec"].get("volumes", ())
        async for files in self._configurations.changes(self._ref.namespace, self._volume_files):
            for volume, old, new in zip(volumes, before, files, strict=True):
                if old != new:
                    rewrite(self._sandbox.volume(volume), old, new)
            before = files

    async def _fill_volumes(self) -> list[tuple[File, ...]]:
        volumes = self._pod["spec"].get("volumes", ())
        files = await self._configurations.made(
            self._ref.namespace,
            self._volume_files,
            # Kubernetes says this in an event, and ContainerCreating in the status; here the status is all there is.
            lambda why: self._wait(CreateContainerConfigError.__name__, why),
        )
        try:
            for volume, content in zip(volumes, files, strict=True):
                write(self._sandbox.volume(volume), content)
        except OSError as error:
            self._wait("CreateContainerError", str(error))
            await asyncio.Event().wait()
        self._wait("PodInitializing", "")
        return files

    def _wait(self, reason: str, message: str) -> None:
        for container in (*self._init, *self._main):
            container.wait(reason, message)

    async def _report(self) -> None:
        """Write the status whenever it changes."""
        written: Manifest = {}
        while True:
            self._changed.clear()
            status = self.status()
            if status != written:
                try:
                    await self._api.patch_status(self._ref, status)
                except NotFound:
                    # Deleted this moment: the kubelet ends this pod at once.
                    return
                written = status
            await self._changed.wait()

    def status(self) -> dict[str, Json]:
        """Return the pod's status."""
        initialized = all(container.state.ready for container in self._init)
        ready = initialized and all(container.state.ready for container in self._main)
        running = any("running" in container.state.state for container in self._main)
        return {
            "phase": "Running" if running else "Pending",
            "podIP": self._sandbox.address,
            "podIPs": [{"ip": self._sandbox.address}],
            "hostIP": "127.0.0.1",
            "conditions": [
                {"type": name, "status": "True" if holds else "False"}
                for name, holds in (
                    ("PodScheduled", True),
                    ("Initialized", initialized),
                    ("ContainersReady", ready),
                    ("Ready", ready),
                )
            ],
            "initContainerStatuses": [container.state.status() for container in self._init],
            "containerStatuses": [container.state.status() for container in self._main],
        }


def pod_ref(namespace: str, name: str) -> ObjectRef:
    """Return the reference of a pod."""
    return ObjectRef(kinds.POD, Namespace(namespace), name)
