"""The controller on a real API server, with the garbage collector and the Deployment controller beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from clusters import until
from servery_controller.controller import Controller
from servery_controller.planning import PlanningSettings
from servery_kube.client import KubeClient, connect
from servery_kube.leader import Election, lead
from servery_kube.port import FIELD_MANAGER, Conflict, Forbidden, KubeError, NotFound, TooManyRequests
from servery_sdk import kinds, plugins
from servery_sdk.manifests import CLUSTER, Kind, Manifest, Namespace, ObjectRef

INSTALLED = plugins.load()
SERVICE = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
RUNTIME = Kind("serving.kserve.io/v1alpha1", "ServingRuntime", "servingruntimes")


def service(namespace: str, name: str = "iris", **predictor: Any) -> Manifest:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"predictor": {"model": model, **predictor}},
    }


@contextlib.asynccontextmanager
async def controlling(kubeconfig: str) -> AsyncIterator[None]:
    async with (
        connect(kubeconfig) as api,
        Controller(api, INSTALLED, PlanningSettings()).running(),
    ):
        yield


@pytest.fixture
async def controller(api_server: Any, crds: None) -> AsyncIterator[None]:
    async with controlling(str(api_server.kubeconfig())):
        yield


def ref(kind: Kind, namespace: str, name: str = "iris-predictor") -> ObjectRef:
    return ObjectRef(kind, Namespace(namespace), name)


async def edit(admin: KubeClient, what: ObjectRef, *, annotations: Any = None, **changes: Any) -> None:
    """Change an object as ``kubectl edit`` does, again when somebody else was faster."""

    async def edited() -> bool:
        found = await admin.get(what)
        metadata = {**found["metadata"], **({"annotations": annotations} if annotations else {})}
        try:
            await admin.update({**found, **changes, "metadata": metadata}, what.kind)
        except Conflict:
            return False
        return True

    await until(edited)


async def owned(admin: KubeClient, namespace: str) -> dict[str, Manifest]:
    found = {}
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.HORIZONTAL_POD_AUTOSCALER, kinds.INGRESS, kinds.HTTP_ROUTE):
        with contextlib.suppress(NotFound):
            for item in (await admin.list(kind, namespace=namespace)).items:
                found[f"{kind.kind}/{item['metadata']['name']}"] = item
    return found


async def test_service_becomes_its_objects_and_its_end_leaves_nothing(
    controller: None, admin: KubeClient, namespace: str
) -> None:
    await admin.create(service(namespace), SERVICE)
    deployment = await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))
    assert deployment["spec"]["template"]["spec"]["initContainers"][0]["args"] == ["s3://models/iris", "/mnt/models"]
    await until(lambda: admin.get(ref(kinds.HORIZONTAL_POD_AUTOSCALER, namespace)))

    async def reported() -> Any:
        status = (await admin.get(ref(SERVICE, namespace, "iris"))).get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        return status if conditions.get("PredictorReady", {}).get("reason") not in {None, "DeploymentMissing"} else None

    status = await until(reported)
    assert status["clusterServingRuntimeName"] == "servery-sklearn"
    assert status["modelStatus"]["states"]["targetModelState"] == "Pending"

    await admin.delete(ref(SERVICE, namespace, "iris"))

    async def gone() -> bool:
        return not await owned(admin, namespace)

    # The garbage collector looks for new kinds twice a minute.
    await until(gone, seconds=90)


async def test_one_field_edited_moves_one_field(controller: None, admin: KubeClient, namespace: str) -> None:
    await admin.create(service(namespace), SERVICE)
    await until(lambda: admin.get(ref(kinds.SERVICE, namespace)))
    before = await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))
    await edit(admin, ref(SERVICE, namespace, "iris"), spec=service(namespace, labels={"team": "a"})["spec"])

    async def changed() -> Any:
        found = await admin.get(ref(kinds.DEPLOYMENT, namespace))
        return found if found["metadata"]["labels"].get("team") == "a" else None

    after = await until(changed)

    def ours(manifest: Manifest) -> set[str]:
        fields = next(m for m in manifest["metadata"]["managedFields"] if m["manager"] == FIELD_MANAGER)["fieldsV1"]
        return set(paths(fields))

    def paths(fields: Any, at: str = "") -> Any:
        for key, value in fields.items():
            yield from paths(value, f"{at}.{key}") if value else (f"{at}.{key}",)

    assert {path.rpartition(".")[2] for path in ours(after) - ours(before)} == {"f:team"}
    assert ours(before) <= ours(after)


async def test_replicas_that_somebody_sets_are_left_alone(controller: None, admin: KubeClient, namespace: str) -> None:
    await admin.create(service(namespace, maxReplicas=5), SERVICE)
    await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))
    scaled = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris-predictor", "namespace": namespace},
        "spec": {"replicas": 4},
    }
    await admin.apply(scaled, kinds.DEPLOYMENT, field_manager="an-autoscaler")
    labelled = service(namespace, maxReplicas=5, labels={"a": "b"})
    await edit(admin, ref(SERVICE, namespace, "iris"), spec=labelled["spec"])

    async def relabelled() -> Any:
        found = await admin.get(ref(kinds.DEPLOYMENT, namespace))
        return found if found["metadata"]["labels"].get("a") == "b" else None

    assert (await until(relabelled))["spec"]["replicas"] == 4


async def test_image_that_somebody_sets_is_set_right(controller: None, admin: KubeClient, namespace: str) -> None:
    await admin.create(service(namespace), SERVICE)
    deployment = await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))
    (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
    edited = json.loads(json.dumps(deployment["spec"]).replace(container["image"], "somebody/else:1"))
    await edit(admin, ref(kinds.DEPLOYMENT, namespace), spec=edited)

    async def healed() -> bool:
        found = await admin.get(ref(kinds.DEPLOYMENT, namespace))
        return bool(found["spec"]["template"]["spec"]["containers"][0]["image"] == container["image"])

    await until(healed)


async def test_service_without_a_runtime_says_why_and_heals(
    controller: None, admin: KubeClient, namespace: str
) -> None:
    broken = service(namespace)
    broken = {**broken, "spec": {"predictor": {"model": {"modelFormat": {"name": "acme"}, "storageUri": "s3://b"}}}}
    await admin.create(broken, SERVICE)

    async def failure() -> Any:
        status = (await admin.get(ref(SERVICE, namespace, "iris"))).get("status") or {}
        return status.get("modelStatus", {}).get("lastFailureInfo")

    info = await until(failure)
    assert info["reason"] == "NoSupportingRuntime"
    assert 'no runtime serves model format "acme"' in info["message"]
    assert "servery-sklearn (format)" in info["message"]

    runtime = {
        "apiVersion": RUNTIME.api_version,
        "kind": RUNTIME.kind,
        "metadata": {"name": "acme", "namespace": namespace},
        "spec": {
            "supportedModelFormats": [{"name": "acme", "autoSelect": True}],
            "containers": [{"name": "kserve-container", "image": "acme/server:1"}],
        },
    }
    await admin.create(runtime, RUNTIME)
    deployment = await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "acme/server:1"

    async def healed() -> bool:
        return await failure() is None

    await until(healed)

    containers = [{"name": "kserve-container", "image": "acme/server:2"}]
    await edit(admin, ref(RUNTIME, namespace, "acme"), spec={**runtime["spec"], "containers": containers})

    async def followed() -> bool:
        found = await admin.get(ref(kinds.DEPLOYMENT, namespace))
        return bool(found["spec"]["template"]["spec"]["containers"][0]["image"] == "acme/server:2")

    await until(followed)


async def test_object_that_is_no_longer_wanted_is_pruned(controller: None, admin: KubeClient, namespace: str) -> None:
    await admin.create(service(namespace), SERVICE)
    hpa = ref(kinds.HORIZONTAL_POD_AUTOSCALER, namespace)
    await until(lambda: admin.get(hpa))
    annotations = {"serving.kserve.io/autoscalerClass": "none"}
    await edit(admin, ref(SERVICE, namespace, "iris"), annotations=annotations)

    async def pruned() -> bool:
        try:
            await admin.get(hpa)
        except NotFound:
            return True
        return False

    await until(pruned)
    assert (await admin.get(ref(kinds.DEPLOYMENT, namespace)))["spec"]["replicas"] == 1


async def test_controller_goes_on_after_the_api_server_died(
    controller: None, api_server: Any, admin: KubeClient, namespace: str
) -> None:
    await admin.create(service(namespace), SERVICE)
    await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))
    await asyncio.to_thread(api_server.restart)
    await admin.create(service(namespace, "second"), SERVICE)
    await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace, "second-predictor")))


class Watched(KubeClient):
    """A client that keeps what it wrote in a namespace, and can be told to fail.

    Other tests' services share the server, so only what concerns the namespace counts.
    """

    def __init__(self, api: Any, namespace: str, conflicts: int = 0) -> None:
        super().__init__(api)
        self.namespace = namespace
        self.writes: list[str] = []
        self.refused = 0
        self.conflicts = conflicts

    async def _call(self, method: str, path: str, *more: Any) -> Manifest:
        if method == "GET" or f"/{self.namespace}/" not in path:
            return await super()._call(method, path, *more)
        self.writes.append(f"{method} {path}")
        if self.conflicts > 0:
            self.conflicts -= 1
            raise Conflict("injected")
        try:
            return await super()._call(method, path, *more)
        except TooManyRequests:
            self.refused += 1
            raise


@pytest.mark.timeout(400)
async def test_steady_state_of_500_services_makes_no_writes(
    admin: KubeClient, api_server: Any, crds: None, namespace: str
) -> None:
    usual = [f"s{number}" for number in range(10)]
    asleep = [f"z{number}" for number in range(490)]
    async with connect(str(api_server.kubeconfig())) as client:
        api = Watched(client._api, namespace)
        async with Controller(api, INSTALLED, PlanningSettings()).running():
            for name in usual:
                await admin.create(service(namespace, name), SERVICE)
            for name in asleep:
                # No pods and no autoscaler, or the controller manager would be what is measured.
                made = service(namespace, name, minReplicas=0)
                annotations = {"serving.kserve.io/autoscalerClass": "none"}
                await admin.create({**made, "metadata": {**made["metadata"], "annotations": annotations}}, SERVICE)

            async def all_reported() -> bool:
                found = (await admin.list(SERVICE, namespace=namespace)).items
                said = [
                    (c.get("reason"), c["status"])
                    for item in found
                    for c in item.get("status", {}).get("conditions", ())
                    if c["type"] == "PredictorReady"
                ]
                # No node takes the pods, so this is the Deployment controller's last word on each.
                last = said.count(("MinimumReplicasUnavailable", "False"))
                return (last, said.count((None, "True"))) == (len(usual), len(asleep))

            # After the API server's death in another test its controller manager takes a while to come back.
            await until(all_reported, seconds=300)
            quiet = 0
            # The Deployment controller reports in its own time; three seconds without a word are its end.
            while quiet < 60:
                count = len(api.writes)
                await asyncio.sleep(0.05)
                quiet = quiet + 1 if len(api.writes) == count else 0
            api.writes.clear()
            # Everything changes its resource version for a reason that is none of ours; nothing is written back.
            for name in (*usual, *asleep[:50]):
                note = {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": f"{name}-predictor", "namespace": namespace, "annotations": {"seen": "1"}},
                }
                await admin.apply(note, kinds.SERVICE, field_manager="somebody")
            await asyncio.sleep(1)
    assert api.writes == []


async def test_conflicts_are_tried_again(admin: KubeClient, api_server: Any, crds: None, namespace: str) -> None:
    async with connect(str(api_server.kubeconfig())) as client:
        api = Watched(client._api, namespace, conflicts=6)
        async with Controller(api, INSTALLED, PlanningSettings()).running():
            await admin.create(service(namespace), SERVICE)
            await until(lambda: admin.get(ref(kinds.HORIZONTAL_POD_AUTOSCALER, namespace)))
    assert api.conflicts == 0


PRIORITY_LEVEL = Kind(
    "flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", namespaced=False
)
FLOW_SCHEMA = Kind("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "flowschemas", namespaced=False)


@contextlib.asynccontextmanager
async def endless_request(port: int, path: str) -> AsyncIterator[None]:
    """Begin a write as the controller's user that never sends its body."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    head = (f"POST {path} HTTP/1.1", "Host: kube", "Authorization: Bearer controller", "Content-Length: 9")
    writer.write("\r\n".join((*head, "Content-Type: application/json", "", "")).encode())
    await writer.drain()
    yield
    writer.close()


