"""Agents at the controller's port of assignments: real tokens of real pods, looked at under the controller's own role."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import until
from servery_agent.puller.assignments import Assignment
from servery_agent.puller.control import Control, Pod
from servery_agent.puller.decider import State, Told
from servery_controller.assignments import Assignments
from servery_controller.callers import Caller, Stranger, TokenReviews
from servery_controller.controller import Controller
from servery_controller.planning import PlanningSettings
from servery_controller.settings import load
from servery_controller.telling import serving
from servery_kube.client import KubeClient, connect
from servery_sdk import kinds, plugins
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef

OVERLAYS = Path(__file__).parents[2] / "deploy" / "kustomize" / "overlays"
AUDIENCE = "servery-controller"
SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
MODEL = Kind("serving.kserve.io/v1alpha1", "TrainedModel", "trainedmodels")
MakeToken = Callable[..., str]


async def make_pod(admin: KubeClient, namespace: str, name: str, spec: Manifest | None = None) -> None:
    spec = spec or {"containers": [{"name": "c", "image": "i"}]}
    metadata = {"name": name, "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "serviceAccountName": "default"}}
    await admin.create(pod, kinds.POD)


@pytest.fixture
async def account(admin: KubeClient, namespace: str) -> None:
    """The account of pods that name none; the controller manager may have been faster."""
    metadata = {"name": "default", "namespace": namespace}
    await admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, kinds.SERVICE_ACCOUNT)


@pytest.fixture
def make_token(api_server: Any, account: None, namespace: str) -> MakeToken:
    """As a kubelet gets one for a projected volume; without a pod, as a person may."""

    def make(pod: str | None = None, audience: str | None = AUDIENCE) -> str:
        command = ["kubectl", f"--kubeconfig={api_server.kubeconfig()}", "create", "token", "default", "-n", namespace]
        command += [f"--audience={audience}"] if audience else []
        command += ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return make


@pytest.fixture
async def reviewer(api_server: Any, overlay: None) -> AsyncIterator[KubeClient]:
    """The API server, asked under the controller's role and nothing more."""
    async with connect(str(api_server.kubeconfig("controller"))) as api:
        yield api


async def test_only_the_pods_own_token_is_believed(
    reviewer: KubeClient, admin: KubeClient, namespace: str, make_token: MakeToken
) -> None:
    for name in ("p", "q"):
        await make_pod(admin, namespace, name)
    caller, reviews = Caller(namespace=namespace, pod="p"), TokenReviews(reviewer, AUDIENCE)
    token = await asyncio.to_thread(make_token, "p")
    await reviews.check(token, caller)
    for wrong, words in (
        (await asyncio.to_thread(make_token, "q"), f"of pod {namespace}/q"),
        (await asyncio.to_thread(make_token), "none of a pod"),
        (await asyncio.to_thread(make_token, "p", None), "none of a pod"),
        (token[:-4] + "AAAA", "none of a pod"),
        ("controller", "none of a pod"),
    ):
        with pytest.raises(Stranger, match=words):
            await reviews.check(wrong, caller)
    await admin.delete(ObjectRef(kinds.POD, Namespace(namespace), "p"))

    async def is_over() -> bool:
        # A token ends with its pod; the API server itself remembers good ones for some seconds.
        try:
            await TokenReviews(reviewer, AUDIENCE).check(token, caller)
        except Stranger:
            return True
        return False

    await until(is_over, seconds=60)


