"""From what a cluster says to what is said of the service, a row a situation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from servery_controller import planning, render
from servery_controller.planning import PlanningSettings, refused
from servery_sdk import kinds, plugins
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    Capability,
    Condition,
    DeploymentPlan,
    Failure,
    Observed,
    ServiceStatus,
    TransitionStatus,
)
from servery_sdk.plugins import Plugins

MODE = plugins.load().modes["raw"]


def observe(plan: DeploymentPlan, observed: Observed, *, now: str) -> ServiceStatus:
    return planning.observe(plan, MODE.render(plan), observed, MODE.readiness, now=now)


Make = Callable[..., dict[str, Any]]

BEFORE, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
CRASHED, WORDS = "2026-01-01T12:00:00Z", "model.joblib: cannot be unpickled"
BACK_OFF = "back-off 10s restarting failed container=kserve-container"
DOWNLOAD = "s3://models/iris: bucket models: access denied (403); give the service account a secret"


@pytest.fixture
def make_plan(installed: Plugins, make_service: Make) -> Callable[..., DeploymentPlan]:
    def make(*, gateway: bool = False, stopped: bool = False) -> DeploymentPlan:
        service = make_service(annotations={"serving.kserve.io/stop": str(stopped).lower()})
        service["metadata"]["generation"] = 7
        capability = Capability.GATEWAY_API if gateway else Capability.INGRESS
        catalog = render.catalog_from([], installed, frozenset({capability}))
        return render.plan(service, catalog, installed, PlanningSettings())

    return make


@pytest.fixture
def plan(make_plan: Callable[..., DeploymentPlan]) -> DeploymentPlan:
    return make_plan()


# What a cluster says.


def said(kind: str, status: str = "True", reason: str = "", message: str = "") -> Manifest:
    return {"type": kind, "status": status, "reason": reason, "message": message}


AVAILABLE = said("Available", "True", "MinimumReplicasAvailable")
PROGRESSING = said("Progressing", "True", "ReplicaSetUpdated")
UNAVAILABLE = said("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")


def deployment(*conditions: Manifest, generation: int = 3, observed_generation: int = 3) -> Manifest:
    status = {"observedGeneration": observed_generation, "conditions": list(conditions)}
    return {"metadata": {"name": "iris-predictor", "generation": generation}, "status": status}


def container(name: str = "kserve-container", *, last: Manifest | None = None, **state: Any) -> Manifest:
    return {"name": name, "state": state, "lastState": {"terminated": last} if last else {}}


def ended(exit_code: int = 1, *, reason: str = "Error", **more: str) -> Manifest:
    return {"exitCode": exit_code, "reason": reason, "finishedAt": CRASHED, **more}


def pod(
    *containers: Manifest,
    init: Manifest | None = None,
    name: str = "p",
    ready: bool = False,
    scheduled: Manifest | None = None,
    metadata: Mapping[str, Any] | None = None,
    **status: Any,
) -> Manifest:
    return {
        "metadata": {"name": name, "labels": {"app": "isvc.iris-predictor"}, **(metadata or {})},
        "status": {
            "conditions": [scheduled or said("PodScheduled"), said("Ready", "True" if ready else "False")],
            "initContainerStatuses": [init] if init else [],
            "containerStatuses": list(containers),
            **status,
        },
    }


SERVES = pod(container(running={"startedAt": BEFORE}), ready=True)
LOADS = pod(container(running={"startedAt": BEFORE}))
CRASHES = pod(container(waiting={"reason": "CrashLoopBackOff", "message": BACK_OFF}, last=ended(message=WORDS)))


def route(name: str, *conditions: Manifest, taken: bool = True) -> Manifest:
    return {"metadata": {"name": name}, "status": {"parents": [{"conditions": list(conditions)}] if taken else []}}


def seen(
    found: Manifest | None = None, *pods: Manifest, routes: tuple[Manifest, ...] = (), previous: Manifest | None = None
) -> Observed:
    objects = [(kinds.DEPLOYMENT, found)] if found is not None else []
    objects += [(kinds.HTTP_ROUTE, one) for one in routes]
    return Observed(
        objects={_ref(kind, one["metadata"]["name"]): one for kind, one in objects}, pods=pods, previous=previous or {}
    )


def _ref(kind: Kind, name: str) -> ObjectRef:
    return ObjectRef(kind, Namespace("demo"), name)


# What is said of the service.


def condition(status: ServiceStatus, kind: str = "PredictorReady") -> Condition:
    (found,) = (found for found in status.conditions if found.type == kind)
    return found


def model(status: ServiceStatus) -> tuple[str, str, str | None]:
    assert status.model is not None
    return str(status.model.transition), str(status.model.target), status.model.active


def failure(status: ServiceStatus) -> Failure:
    assert status.model is not None
    assert status.model.failure is not None
    return status.model.failure


@pytest.mark.parametrize(
    ("observed", "status", "reason", "message"),
    [
        pytest.param(
            seen(),
            *("Unknown", "DeploymentMissing", "the Deployment is not there yet"),
            id="a Deployment that is not there yet is not known",
        ),
        pytest.param(
            seen({"metadata": {"name": "iris-predictor", "generation": 1}}),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="a Deployment that nobody has looked at is not known",
        ),
        pytest.param(
            seen(deployment(PROGRESSING), LOADS),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="a Deployment that progresses is not known",
        ),
        pytest.param(seen(deployment(AVAILABLE, PROGRESSING), SERVES), "True", "", "", id="an available one is ready"),
        pytest.param(
            seen(deployment(AVAILABLE), SERVES, CRASHES),
            *("True", "", ""),
            id="an available one is ready while another pod fails",
        ),
        pytest.param(
            seen(deployment(PROGRESSING, UNAVAILABLE), LOADS),
            *("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
            id="an unavailable one fails in the Deployment's words",
        ),
        pytest.param(
            seen(deployment(AVAILABLE, generation=4), SERVES),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="what was available before the spec changed is not known",
        ),
        pytest.param(
            seen(deployment(said("Progressing", "False", "ProgressDeadlineExceeded", "old"), generation=4)),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="what failed before the spec changed is not known",
        ),
        pytest.param(
            seen(deployment(PROGRESSING, UNAVAILABLE), CRASHES),
            *("False", "ModelLoadFailed", f"pod p container kserve-container: {WORDS}"),
            id="a crash loop fails with the container's last words",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE), pod(container(waiting={"reason": "CrashLoopBackOff", "message": BACK_OFF}))),
            *("False", "ModelLoadFailed", f"pod p container kserve-container: {BACK_OFF}"),
            id="a crash loop without an end fails with the kubelet's words",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(container(waiting={"reason": "CrashLoopBackOff", "message": BACK_OFF}, last=ended(3))),
            ),
            *("False", "ModelLoadFailed", "pod p container kserve-container: the container ended with exit code 3"),
            id="a crash loop without last words fails with the exit code",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE), pod(container(terminated=ended(message=f"{WORDS}\n")))),
            *("False", "ModelLoadFailed", f"pod p container kserve-container: {WORDS}"),
            id="a container that just ended fails with its last words",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(container(waiting={"reason": "ImagePullBackOff", "message": "no such tag"})),
            ),
            *("False", "ImagePullBackOff", "pod p container kserve-container: no such tag"),
            id="an image that is not there fails by the registry's words",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "s" not found'})),
            ),
            *("False", "CreateContainerConfigError", 'pod p container kserve-container: secret "s" not found'),
            id="a secret that is not there fails by its name",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE), pod(container(waiting={"reason": "ErrImagePull"}))),
            *("False", "ErrImagePull", "pod p container kserve-container: ErrImagePull"),
            id="a reason without a message stands for it",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(scheduled=said("PodScheduled", "False", "Unschedulable", "0/3 nodes: insufficient memory")),
            ),
            *("False", "Unschedulable", "pod p: 0/3 nodes: insufficient memory"),
            id="a pod that fits no node fails by the scheduler's words",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(
                    container(waiting={"reason": "PodInitializing"}),
                    init=container("storage-initializer", terminated=ended(message=DOWNLOAD)),
                ),
            ),
            *("False", "ModelLoadFailed", f"pod p container storage-initializer: {DOWNLOAD}"),
            id="a download that failed is told by the storage initializer",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(
                    init=container(
                        "storage-initializer",
                        waiting={"reason": "CrashLoopBackOff", "message": BACK_OFF},
                        last=ended(message=DOWNLOAD),
                    )
                ),
            ),
            *("False", "ModelLoadFailed", f"pod p container storage-initializer: {DOWNLOAD}"),
            id="a download that is tried again is told by the storage initializer",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE), pod(init=container("storage-initializer", terminated=ended(9)))),
            *(
                "False",
                "ModelLoadFailed",
                "pod p container storage-initializer: fetching the model failed with exit code 9",
            ),
            id="a download that said nothing fails with its exit code",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE), pod(container(terminated=ended(137, reason="OOMKilled")))),
            *("False", "OOMKilled", "pod p container kserve-container: the container ended with exit code 137"),
            id="a container that took too much memory is said to",
        ),
        pytest.param(
            seen(
                deployment(UNAVAILABLE),
                pod(
                    container(
                        waiting={"reason": "CrashLoopBackOff", "message": BACK_OFF}, last=ended(137, reason="OOMKilled")
                    )
                ),
            ),
            *("False", "OOMKilled", "pod p container kserve-container: the container ended with exit code 137"),
            id="a container that takes too much memory again and again is said to",
        ),
        pytest.param(
            seen(
                deployment(
                    PROGRESSING, UNAVAILABLE, said("ReplicaFailure", "True", "FailedCreate", "exceeded quota: cpu")
                )
            ),
            *("False", "FailedCreate", "exceeded quota: cpu"),
            id="a quota that is used up fails by its name",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE, said("Progressing", "False", "ProgressDeadlineExceeded", "timed out")), LOADS),
            *("False", "ProgressDeadlineExceeded", "timed out"),
            id="a deadline that passed is said before the unavailability",
        ),
        pytest.param(
            seen(deployment(PROGRESSING), pod(container(terminated=ended(0)))),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="a container that ended well is no failure",
        ),
        pytest.param(
            seen(
                deployment(PROGRESSING), pod(container(terminated=ended(143)), metadata={"deletionTimestamp": BEFORE})
            ),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="a pod that is leaving is no failure",
        ),
        pytest.param(
            seen(deployment(PROGRESSING), pod(container(terminated=ended(137)), phase="Failed")),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="a pod that was evicted is no failure",
        ),
        pytest.param(
            seen(
                deployment(PROGRESSING),
                pod(container(terminated=ended()), metadata={"labels": {"app": "isvc.iris-transformer"}}),
            ),
            *("Unknown", "Progressing", "waiting for the pods"),
            id="a pod of another component is no failure of the predictor",
        ),
    ],
)
def test_predictor_is_as_its_deployment_and_pods_are(
    plan: DeploymentPlan, observed: Observed, status: str, reason: str, message: str
) -> None:
    found = observe(plan, observed, now=NOW)
    predictor, ready = condition(found), condition(found, "Ready")
    assert (predictor.status, predictor.reason, predictor.message) == (status, reason, message)
    assert (ready.status, ready.reason, ready.message) == (status, reason, message)
    assert (found.url, found.address) == ((plan.url, plan.address) if status == "True" else (None, None))
    assert found.observed_generation == 7


PREDICTOR_ROUTE = route("iris-predictor", said("Accepted"))


@pytest.mark.parametrize(
    ("routes", "status", "reason", "message"),
    [
        pytest.param(
            (route("iris", said("Accepted"), said("ResolvedRefs")), PREDICTOR_ROUTE),
            *("True", "", ""),
            id="routes that are accepted are ready",
        ),
        pytest.param(
            (PREDICTOR_ROUTE,),
            *("Unknown", "RouteMissing", "HTTPRoute iris: not there yet"),
            id="a route that is not there yet is not known",
        ),
        pytest.param(
            (route("iris", taken=False), PREDICTOR_ROUTE),
            *("Unknown", "ParentStatusNotAvailable"),
            "HTTPRoute iris: no Gateway has taken it yet; is the Gateway there?",
            id="a route that no Gateway took asks for the Gateway",
        ),
        pytest.param(
            (route("iris", said("Accepted", "False", "NotAllowedByListeners", "no listener")), PREDICTOR_ROUTE),
            *("False", "NotAllowedByListeners", "HTTPRoute iris: no listener"),
            id="a route that is refused fails in the Gateway's words",
        ),
        pytest.param(
            (route("iris", said("Accepted"), said("ResolvedRefs", "False", "BackendNotFound", "no")), PREDICTOR_ROUTE),
            *("False", "BackendNotFound", "HTTPRoute iris: no"),
            id="a route that leads nowhere fails",
        ),
        pytest.param(
            (
                route("iris", said("Accepted")),
                route("iris-predictor", {"type": "Accepted", "status": "False"}),
            ),
            *("False", "NotAccepted", "HTTPRoute iris-predictor: "),
            id="a refusal without words is named by its condition",
        ),
    ],
)
def test_ingress_is_as_its_routes_are(
    make_plan: Callable[..., DeploymentPlan], routes: tuple[Manifest, ...], status: str, reason: str, message: str
) -> None:
    found = observe(make_plan(gateway=True), seen(deployment(AVAILABLE), SERVES, routes=routes), now=NOW)
    ingress, ready = condition(found, "IngressReady"), condition(found, "Ready")
    assert (ingress.status, ingress.reason, ingress.message) == (status, reason, message)
    assert (ready.status, ready.reason, ready.message) == (status, reason, message)
    assert condition(found).status == "True"


@pytest.mark.parametrize(
    ("observed", "status"),
    [
        pytest.param(seen(), "Unknown", id="not known while the predictor is not"),
        pytest.param(seen(deployment(UNAVAILABLE)), "False", id="failed while the predictor is"),
    ],
)
def test_ingress_waits_for_the_predictor_whose_reason_the_service_has(
    make_plan: Callable[..., DeploymentPlan], observed: Observed, status: str
) -> None:
    found = observe(make_plan(gateway=True), observed, now=NOW)
    ingress = condition(found, "IngressReady")
    assert (ingress.status, ingress.reason) == (status, "PredictorNotReady")
    assert condition(found, "Ready").reason == condition(found).reason


def test_stopped_service_is_not_ready_and_says_so_whatever_runs_still(
    make_plan: Callable[..., DeploymentPlan],
) -> None:
    found = observe(make_plan(stopped=True), seen(deployment(AVAILABLE), SERVES), now=NOW)
    assert {c.type: (c.status, c.reason) for c in found.conditions} == {
        "PredictorReady": ("False", "Stopped"),
        "IngressReady": ("False", "Stopped"),
        "Ready": ("False", "Stopped"),
        "Stopped": ("True", ""),
    }
    assert (found.url, found.address) == (None, None)


WAITS = pod(container(waiting={"reason": "ContainerCreating"}))
FETCHES = pod(
    container(waiting={"reason": "PodInitializing"}), init=container("storage-initializer", running={"startedAt": NOW})
)


@pytest.mark.parametrize(
    ("observed", "expected", "copies"),
    [
        pytest.param(seen(), ("InProgress", "Pending", None), (0, 0), id="pending while there are no pods"),
        pytest.param(
            seen(deployment(PROGRESSING), WAITS),
            ("InProgress", "Pending", None),
            (0, 0),
            id="pending while a pod waits",
        ),
        pytest.param(
            seen(deployment(PROGRESSING), FETCHES),
            *(("InProgress", "Loading", None), (0, 0)),
            id="loading while the initializer fetches it",
        ),
        pytest.param(
            seen(deployment(PROGRESSING), LOADS),
            *(("InProgress", "Loading", None), (0, 0)),
            id="loading while the server starts",
        ),
        pytest.param(
            seen(deployment(AVAILABLE), SERVES),
            *(("UpToDate", "Loaded", "Loaded"), (1, 0)),
            id="loaded once the Deployment is available",
        ),
        pytest.param(
            seen(deployment(AVAILABLE, generation=4), SERVES, LOADS),
            *(("InProgress", "Loading", "Loaded"), (1, 0)),
            id="loading beside the one that serves while a new one rolls out",
        ),
        pytest.param(
            seen(deployment(UNAVAILABLE), CRASHES),
            *(("BlockedByFailedLoad", "FailedToLoad", None), (0, 1)),
            id="failed while a container crashes",
        ),
        pytest.param(
            seen(deployment(AVAILABLE), SERVES, CRASHES),
            *(("BlockedByFailedLoad", "FailedToLoad", "Loaded"), (1, 1)),
            id="failed beside the one that serves while the new one crashes",
        ),
    ],
)
def test_model_is(
    plan: DeploymentPlan, observed: Observed, expected: tuple[str, str, str | None], copies: tuple[int, int]
) -> None:
    found = observe(plan, observed, now=NOW)
    assert model(found) == expected
    assert found.model is not None
    assert (found.model.total_copies, found.model.failed_copies) == copies
    assert found.components[0].ready_replicas == copies[0]
    assert (found.model.failure is not None) == (copies[1] > 0)


def test_failure_tells_reason_words_place_exit_code_and_time(plan: DeploymentPlan) -> None:
    assert failure(observe(plan, seen(deployment(UNAVAILABLE), CRASHES), now=NOW)) == Failure(
        reason="ModelLoadFailed",
        message=WORDS,
        location="pod p container kserve-container",
        exit_code=1,
        time=CRASHED,
    )


def test_failure_is_of_the_same_pod_whatever_the_order_of_the_pods(plan: DeploymentPlan) -> None:
    pods = [pod(container(terminated=ended(message=name)), name=name) for name in "abc"]
    one, other = (observe(plan, seen(deployment(UNAVAILABLE), *some), now=NOW) for some in (pods, pods[::-1]))
    assert one == other
    assert failure(one).location == "pod a container kserve-container"


@pytest.mark.parametrize(
    ("failing", "time"),
    [
        pytest.param(CRASHES, CRASHED, id="of a container's end"),
        pytest.param(
            pod(scheduled={**said("PodScheduled", "False", "Unschedulable", "no room"), "lastTransitionTime": BEFORE}),
            BEFORE,
            id="since when the pod has no place",
        ),
        pytest.param(
            pod(container(waiting={"reason": "ImagePullBackOff"}), metadata={"creationTimestamp": BEFORE}),
            BEFORE,
            id="since the pod is there",
        ),
    ],
)
def test_failure_time_is_the_clusters_so_that_looking_again_changes_nothing(
    plan: DeploymentPlan, failing: Manifest, time: str
) -> None:
    found = observe(plan, seen(deployment(UNAVAILABLE), failing), now=NOW)
    assert failure(found).time == time


@pytest.mark.parametrize(("status", "time"), [("False", BEFORE), ("True", NOW)])
def test_refusal_is_since_the_service_is_not_ready(status: str, time: str) -> None:
    ready = {"type": "Ready", "status": status, "message": "other", "lastTransitionTime": BEFORE}
    refusal = refused(
        "NoSupportingRuntime",
        "no room",
        generation=7,
        previous={"conditions": [ready]},
        now=NOW,
        transition=TransitionStatus.INVALID_SPEC,
    )
    assert failure(refusal).time == time


@pytest.mark.parametrize(
    ("status", "time"),
    [
        pytest.param("False", BEFORE, id="stays where the status stays, whatever the reason"),
        pytest.param("True", NOW, id="moves where the status moves"),
        pytest.param("Unknown", NOW, id="moves where nothing was known"),
    ],
)
def test_last_transition_time(plan: DeploymentPlan, status: str, time: str) -> None:
    before = {"type": "PredictorReady", "status": status, "reason": "Other", "lastTransitionTime": BEFORE}
    found = observe(plan, seen(deployment(UNAVAILABLE), previous={"conditions": [before]}), now=NOW)
    assert condition(found).last_transition_time == time
    # What was not there before is of now.
    assert condition(found, "IngressReady").last_transition_time == NOW


def test_service_that_heals_clears_its_failure(plan: DeploymentPlan, installed: Plugins) -> None:
    dialect = installed.dialects["kserve"]
    sick = dialect.status(observe(plan, seen(deployment(UNAVAILABLE), CRASHES), now=BEFORE))
    assert sick["modelStatus"]["lastFailureInfo"]["message"] == WORDS
    healed = observe(plan, seen(deployment(AVAILABLE), SERVES, previous=sick), now=NOW)
    assert model(healed) == ("UpToDate", "Loaded", "Loaded")
    assert healed.model is not None
    assert healed.model.failure is None
    times = {"PredictorReady": NOW, "IngressReady": NOW, "Ready": NOW, "Stopped": BEFORE}
    assert {c.type: c.last_transition_time for c in healed.conditions} == times
    assert {c.reason for c in healed.conditions} == {""}
    again = observe(plan, seen(deployment(AVAILABLE), SERVES, previous=dialect.status(healed)), now="later")
    assert again == healed


def test_refused_service_has_the_refusals_reason_and_is_not_ready() -> None:
    found = refused(
        "InvalidSpec", "spec.x: wrong", generation=2, previous={}, now=NOW, transition=TransitionStatus.INVALID_SPEC
    )
    assert {(c.type, str(c.status), c.reason, c.message, c.last_transition_time) for c in found.conditions} == {
        (kind, "False", "InvalidSpec", "spec.x: wrong", NOW) for kind in ("PredictorReady", "Ready")
    }
    assert model(found) == ("InvalidSpec", "Pending", None)
    assert found.observed_generation == 2
