"""A canary by revision, from manifest to status and back, on the API server in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from clusters import until
from servery_controller.controller import Controller
from servery_controller.planning import PlanningSettings
from servery_kube.memory import MemoryApi
from servery_sdk import kinds
from servery_sdk.manifests import Kind, Namespace, ObjectRef
from servery_sdk.plugins import Plugins

SERVICE = ObjectRef(
    Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"), Namespace("demo"), "iris"
)
ENGINES = ObjectRef(kinds.KNATIVE_SERVICE, Namespace("demo"), "iris-predictor")
KNATIVE = {"serving.kserve.io/deploymentMode": "Knative"}
URL = "http://iris-predictor.demo.example.com"


@pytest.fixture
def api(installed: Plugins) -> MemoryApi:
    crds = [crd for dialect in installed.dialects.values() for crd in dialect.crds()]
    return MemoryApi(crds, served=[kinds.KNATIVE_SERVICE])


async def knative_says(api: MemoryApi, newest: str, *shares: tuple[str, int]) -> None:
    """Do what Knative does once the revision ``newest`` is there."""
    generation = (await api.get(ENGINES))["metadata"]["generation"]
    parts = ("Ready", "ConfigurationsReady", "RoutesReady")
    traffic = [
        {"revisionName": name, "percent": percent, "latestRevision": index == 0}
        for index, (name, percent) in enumerate(shares)
    ]
    status = {
        "observedGeneration": generation,
        "conditions": [{"type": name, "status": "True"} for name in parts],
        "url": URL,
        "latestCreatedRevisionName": newest,
        "latestReadyRevisionName": newest,
        "traffic": traffic,
    }
    await api.patch_status(ENGINES, status)


async def test_canary_shares_with_what_was_rolled_out_and_is_promoted(
    api: MemoryApi, installed: Plugins, make_service: Callable[..., dict[str, Any]]
) -> None:
    def service(uri: str, **predictor: Any) -> dict[str, Any]:
        return make_service(annotations=KNATIVE, sklearn={"storageUri": uri}, **predictor)

    async def component() -> Any:
        return (await api.get(SERVICE)).get("status", {}).get("components", {}).get("predictor", {})

    async def traffic(*percents: int) -> Any:
        shares = (await api.get(ENGINES))["spec"]["traffic"]
        return shares if [share["percent"] for share in shares] == list(percents) else None

    async def rolled_out(revision: str) -> bool:
        return bool((await component()).get("latestRolledoutRevision") == revision)

    async with Controller(api, installed, PlanningSettings(), now=lambda: "2026-01-01T00:00:00Z").running():
        await api.create(service("s3://b/one"), SERVICE.kind)
        await until(lambda: traffic(100))
        await knative_says(api, "r1", ("r1", 100))
        await until(lambda: rolled_out("r1"))
        status = (await api.get(SERVICE))["status"]
        said = {found["type"]: found["status"] for found in status["conditions"]}
        assert (status["url"], said["Ready"], said["PredictorRouteReady"], said["RoutesReady"]) == (URL, *["True"] * 3)

        await api.update(service("s3://b/two", canaryTrafficPercent=10), SERVICE.kind)
        shares = await until(lambda: traffic(10, 90))
        assert shares[1] == {"latestRevision": False, "revisionName": "r1", "percent": 90, "tag": "prev"}
        await knative_says(api, "r2", ("r2", 10), ("r1", 90))
        await until(lambda: _is(component, "latestReadyRevision", "r2"))
        assert await rolled_out("r1")

        await api.update(service("s3://b/two"), SERVICE.kind)
        await until(lambda: traffic(100))
        await knative_says(api, "r2", ("r2", 100))
        await until(lambda: rolled_out("r2"))
        assert (await component())["previousRolledoutRevision"] == "r1"


async def _is(component: Callable[[], Awaitable[Any]], field: str, value: str) -> bool:
    return bool((await component()).get(field) == value)