async def test_api_server_that_is_too_busy_is_asked_again(
    admin: KubeClient, api_server: Any, crds: None, namespace: str, overlay: None
) -> None:
    """The server's own priority and fairness gives the controller one seat, which a request without an end takes."""
    jail = {
        "apiVersion": PRIORITY_LEVEL.api_version,
        "kind": PRIORITY_LEVEL.kind,
        "metadata": {"name": f"jail-{namespace}"},
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 0,
                "lendablePercent": 0,
                "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        },
    }
    account = {
        "kind": "ServiceAccount",
        "serviceAccount": {"namespace": "servery-system", "name": "servery-controller"},
    }
    writes = {"verbs": ["patch", "create"], "apiGroups": ["*"], "resources": ["*"], "namespaces": [namespace]}
    schema = {
        "apiVersion": FLOW_SCHEMA.api_version,
        "kind": FLOW_SCHEMA.kind,
        "metadata": {"name": f"jail-{namespace}"},
        "spec": {
            "matchingPrecedence": 2,
            "priorityLevelConfiguration": {"name": f"jail-{namespace}"},
            "rules": [{"subjects": [account], "resourceRules": [writes]}],
        },
    }
    await admin.apply(jail, PRIORITY_LEVEL)
    await admin.apply(schema, FLOW_SCHEMA)
    async with connect(str(api_server.kubeconfig("controller"))) as client, contextlib.AsyncExitStack() as taken:
        api = Watched(client._api, namespace)

        async def is_jailed() -> bool:
            # The schema counts from some moment on; the first request after it takes the seat.
            path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
            await taken.enter_async_context(endless_request(api_server.port, path))
            with contextlib.suppress(KubeError):
                await api.create(service(namespace, "probe"), SERVICE)
            return api.refused > 0

        await until(is_jailed)
        api.refused = 0
        async with Controller(api, INSTALLED, PlanningSettings()).running():
            await admin.create(service(namespace), SERVICE)

            async def refused_twice() -> bool:
                return api.refused >= 2

            await until(refused_twice)
            with pytest.raises(NotFound):
                await admin.get(ref(kinds.DEPLOYMENT, namespace))
            await taken.aclose()
            await until(lambda: admin.get(ref(kinds.DEPLOYMENT, namespace)))

            async def reported() -> Any:
                return (await admin.get(ref(SERVICE, namespace, "iris"))).get("status")

            await until(reported)
    await admin.delete(ObjectRef(FLOW_SCHEMA, CLUSTER, f"jail-{namespace}"))
    await admin.delete(ObjectRef(PRIORITY_LEVEL, CLUSTER, f"jail-{namespace}"))