async def test_agent_of_a_planned_pod_hears_its_models_and_is_heard(
    reviewer: KubeClient, admin: KubeClient, namespace: str, make_token: MakeToken, tmp_path: Path
) -> None:
    assignments, heard = Assignments(), asyncio.Queue[tuple[Assignment, ...]]()
    async with serving(assignments, "127.0.0.1:0", TokenReviews(reviewer, AUDIENCE)) as port:
        address = f"127.0.0.1:{port}"
        settings = PlanningSettings(assignments_address=address, assignments_audience=AUDIENCE)
        async with Controller(reviewer, plugins.load(), settings, assignments=assignments).running():
            metadata = {"name": "flowers", "namespace": namespace}
            spec: Manifest = {"predictor": {"sklearn": {}}}
            service = {"apiVersion": SERVICE.api_version, "kind": SERVICE.kind, "metadata": metadata, "spec": spec}
            await admin.create(service, SERVICE)
            model = {"storageUri": "s3://b/red", "framework": "sklearn", "memory": "1Mi"}
            await admin.create(
                {
                    "apiVersion": MODEL.api_version,
                    "kind": MODEL.kind,
                    "metadata": {"name": "red", "namespace": namespace},
                    "spec": {"inferenceService": "flowers", "model": model},
                },
                MODEL,
            )
            deployment = await until(
                lambda: admin.get(ObjectRef(kinds.DEPLOYMENT, Namespace(namespace), "flowers-predictor"))
            )
            planned = deployment["spec"]["template"]["spec"]
            (volume,) = (one for one in planned["volumes"] if one["name"] == "controller-token")
            asked = volume["projected"]["sources"][0]["serviceAccountToken"]
            await make_pod(admin, namespace, "p", planned)
            (tmp_path / asked["path"]).write_text(await asyncio.to_thread(make_token, "p", asked["audience"]))
            control = Control(
                address,
                Pod(namespace=namespace, name="p", service="flowers"),
                token_file=tmp_path / asked["path"],
                on_assigned=heard.put_nowait,
                on_gone=lambda: None,
            )
            running = asyncio.create_task(control.run(), name="agent")
            try:
                async with asyncio.timeout(30):
                    while not (models := await heard.get()):
                        continue
                assert [(one.name, one.uri) for one in models] == [("red", "s3://b/red")]
                control.tell((Told(name="red", state=State.FAILED, reason="no such bucket", uri="s3://b/red"),))

                async def told() -> bool:
                    found = await admin.get(ObjectRef(MODEL, Namespace(namespace), "red"))
                    conditions = (found.get("status") or {}).get("conditions", ())
                    return any("pod p: no such bucket" in (one.get("message") or "") for one in conditions)

                await until(told)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("mode", sorted(path.name for path in OVERLAYS.iterdir()))
def test_overlay_has_what_agents_of_many_models_need(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(OVERLAYS / mode)], capture_output=True, text=True, check=True
    ).stdout
    objects = [one for one in yaml.safe_load_all(built) if one]

    def named(kind: str, name: str) -> Manifest:
        (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
        return dict(found)

    # Where the pods are told to ask, by the settings that the controller has in its pod.
    monkeypatch.setenv("POD_NAMESPACE", named("Deployment", "servery-controller")["metadata"]["namespace"])
    planning = load([]).planning(plugins.load())
    host, _, port = planning.assignments_address.partition(":")
    name, namespace, _ = host.split(".", 2)
    service = named("Service", name)
    assert service["metadata"]["namespace"] == namespace
    (opened,) = (one for one in service["spec"]["ports"] if one["port"] == int(port))
    (container,) = named("Deployment", name)["spec"]["template"]["spec"]["containers"]
    (listening,) = (one for one in container["ports"] if one["name"] == opened["targetPort"])
    assert listening["containerPort"] == load([]).assignments_port
    allowed = [one["port"] for rule in named("NetworkPolicy", name)["spec"]["ingress"] for one in rule["ports"]]
    assert listening["containerPort"] in allowed
    assert planning.assignments_audience
    account = {"kind": "ServiceAccount", "name": "servery-controller", "namespace": namespace}
    granted = {
        (group, resource, verb)
        for binding in objects
        if binding["kind"] == "ClusterRoleBinding" and account in binding["subjects"]
        for rule in named("ClusterRole", binding["roleRef"]["name"])["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    needed = {
        ("authentication.k8s.io", "tokenreviews", "create"),
        *(("", "configmaps", verb) for verb in ("list", "watch", "create", "patch", "delete")),
        *(("serving.kserve.io", "trainedmodels", verb) for verb in ("list", "watch")),
        *(("serving.kserve.io", "trainedmodels/status", verb) for verb in ("get", "patch")),
    }
    assert needed <= granted, needed - granted
