"""The reconcile loop on the API server in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from clusters import until
from servery_controller.admission import application, judge
from servery_controller.controller import Controller
from servery_controller.metrics import FetchMetrics, exposed
from servery_controller.planning import PlanningSettings
from servery_kube.events import Recorder
from servery_kube.memory import MemoryApi
from servery_kube.port import Conflict, Forbidden, KubeError, Rejected
from servery_sdk import kinds
from servery_sdk.fetches import FetchReport
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import Event
from servery_sdk.plugins import Plugins

SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
Make = Callable[..., dict[str, Any]]


def ref(kind: Kind, name: str = "iris-predictor") -> ObjectRef:
    return ObjectRef(kind, Namespace("demo"), name)


def ready_pod(name: str = "p", *, failure: str | None = None, fetched: str = "") -> Manifest:
    labels = {"app": "isvc.iris-predictor", "serving.kserve.io/inferenceservice": "iris"}
    state = {"running": {}} if failure is None else {"waiting": {"reason": "CrashLoopBackOff"}}
    last = {} if failure is None else {"terminated": {"exitCode": 1, "message": failure}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "demo", "labels": labels},
        "status": {
            "conditions": [{"type": "Ready", "status": "False" if failure else "True"}],
            "containerStatuses": [{"name": "kserve-container", "state": state, "lastState": last}],
            "initContainerStatuses": [
                {"name": "storage-initializer", "state": {"terminated": {"exitCode": 0, "message": fetched}}}
            ],
        },
    }


@pytest.fixture
def make_controller(installed: Plugins) -> Callable[[MemoryApi], Controller]:
    return lambda api: Controller(api, installed, PlanningSettings(), now=lambda: "2026-01-01T00:00:00Z")


@pytest.fixture
def make_api(installed: Plugins) -> Callable[..., MemoryApi]:
    crds = [crd for dialect in installed.dialects.values() for crd in dialect.crds()]
    return lambda **options: MemoryApi(crds, **options)


@pytest.fixture
def api(make_api: Callable[..., MemoryApi]) -> MemoryApi:
    return make_api()


async def run_pod(api: MemoryApi, pod: Manifest) -> None:
    """Do what a kubelet does: the status comes after the pod."""
    await api.create(pod, kinds.POD)
    await api.patch_status(ref(kinds.POD, pod["metadata"]["name"]), pod["status"])


async def report(api: MemoryApi) -> dict[str, Any]:
    status: dict[str, Any] = (await api.get(ref(SERVICE, "iris"))).get("status") or {}
    return status


async def available(api: MemoryApi, status: str) -> None:
    deployment = await until(lambda: api.get(ref(kinds.DEPLOYMENT)))
    generation = deployment["metadata"]["generation"]
    conditions = [{"type": "Available", "status": status, "reason": "r", "message": "m"}]
    await api.patch_status(ref(kinds.DEPLOYMENT), {"observedGeneration": generation, "conditions": conditions})


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


async def test_service_becomes_ready_and_says_where_it_is(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)
        await run_pod(api, ready_pod())
        await available(api, "True")

        async def ready() -> Any:
            found = await report(api)
            return found if condition(found, "Ready").get("status") == "True" else None

        status = await until(ready)
    assert status["url"] == "http://iris-demo.example.com"
    assert status["modelStatus"]["transitionStatus"] == "UpToDate"
    assert status["clusterServingRuntimeName"] == "servery-sklearn"


async def test_failure_is_reported_in_its_own_words_and_cleared_when_it_heals(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)
        await run_pod(api, ready_pod(failure="model.joblib: cannot be unpickled"))
        await available(api, "False")

        async def failed() -> Any:
            return (await report(api)).get("modelStatus", {}).get("lastFailureInfo")

        info = await until(failed)
        assert info["message"] == "model.joblib: cannot be unpickled"
        assert info["location"] == "pod p container kserve-container"

        async def not_ready() -> bool:
            predictor = condition(await report(api), "PredictorReady")
            return (predictor.get("reason"), predictor.get("status")) == ("ModelLoadFailed", "False")

        await until(not_ready)

        await api.delete(ref(kinds.POD, "p"))
        await run_pod(api, ready_pod("q"))
        await available(api, "True")

        async def healed() -> bool:
            found = await report(api)
            return condition(found, "Ready").get("status") == "True" and "lastFailureInfo" not in found["modelStatus"]

        await until(healed)


async def test_what_happened_is_said_once_in_events(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    async def said(reason: str) -> Any:
        found = (await api.list(kinds.EVENT, namespace="demo")).items
        return next((e for e in found if e["reason"] == reason), None)

    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)
        await run_pod(api, ready_pod(failure="model.joblib: cannot be unpickled"))
        await available(api, "False")
        failed = await until(lambda: said("ModelLoadFailed"))
        assert failed["type"] == "Warning"
        assert "model.joblib: cannot be unpickled" in failed["message"]
        assert failed["involvedObject"]["name"] == "iris"
        await api.delete(ref(kinds.POD, "p"))
        await run_pod(api, ready_pod("q"))
        await available(api, "True")
        assert (await until(lambda: said("InferenceServiceReady")))["type"] == "Normal"
        await api.delete(ref(kinds.POD, "q"))
        await run_pod(api, ready_pod("r", failure="out of patience"))
        await available(api, "False")
        lost = await until(lambda: said("InferenceServiceNotReady"))
        assert "no longer Ready because of: ModelLoadFailed" in lost["message"]
    chosen = await said("RuntimeSelected")
    assert chosen["message"].startswith("servery-sklearn serves")
    assert {e["count"] for e in (await api.list(kinds.EVENT)).items} == {1}


async def test_what_a_pod_fetched_is_in_an_event_and_in_metrics(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller], make_service: Make, installed: Plugins
) -> None:
    left = FetchReport(files=3, fetched_bytes=2_000_000, cached_files=1, cached_bytes=500_000, retries=2, seconds=4.0)
    controller = make_controller(api)

    async def said() -> Any:
        return next((e for e in (await api.list(kinds.EVENT)).items if e["reason"] == "ModelFetched"), None)

    async with controller.running():
        await api.create(make_service(), SERVICE)
        await run_pod(api, ready_pod(fetched=left.text()))
        await available(api, "True")
        assert (await until(said))["message"] == f"pod p: {left.words}"
        with exposed(FetchMetrics(controller.model_pods)):
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(application(installed, lambda: True)), base_url="http://controller"
            ) as client:
                found = (await client.get("/metrics")).text.splitlines()
    pod = 'namespace="demo",pod="p",service="iris"'
    assert f"servery_controller_model_fetch_seconds{{{pod}}} 4.0" in found
    of_cache = pod.replace(",", ',origin="cache",', 1)
    assert f"servery_controller_model_fetch_bytes{{{of_cache}}} 500000.0" in found
    assert f"servery_controller_model_fetch_retries{{{pod}}} 2.0" in found
    assert f"servery_controller_model_fetch_failures{{{pod}}} 0.0" in found


async def test_same_event_again_raises_its_count(api: MemoryApi, make_service: Make) -> None:
    event = Event(type="Warning", reason="NoSupportingRuntime", message="none")
    for _ in range(3):
        await Recorder(api, "test").record(make_service(), event)
    (found,) = (await api.list(kinds.EVENT)).items
    assert (found["count"], found["source"]) == (3, {"component": "test"})


async def test_stopped_service_has_no_pods_and_comes_back(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)
        await until(lambda: api.get(ref(kinds.DEPLOYMENT)))
        live = await api.get(ref(SERVICE, "iris"))
        stop = {"serving.kserve.io/stop": "true"}
        await api.update(
            {**live, "metadata": {**live["metadata"], "annotations": stop, "resourceVersion": None}}, SERVICE
        )

        async def gone() -> bool:
            return not (await api.list(kinds.DEPLOYMENT)).items

        await until(gone)

        async def said() -> bool:
            return condition(await report(api), "Stopped").get("status") == "True"

        await until(said)
        live = await api.get(ref(SERVICE, "iris"))
        await api.update(
            {**live, "metadata": {**live["metadata"], "annotations": {}, "resourceVersion": None}}, SERVICE
        )
        await until(lambda: api.get(ref(kinds.DEPLOYMENT)))


async def test_conflicts_are_tried_again(
    make_api: Callable[..., MemoryApi], make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    left = {"apply": 3, "patch_status": 3, "list": 2}

    def fault(verb: str) -> None:
        if left.get(verb, 0) > 0:
            left[verb] -= 1
            raise Conflict("injected")

    api = make_api(fault=fault)
    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)
        await until(lambda: api.get(ref(kinds.HORIZONTAL_POD_AUTOSCALER)))
        await until(lambda: report(api))
    assert set(left.values()) == {0}


async def test_what_somebody_changes_of_ours_is_set_right_and_what_is_theirs_is_left(
    make_api: Callable[..., MemoryApi], make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    applies = 0

    def count(verb: str) -> None:
        nonlocal applies
        applies += verb == "apply"

    def image(deployment: Manifest) -> str:
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    api = make_api(fault=count)
    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)
        await until(lambda: report(api))
        await available(api, "True")
        deployment = await api.get(ref(kinds.DEPLOYMENT))
        ours, settled = image(deployment), applies
        await api.update({**deployment, "spec": {**deployment["spec"], "replicas": 7}}, kinds.DEPLOYMENT)
        await available(api, "False")

        async def seen() -> bool:
            return condition(await report(api), "PredictorReady").get("reason") == "r"

        await until(seen)
        assert applies == settled
        edited = json.loads(json.dumps(await api.get(ref(kinds.DEPLOYMENT))).replace(ours, "somebody/else:1"))
        await api.update(edited, kinds.DEPLOYMENT)

        async def healed() -> Any:
            found = await api.get(ref(kinds.DEPLOYMENT))
            return found if image(found) == ours else None

        healed_deployment = await until(healed)
    assert healed_deployment["spec"]["replicas"] == 7
    assert applies == settled + 1


@pytest.mark.parametrize(
    "error",
    [
        Rejected(
            'admission webhook "validation.webhook.serving.knative.dev" denied the request: init-containers is off'
        ),
        Forbidden('deployments.apps "iris-predictor" is forbidden: exceeded quota'),
    ],
    ids=["rejected", "forbidden"],
)
async def test_what_the_api_server_refuses_is_said_in_its_words_and_tried_again(
    make_api: Callable[..., MemoryApi],
    make_controller: Callable[[MemoryApi], Controller],
    make_service: Make,
    error: KubeError,
) -> None:
    refuses = True

    def fault(verb: str) -> None:
        if verb == "apply" and refuses:
            raise error

    api = make_api(fault=fault)
    async with make_controller(api).running():
        await api.create(make_service(), SERVICE)

        async def said() -> Any:
            found = condition(await report(api), "PredictorReady")
            return found if found.get("reason") == "ReconcileFailed" else None

        found = await until(said)
        assert (found["status"], found["message"]) == ("False", str(error))

        async def warned() -> Any:
            events = (await api.list(kinds.EVENT)).items
            return [event["type"] for event in events if event["reason"] == "ReconcileFailed"]

        assert await until(warned) == ["Warning"]
        refuses = False
        await until(lambda: api.get(ref(kinds.DEPLOYMENT)))

        async def healed() -> bool:
            return condition(await report(api), "PredictorReady").get("reason") != "ReconcileFailed"

        await until(healed)


async def test_500_services_settle_and_then_make_no_writes(
    make_api: Callable[..., MemoryApi], make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    writes = 0

    def count(verb: str) -> None:
        nonlocal writes
        writes += verb in {"apply", "patch_status", "create", "delete"}

    api = make_api(fault=count)
    for number in range(500):
        await api.create(make_service(f"s{number}"), SERVICE)
    async with make_controller(api).running():

        async def settled() -> bool:
            found = (await api.list(SERVICE)).items
            return all("status" in item for item in found)

        async with asyncio.timeout(90):
            while not await settled():  # noqa: ASYNC110  # the controller changes it
                await asyncio.sleep(0.2)
            before = -1
            while before != writes:
                before = writes
                await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
    assert writes == before
    assert len((await api.list(kinds.DEPLOYMENT)).items) == 500


async def test_secrets_of_the_service_account_are_gathered(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller], make_service: Make
) -> None:
    metadata = {"name": "sa", "namespace": "demo"}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "secrets": [{"name": "s"}, {"name": "gone"}],
    }
    data = {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eQ=="}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "demo"}, "data": data}
    await api.create(account, kinds.SERVICE_ACCOUNT)
    await api.create(secret, kinds.SECRET)
    async with make_controller(api).running():
        await api.create(make_service(sklearn={"storageUri": "s3://b/m"}, serviceAccountName="sa"), SERVICE)
        deployment = await until(lambda: api.get(ref(kinds.DEPLOYMENT)))
    env = deployment["spec"]["template"]["spec"]["initContainers"][0]["env"]
    assert [variable["name"] for variable in env] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


async def test_service_gets_the_model_that_comes_after_it(
    api: MemoryApi, make_controller: Callable[[MemoryApi], Controller]
) -> None:
    inference = Kind("serving.kubedl.io/v1alpha1", "Inference", "inferences")
    version = Kind("model.kubedl.io/v1alpha1", "ModelVersion", "modelversions")
    container = {"name": "server", "image": "tensorflow/serving:1.11.1"}
    predictor = {"name": "a", "modelVersion": "m", "template": {"spec": {"containers": [container]}}}

    def manifest(kind: Kind, name: str, spec: Manifest) -> Manifest:
        metadata = {"name": name, "namespace": "demo"}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}

    async def directory() -> Any:
        deployment = await api.get(ref(kinds.DEPLOYMENT, "hello-a"))
        (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
        return volume.get("hostPath")

    async with make_controller(api).running():
        await api.create(manifest(inference, "hello", {"framework": "TFServing", "predictors": [predictor]}), inference)
        await until(lambda: api.get(ref(kinds.DEPLOYMENT, "hello-a")))
        assert await directory() is None
        await api.create(manifest(version, "m", {"storage": {"localStorage": {"path": "/models"}}}), version)
        assert (await until(directory))["path"] == "/models"


def test_admission_says_what_parse_says(installed: Plugins, make_service: Make, make_runtime: Make) -> None:
    assert judge(make_service(), installed) == {"allowed": True, "warnings": []}
    refused = judge(make_service(sklearn={}, minReplicas=-1), installed)
    assert refused["allowed"] is False
    assert "spec.predictor.minReplicas" in refused["status"]["message"]
    assert judge(make_runtime("r", containers=[]), installed)["allowed"] is False
    assert judge({"apiVersion": "v1", "kind": "Pod"}, installed) == {"allowed": True}