async def test_autoscaler_sets_the_replicas_and_we_leave_them(
    controller: None, admin: KubeClient, namespace: str
) -> None:
    async def replicas(wanted: int) -> bool:
        return bool((await admin.get(ref(kinds.DEPLOYMENT, namespace)))["spec"]["replicas"] == wanted)

    await admin.create(service(namespace, minReplicas=1, maxReplicas=5), SERVICE)
    await until(lambda: replicas(1))
    await edit(admin, ref(SERVICE, namespace, "iris"), spec=service(namespace, minReplicas=3, maxReplicas=5)["spec"])
    # The autoscaler of the controller manager does it: our own apply says nothing of replicas.
    await until(lambda: replicas(3), seconds=60)
    labelled = service(namespace, minReplicas=2, maxReplicas=5, labels={"a": "b"})
    await edit(admin, ref(SERVICE, namespace, "iris"), spec=labelled["spec"])

    async def relabelled() -> bool:
        found = await admin.get(ref(kinds.DEPLOYMENT, namespace))
        return bool(found["metadata"]["labels"].get("a") == "b")

    await until(relabelled)
    assert await replicas(3)
    managers = (await admin.get(ref(kinds.DEPLOYMENT, namespace)))["metadata"]["managedFields"]
    ours = next(entry["fieldsV1"] for entry in managers if entry["manager"] == FIELD_MANAGER)
    assert "f:replicas" not in ours["f:spec"]


