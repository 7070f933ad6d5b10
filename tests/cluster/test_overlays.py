"""Each overlay as a user applies it, and the controller under exactly its role, with a service of every dialect."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from clusters import until
from servery_controller import controller as controlling
from servery_controller import render
from servery_controller.controller import Controller
from servery_controller.planning import PlanningSettings
from servery_kube.client import KubeClient, connect
from servery_kube.port import NotFound
from servery_sdk import kinds, plugins
from servery_sdk.manifests import CLUSTER, Kind, Manifest, Namespace, ObjectRef

OVERLAYS = Path(__file__).parents[2] / "deploy" / "kustomize" / "overlays"
INSTALLED = plugins.load()
BINDING = Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False)
URI = "s3://models/iris"
SERVICES: dict[str, list[Manifest]] = {
    "kserve": [
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "in-kserve"},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": URI}}},
        }
    ],
    "ome": [
        {
            "apiVersion": "ome.io/v1beta1",
            "kind": "BaseModel",
            "metadata": {"name": "iris"},
            "spec": {"modelFormat": {"name": "sklearn"}, "storage": {"storageUri": URI, "path": "/models/iris"}},
        },
        {
            "apiVersion": "ome.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "in-ome"},
            "spec": {"model": {"name": "iris", "kind": "BaseModel"}, "engine": {"minReplicas": 1, "maxReplicas": 1}},
        },
    ],
    "kubedl": [
        {
            "apiVersion": "serving.kubedl.io/v1alpha1",
            "kind": "Inference",
            "metadata": {"name": "in-kubedl"},
            "spec": {
                "framework": "TFServing",
                "predictors": [
                    {
                        "name": "only",
                        "template": {
                            "spec": {"containers": [{"name": "tensorflow", "image": "tensorflow/serving:1.11.1"}]}
                        },
                    }
                ],
            },
        }
    ],
}
MAIN = {"raw": kinds.DEPLOYMENT, "knative": kinds.KNATIVE_SERVICE, "ray": kinds.RAY_SERVICE}


def kind_of(manifest: Manifest) -> Kind:
    owner = render.dialect_of(manifest, INSTALLED) or render.model_dialect_of(manifest, INSTALLED)
    assert owner is not None
    return owner[1]


@pytest.fixture
async def role(request: pytest.FixtureRequest, api_server: Any, admin: KubeClient, crds: None) -> str:
    """The overlay of one mode, and no other mode's role."""
    mode: str = request.param
    for other in INSTALLED.modes:
        with contextlib.suppress(NotFound):
            await admin.delete(ObjectRef(BINDING, CLUSTER, f"servery-mode-{other}"))
    await asyncio.to_thread(api_server.apply_kustomization, OVERLAYS / mode)
    return mode


async def create(admin: KubeClient, namespace: str, dialect: str, **metadata: Any) -> ObjectRef:
    """Create a service of ``dialect`` and what it names."""
    *models, service = SERVICES[dialect]
    for manifest in (*models, service):
        placed = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace, **metadata}}
        await admin.create(placed, kind_of(manifest))
    return ObjectRef(kind_of(service), Namespace(namespace), service["metadata"]["name"])


@contextlib.asynccontextmanager
async def controller(api_server: Any, mode: str) -> Any:
    async with (
        connect(str(api_server.kubeconfig("controller"))) as api,
        Controller(api, INSTALLED, PlanningSettings(default_mode=mode)).running(),
    ):
        yield


def conditions(service: Manifest) -> dict[str, Manifest]:
    return {c["type"]: c for c in (service.get("status") or {}).get("conditions", ())}


def test_every_mode_has_an_overlay() -> None:
    assert {path.name for path in OVERLAYS.iterdir()} == set(INSTALLED.modes) == set(MAIN)
    assert set(SERVICES) == set(INSTALLED.dialects)


@pytest.mark.parametrize("role", sorted(MAIN), indirect=True)
async def test_one_service_of_each_dialect_becomes_the_modes_objects(
    role: str, api_server: Any, admin: KubeClient, engines: None, namespace: str
) -> None:
    async with controller(api_server, role):
        for dialect in SERVICES:
            ref = await create(admin, namespace, dialect)

            async def made(ref: ObjectRef = ref) -> bool:
                found = (await admin.list(MAIN[role], namespace=namespace)).items
                owners = {owner["name"] for item in found for owner in item["metadata"]["ownerReferences"]}
                return ref.name in owners

            async def reported(ref: ObjectRef = ref) -> dict[str, Manifest]:
                return conditions(await admin.get(ref))

            await until(made)
            said = await until(reported)
            assert all(c.get("reason") != "ReconcileFailed" for c in said.values()), said


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("role", "product"), [("knative", "Knative Serving"), ("ray", "the KubeRay operator")], indirect=["role"]
)
async def test_missing_engine_is_named_until_it_is_installed(
    role: str,
    product: str,
    api_server: Any,
    admin: KubeClient,
    engine_definitions: dict[Kind, Manifest],
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controlling, "LOOK_AGAIN_SECONDS", 0.5)
    engine = engine_definitions[MAIN[role]]
    with contextlib.suppress(NotFound):
        await admin.delete(ObjectRef(kinds.CUSTOM_RESOURCE_DEFINITION, CLUSTER, engine["metadata"]["name"]))

    async def gone() -> bool:
        return not await admin.has(MAIN[role])

    await until(gone, seconds=60)
    async with controller(api_server, role):
        refs = [await create(admin, namespace, dialect) for dialect in SERVICES]
        for ref in refs:

            async def told(ref: ObjectRef = ref) -> list[str]:
                said = conditions(await admin.get(ref)).values()
                return [c["message"] for c in said if c.get("reason") == "EngineMissing"]

            messages = await until(told)
            assert all(f"needs {product}" in message and "install it" in message for message in messages)
        await admin.apply(engine, kinds.CUSTOM_RESOURCE_DEFINITION)
        for ref in refs:

            async def made(ref: ObjectRef = ref) -> bool:
                found = (await admin.list(MAIN[role], namespace=namespace)).items
                return ref.name in {owner["name"] for item in found for owner in item["metadata"]["ownerReferences"]}

            await until(made, seconds=60)
