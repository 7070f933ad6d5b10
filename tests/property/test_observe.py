"""Whatever a cluster says, there is a status, and it does not contradict itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_controller import planning, render
from servery_controller.planning import PlanningSettings, refused
from servery_sdk import kinds, plugins
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import Capability, ConditionStatus, DeploymentPlan, Observed, ServiceStatus, TransitionStatus

MODE = plugins.load().modes["raw"]


def observe(plan: DeploymentPlan, observed: Observed, *, now: str) -> ServiceStatus:
    return planning.observe(plan, MODE.render(plan), observed, MODE.readiness, now=now)


INSTALLED = plugins.load()
DIALECT = INSTALLED.dialects["kserve"]
DECLARED = {"PredictorReady", "IngressReady", "Stopped", "Ready"}
DEPENDENTS = ("PredictorReady", "IngressReady")


def plan(*, stopped: bool) -> DeploymentPlan:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "iris",
            "namespace": "demo",
            "generation": 2,
            "annotations": {"serving.kserve.io/stop": str(stopped).lower()},
        },
        "spec": {"predictor": {"model": model}},
    }
    catalog = render.catalog_from([], INSTALLED, frozenset({Capability.GATEWAY_API}))
    return render.plan(manifest, catalog, INSTALLED, PlanningSettings())


PLANS = {"running": plan(stopped=False), "stopped": plan(stopped=True)}

KEYS = (
    *("conditions", "type", "status", "reason", "message", "lastTransitionTime", "observedGeneration", "parents"),
    *("initContainerStatuses", "containerStatuses", "name", "state", "lastState", "waiting", "terminated", "running"),
    *("exitCode", "finishedAt", "phase", "modelStatus", "lastFailureInfo", "time", "labels", "deletionTimestamp"),
)
WORDS = (
    *("True", "False", "Unknown", "Available", "Progressing", "ReplicaFailure", "Accepted", "ResolvedRefs", "Ready"),
    *("PodScheduled", "Unschedulable", "CrashLoopBackOff", "ImagePullBackOff", "OOMKilled", "storage-initializer"),
    *DECLARED,
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=10,
)


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What has the right form nine times of ten, so that the wrong ones lie deep inside too."""
    return st.integers(0, 9).flatmap(lambda drawn: right if drawn else JSON)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return mostly(st.fixed_dictionaries({}, optional={name: mostly(found) for name, found in fields.items()}))


def one_of(*words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words)


def conditions(*types: str) -> st.SearchStrategy[Any]:
    states = one_of("True", "False", "Unknown")
    one = objects(
        type=one_of(*types),
        status=states,
        reason=one_of("Unschedulable", "r"),
        message=one_of("m"),
        lastTransitionTime=one_of("t"),
    )
    return st.lists(one, max_size=4)


ENDED = objects(
    exitCode=st.integers(0, 3), reason=one_of("OOMKilled", "Error"), message=one_of("m", ""), finishedAt=one_of("t")
)
STATE = objects(
    waiting=objects(reason=one_of("CrashLoopBackOff", "ImagePullBackOff", "PodInitializing"), message=one_of("w")),
    terminated=ENDED,
    running=objects(),
)
CONTAINERS = st.lists(
    objects(name=one_of("storage-initializer", "kserve-container"), state=STATE, lastState=objects(terminated=ENDED)),
    max_size=2,
)
POD = objects(
    metadata=objects(
        name=one_of("a", "b"),
        labels=st.just({"app": "isvc.iris-predictor"}),
    ),
    status=objects(
        conditions=conditions("Ready", "PodScheduled"),
        initContainerStatuses=CONTAINERS,
        containerStatuses=CONTAINERS,
        phase=one_of("Running", "Pending", "Failed"),
    ),
)
DEPLOYMENT = objects(
    metadata=objects(generation=st.integers(0, 2)),
    status=objects(
        observedGeneration=st.integers(0, 2), conditions=conditions("Available", "Progressing", "ReplicaFailure")
    ),
)
PARENT = objects(conditions=conditions("Accepted", "ResolvedRefs"))
ROUTE = objects(status=objects(parents=st.lists(PARENT, max_size=2)))
PREVIOUS = objects(
    conditions=conditions(*sorted(DECLARED)),
    modelStatus=objects(lastFailureInfo=objects(message=one_of("m", "w"), time=one_of("t"))),
)


def mapping(drawn: st.SearchStrategy[Any]) -> st.SearchStrategy[Manifest]:
    """An object at the top, as every API server answers."""
    return drawn.filter(lambda found: isinstance(found, Mapping))


def ref(kind: Kind, name: str) -> ObjectRef:
    return ObjectRef(kind, Namespace("demo"), name)


@st.composite
def clusters(draw: st.DrawFn) -> Observed:
    found: dict[ObjectRef, Manifest] = {}
    for kind, name, drawn in (
        (kinds.DEPLOYMENT, "iris-predictor", DEPLOYMENT),
        (kinds.HTTP_ROUTE, "iris", ROUTE),
        (kinds.HTTP_ROUTE, "iris-predictor", ROUTE),
    ):
        if draw(st.booleans()):
            found[ref(kind, name)] = draw(mapping(drawn))
    pods = draw(st.lists(mapping(POD), max_size=3))
    return Observed(objects=found, pods=tuple(pods), previous=draw(mapping(PREVIOUS)))


def states(status: ServiceStatus) -> dict[str, ConditionStatus]:
    return {condition.type: condition.status for condition in status.conditions}


@pytest.mark.parametrize("planned", list(PLANS))
@given(observed=clusters())
def test_every_cluster_has_a_status(planned: str, observed: Observed) -> None:
    found = observe(PLANS[planned], observed, now="now")
    assert len(found.conditions) == len(states(found))
    assert states(found).keys() == DECLARED
    is_ready = states(found)["Ready"] is ConditionStatus.TRUE
    assert is_ready == all(states(found)[name] is ConditionStatus.TRUE for name in DEPENDENTS)
    assert (states(found)["Stopped"] is ConditionStatus.TRUE) == (planned == "stopped")
    assert not (is_ready and planned == "stopped")
    for condition in found.conditions:
        assert condition.last_transition_time
        assert condition.status is ConditionStatus.TRUE or condition.reason or condition.type == "Stopped"
        assert isinstance(condition.reason, str)
        assert isinstance(condition.message, str)
    assert found.model is not None
    assert (found.model.failure is not None) == (found.model.failed_copies > 0)


@given(observed=clusters())
def test_status_that_was_written_is_not_written_again(observed: Observed) -> None:
    written = DIALECT.status(observe(PLANS["running"], observed, now="now"))
    again = Observed(objects=observed.objects, pods=observed.pods, previous=written)
    assert DIALECT.status(observe(PLANS["running"], again, now="later")) == written


@given(previous=mapping(PREVIOUS))
def test_every_refusal_has_a_status(previous: Manifest) -> None:
    found = refused("r", "m", generation=1, previous=previous, now="now", transition=TransitionStatus.INVALID_SPEC)
    assert states(found) == {"PredictorReady": ConditionStatus.FALSE, "Ready": ConditionStatus.FALSE}
    assert found.model is not None
    assert found.model.failure is not None
    assert found.model.failure.time