async def test_one_of_two_leads_and_the_other_follows_its_end(api_server: Any, namespace: str) -> None:
    led: list[str] = []
    kubeconfig = str(api_server.kubeconfig())

    async def candidate(identity: str) -> None:
        async def work() -> None:
            led.append(identity)
            await asyncio.Event().wait()

        async with connect(kubeconfig) as api:
            election = Election(
                name="servery", namespace=namespace, identity=identity, lease_seconds=3, renew_seconds=0.1
            )
            await lead(api, election, work)

    async def leads(count: int) -> bool:
        return len(led) == count

    first = asyncio.create_task(candidate("a"))
    await until(lambda: leads(1))
    second = asyncio.create_task(candidate("b"))
    await asyncio.sleep(0.5)
    assert led == ["a"]
    first.cancel()
    await until(lambda: leads(2))
    assert led == ["a", "b"]
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_controller_needs_no_more_than_its_role(
    api_server: Any, admin: KubeClient, crds: None, namespace: str, overlay: None
) -> None:
    async with controlling(str(api_server.kubeconfig("controller"))):
        await admin.create(service(namespace, minReplicas=2), SERVICE)
        for kind in (kinds.DEPLOYMENT, kinds.HORIZONTAL_POD_AUTOSCALER, kinds.POD_DISRUPTION_BUDGET):
            await until(lambda kind=kind: admin.get(ref(kind, namespace)))

        async def reported() -> Any:
            return (await admin.get(ref(SERVICE, namespace, "iris"))).get("status")

        await until(reported)

        async def told() -> bool:
            found = (await admin.list(kinds.EVENT, namespace=namespace)).items
            return any(event["reason"] == "RuntimeSelected" for event in found)

        await until(told)
    async with connect(str(api_server.kubeconfig("controller"))) as limited:
        for kind in (kinds.SECRET, kinds.NAMESPACE, kinds.CUSTOM_RESOURCE_DEFINITION):
            with pytest.raises(Forbidden):
                await limited.list(kind)
        with pytest.raises(KubeError):
            await limited.delete(ref(SERVICE, namespace, "iris"))
