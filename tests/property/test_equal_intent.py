"""Equal intents give equal plans, whichever dialect says them, and the same pod, whichever mode runs them.

An intent is a service in no dialect's words. Every dialect writes it, or refuses it for exactly the reasons that are in
``NO_WORDS``; what is written is parsed and planned like any manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from servery_controller import planning, render
from servery_controller.convert import convert
from servery_controller.planning import PlanningSettings
from servery_controller.planning.essence import differences, essence, spelled_out
from servery_sdk import kinds, plugins
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Json, Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    Artifact,
    AutoscalerClass,
    Batching,
    Capability,
    Catalog,
    Component,
    ComponentKind,
    DeploymentPlan,
    InferenceService,
    ModelFormat,
    Protocol,
    RuntimeRequest,
    ScaleMetric,
    Scaling,
)

INSTALLED = plugins.load()
CATALOG = render.catalog_from([], INSTALLED, frozenset(Capability))
SETTINGS = PlanningSettings()
KIND = Kind("example.com/v1", "Intent", "intents")

REASONS: Mapping[str, Callable[[InferenceService], bool]] = {
    "mode": lambda found: found.mode is not None,
    "ray": lambda found: found.mode == "ray",
    "to nothing by default": lambda found: (
        found.mode is None and found.predictor.scaling.min_replicas == 0 and not is_fixed(found)
    ),
    "unbounded": lambda found: (
        found.mode == "knative" and found.predictor.scaling.max_replicas is None and not is_fixed(found)
    ),
    "cluster-local": lambda found: found.cluster_local,
    "fixed": lambda found: is_fixed(found),
    "metric": lambda found: any(component.scaling.metric is not None for component in found.components),
    "several": lambda found: len(found.components) > 1,
    "batching": lambda found: any(component.batching is not None for component in found.components),
    "timeout": lambda found: found.predictor.timeout_seconds is not None,
    "concurrency": lambda found: found.predictor.container_concurrency is not None,
}
NO_WORDS: Mapping[str, frozenset[str]] = {
    "kserve": frozenset({"ray", "several", "batching"}),
    "ome": frozenset({"to nothing by default", "unbounded", "fixed", "several", "batching"}),
    "kubedl": frozenset({"mode", "cluster-local", "metric", "timeout", "concurrency"}),
}
"""By dialect, the reasons for which it refuses an intent; it takes every other one."""


def is_fixed(found: InferenceService) -> bool:
    return any(component.scaling.autoscaler_class is AutoscalerClass.NONE for component in found.components)


# Intents


def rarely(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return None three times in four: what every dialect can say is to be common."""
    return st.sampled_from([False, False, False, True]).flatmap(lambda given: strategy if given else st.none())


WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
QUANTITIES = st.fixed_dictionaries({}, optional={"cpu": st.sampled_from(["500m", "2"]), "memory": st.just("1Gi")})
URIS = st.sampled_from(
    [
        "s3://models/iris",
        "gs://models/iris/v1",
        "hf://acme/iris:v1",
        "https://example.com/model.joblib",
        "file:///models/iris",
        "pvc://models/iris/v1",
        "pvc://models",
    ]
)
ARTIFACTS = st.builds(
    Artifact,
    uri=URIS,
    mount_path=st.sampled_from(["/mnt/models", "/opt/model"]),
    field_path=st.just("intent.model"),
)
VARIABLES = st.lists(
    st.one_of(
        st.builds(lambda name, value: {"name": name.upper(), "value": value}, WORDS, WORDS),
        st.builds(
            lambda name: {"name": name.upper(), "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            WORDS,
        ),
    ),
    max_size=2,
    unique_by=lambda variable: str(variable["name"]),
)
SCALINGS = st.one_of(
    st.builds(
        lambda fewest, more, metric: Scaling(
            min_replicas=fewest,
            max_replicas=max(1, fewest) + more,
            metric=metric,
            target=60 if metric is not None else None,
        ),
        st.integers(0, 2),
        st.integers(0, 2),
        rarely(st.just(ScaleMetric.CPU)),
    ),
    st.builds(lambda fewest: Scaling(min_replicas=fewest), st.integers(1, 3)),
    st.builds(lambda count: Scaling(min_replicas=count, autoscaler_class=AutoscalerClass.NONE), st.integers(1, 3)),
)
USERS = st.dictionaries(WORDS.map(lambda word: f"example.com/{word}"), WORDS, max_size=2)
PODS = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.just({"disk": "ssd"}),
        "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
        "serviceAccountName": st.just("reader"),
        "volumes": st.just([{"name": "scratch", "emptyDir": {}}]),
        "terminationGracePeriodSeconds": st.just(60),
    },
)
SIDECAR: Manifest = {"name": "side", "image": "acme/side:1", "args": ["--watch"]}
PROBES = st.sampled_from(
    [{"httpGet": {"path": "/ready", "port": 9000}}, {"tcpSocket": {"port": 9000}, "periodSeconds": 3}]
)


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Json]:
    """Return what a manifest has over a runtime's container."""
    made: dict[str, Json] = {}
    if variables := draw(VARIABLES):
        made["env"] = variables
    if resources := draw(QUANTITIES):
        made["resources"] = {"requests": resources, "limits": resources}
    if draw(st.booleans()):
        made["args"] = ["--workers=2", draw(WORDS)]
    return made


@st.composite
def servers(draw: st.DrawFn) -> dict[str, Any]:
    """Return the fields of a component that has a container of its own, with files or without."""
    own = {"name": "server", "image": "acme/server:1", **draw(containers()), "ports": [{"containerPort": 9000}]}
    if draw(st.booleans()):
        own["readinessProbe"] = draw(PROBES)
    artifacts = draw(st.none() | ARTIFACTS)
    beside = [SIDECAR] if draw(st.booleans()) else []
    return {
        "pod": {**draw(PODS), "containers": [own, *beside]},
        "artifacts": () if artifacts is None else (artifacts,),
    }


@st.composite
def served(draw: st.DrawFn) -> dict[str, Any]:
    """Return the fields of a component that a runtime serves."""
    beside = {"containers": [SIDECAR]} if draw(st.booleans()) else {}
    return {
        "runtime": RuntimeRequest(
            name=draw(st.none() | st.just("servery-sklearn")),
            format=ModelFormat(name="sklearn", version=draw(st.none() | st.just("1"))),
            protocol=draw(st.none() | st.sampled_from([Protocol.V1, Protocol.V2])),
            version=draw(st.none() | st.just("0.2.0")),
            field_path="intent.runtime",
        ),
        "container": draw(containers()),
        "pod": {**draw(PODS), **beside},
        "artifacts": (draw(ARTIFACTS),),
    }


@st.composite
def intents(draw: st.DrawFn) -> InferenceService:
    name = draw(WORDS)
    shared = {"labels": draw(USERS), "annotations": draw(USERS)}
    several = draw(st.integers(0, 3)) == 0
    shares = [90, 10] if several else [100]
    components = []
    for index, share in enumerate(shares):
        words = f"server-{index}"
        fields = draw(servers()) if several else draw(served() | servers())
        components.append(
            Component(
                kind=ComponentKind.PREDICTOR,
                name=words,
                object_name=f"{name}-{words}",
                main_container="server",
                labels={**shared["labels"], **draw(USERS)},
                annotations={**shared["annotations"], **draw(USERS)},
                selector={"example.com/server": f"{name}-{words}"},
                scaling=draw(SCALINGS),
                batching=draw(st.none() | st.just(Batching(max_batch_rows=8, max_latency_seconds=1)))
                if several
                else None,
                timeout_seconds=None if several else draw(rarely(st.just(30))),
                container_concurrency=None if several else draw(rarely(st.just(4))),
                traffic_percent=share,
                field_path="intent",
                **fields,
            )
        )
    return InferenceService(
        ref=ObjectRef(KIND, Namespace("demo"), name),
        metadata={"name": name, "namespace": "demo", **shared},
        components=tuple(components),
        owned_labels={},
        mode=draw(rarely(st.sampled_from(sorted(INSTALLED.modes)))),
        cluster_local=draw(rarely(st.just(True))) is True,
    )


# What is written, and what comes of it


@dataclass(frozen=True, slots=True)
class Said:
    """An intent in the words of a dialect: its documents, its meaning and its plan."""

    documents: tuple[Manifest, ...]
    service: InferenceService
    plan: DeploymentPlan


def planned(intent: InferenceService) -> DeploymentPlan:
    return planning.plan(intent, CATALOG, SETTINGS)


def said(dialect: str, intent: InferenceService) -> Said:
    """Return ``intent`` in the words of ``dialect``, as ``servery convert`` finds them."""
    words = INSTALLED.dialects[dialect]
    try:
        documents = words.write(intent)
    except Invalid:
        documents = words.write(spelled_out(intent, planned(intent)))
    written = render.catalog_from(documents, INSTALLED)
    catalog: Catalog = replace(CATALOG, objects=written.objects)
    service = words.parse(documents[0], catalog)
    return Said(documents, service, planning.plan(service, catalog, SETTINGS))


def able(intent: InferenceService) -> set[str]:
    reasons = {name for name, holds in REASONS.items() if holds(intent)}
    return {dialect for dialect in INSTALLED.dialects if not NO_WORDS[dialect] & reasons}


THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@THOROUGH
@given(intent=intents())
def test_equal_intents_give_equal_plans(intent: InferenceService) -> None:
    before = essence(intent, planned(intent))
    takers = able(intent)
    event(f"{len(takers)} dialects: {', '.join(sorted(takers))}")
    for dialect in sorted(takers):
        found = said(dialect, intent)
        assert list(differences(before, essence(found.service, found.plan))) == [], dialect
        assert before == essence(found.service, found.plan)


@THOROUGH
@given(intent=intents())
def test_dialect_refuses_what_it_has_no_words_for_and_nothing_else(intent: InferenceService) -> None:
    for dialect in sorted(set(INSTALLED.dialects) - able(intent)):
        with pytest.raises(Invalid) as refused:
            said(dialect, intent)
        for error in refused.value.errors:
            assert error.path.startswith(("intent", "metadata")), error


@THOROUGH
@given(intent=intents(), data=st.data())
def test_manifest_of_one_dialect_converts_to_another_and_back(intent: InferenceService, data: st.DataObject) -> None:
    takers = sorted(able(intent))
    if not takers:
        return
    first = said(data.draw(st.sampled_from(takers)), intent)
    second = INSTALLED.dialects[data.draw(st.sampled_from(takers))]
    objects = {**CATALOG.objects, **render.catalog_from(first.documents, INSTALLED).objects}
    catalog = replace(CATALOG, objects=objects)
    if INSTALLED.modes[first.plan.mode].objections(first.plan):
        return
    converted = convert(first.documents[0], second, catalog, INSTALLED, SETTINGS)
    assert converted.manifests[0]["apiVersion"] in {kind.api_version for kind in second.services}


# One pod in every mode

PROBE_NAMES = ("livenessProbe", "readinessProbe", "startupProbe")
STARTED_BY_RAY = {"args", "command", "ports", "image", *PROBE_NAMES}
OF_REVISIONS = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds"}
TAKES_CONNECTIONS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def rendered(plan: DeploymentPlan, mode: str, kind: Kind, name: str) -> Json:
    """Return the one object of ``kind`` with ``name`` that a mode makes."""
    objects = INSTALLED.modes[mode].render(replace(plan, mode=mode))
    identity = (kind.api_version, kind.kind, name)
    (found,) = (
        found for found in objects if (found["apiVersion"], found["kind"], found["metadata"]["name"]) == identity
    )
    return found


def pods_of_raw(plan: DeploymentPlan, name: str) -> Json:
    return rendered(plan, "raw", kinds.DEPLOYMENT, name)["spec"]["template"]["spec"]


def pods_of_knative(plan: DeploymentPlan, name: str) -> Json:
    spec = rendered(plan, "knative", kinds.KNATIVE_SERVICE, name)["spec"]["template"]["spec"]
    return {key: value for key, value in spec.items() if key not in OF_REVISIONS}


def pods_of_ray(plan: DeploymentPlan, name: str) -> Json:
    service = rendered(plan, "ray", kinds.RAY_SERVICE, name)
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return group["template"]["spec"]


def as_knative_has_it(pod: Manifest, port: int, is_http2: bool) -> Json:
    """Return ``pod`` as Knative takes it, and no more than that.

    One port, by Knative's name; no grace period that it sets itself; no readiness probe that says no more than its own;
    what the pod says of privileges said of each container; no volume without a mount, and read-only where it must be.
    """
    made = {key: value for key, value in pod.items() if (key, value) != ("terminationGracePeriodSeconds", 30)}
    shared = made.pop("securityContext", {})
    volumes = {volume["name"]: volume for volume in made.pop("volumes", ())}
    used: dict[str, Json] = {}
    for group in ("initContainers", "containers"):
        listed = []
        for index, container in enumerate(made.get(group, ())):
            own = {key: value for key, value in container.items() if key != "ports"}
            if (privileges := {**shared, **own.get("securityContext", {})}) or "securityContext" in own:
                # To say that a container is not privileged is to say nothing.
                own["securityContext"] = {k: v for k, v in privileges.items() if (k, v) != ("privileged", False)}
            if group == "containers" and index == 0:
                own["ports"] = [{"name": "h2c" if is_http2 else "http1", "containerPort": port, "protocol": "TCP"}]
                if {**TAKES_CONNECTIONS, "tcpSocket": {"port": port}} == {
                    **TAKES_CONNECTIONS,
                    **own.get("readinessProbe", {}),
                }:
                    del own["readinessProbe"]
            for mount in own.get("volumeMounts", ()):
                volume = volumes[mount["name"]]
                if claim := volume.get("persistentVolumeClaim"):
                    volume = {**volume, "persistentVolumeClaim": {**claim, "readOnly": True}}
                used[mount["name"]] = volume
            listed.append(own)
        if listed:
            made[group] = listed
    return {**made, "volumes": [used[name] for name in volumes if name in used]} if used else made


def as_ray_has_it(pod: Manifest, *, is_native: bool) -> Json:
    """Return ``pod`` as Ray's workers have it: a model of ours is started by Ray, any other server has Ray beside it."""
    main, *others = pod["containers"]
    if not is_native:
        return pod
    return {**pod, "containers": [{key: value for key, value in main.items() if key not in STARTED_BY_RAY}, *others]}


def without_ray(pod: Manifest, *, is_native: bool) -> Json:
    """Return a worker's pod without what Ray brings: its container, or its port and image of the one that it starts."""
    first, *others = pod["containers"]
    if not is_native:
        assert first["name"] == "ray"
        return {**pod, "containers": others}
    assert [port["containerPort"] for port in first["ports"]] == [8000]
    return {**pod, "containers": [{key: value for key, value in first.items() if key not in STARTED_BY_RAY}, *others]}


@THOROUGH
@given(intent=intents())
def test_pod_is_the_same_in_every_mode(intent: InferenceService) -> None:
    for dialect in sorted(able(intent)):
        plan = said(dialect, intent).plan
        for workload in plan.workloads:
            assert pods_of_raw(plan, workload.name) == workload.pod
            port = workload.ports[0]
            wanted = as_knative_has_it(workload.pod, port.target_port, port.app_protocol is not None)
            assert list(differences(wanted, pods_of_knative(plan, workload.name))) == []
            is_native = workload.selection is not None
            wanted = as_ray_has_it(workload.pod, is_native=is_native)
            assert list(differences(wanted, without_ray(pods_of_ray(plan, workload.name), is_native=is_native))) == []


OBJECTIONABLE: Mapping[str, Callable[[InferenceService], bool]] = {
    "raw": lambda _: False,
    "knative": lambda found: (
        len(found.components) > 1
        or any("terminationGracePeriodSeconds" in component.pod for component in found.components)
    ),
    "ray": lambda found: REASONS["metric"](found),
}
"""By mode, intents that its engine cannot run, whichever dialect says them."""


@THOROUGH
@given(intent=intents())
def test_modes_object_to_the_intent_and_not_to_its_dialect(intent: InferenceService) -> None:
    for dialect in sorted(able(intent)):
        plan = said(dialect, intent).plan
        for name, mode in INSTALLED.modes.items():
            found = mode.objections(replace(plan, mode=name))
            assert bool(found) == OBJECTIONABLE[name](intent), (dialect, name, found)


# The comparison itself


def test_essence_sees_what_the_user_says(iris: InferenceService) -> None:
    intent = iris
    before = essence(intent, planned(intent))
    first = intent.predictor
    changed = {
        "workloads[0].timeout_seconds": replace(first, timeout_seconds=31),
        "workloads[0].concurrency": replace(first, container_concurrency=5),
        "workloads[0].scaling.min_replicas": replace(first, scaling=replace(first.scaling, min_replicas=2)),
        "workloads[0].pod.containers[0].image": replace(first, container={"image": "acme/other:1"}),
        "workloads[0].pod.containers[0].args": replace(first, container={"args": ["--more"]}),
        "workloads[0].labels.team": replace(first, labels={"team": "a"}),
        "workloads[0].pod_annotations.note": replace(first, annotations={"note": "a"}),
        "workloads[0].strategy.type": replace(first, strategy={"type": "Recreate"}),
        "workloads[0].traffic_percent": replace(first, traffic_percent=50),
        "workloads[0].disruption_budget.maxUnavailable": replace(first, disruption_budget={"maxUnavailable": 2}),
        "workloads[0].batching": replace(first, batching=Batching(max_batch_rows=1)),
    }
    for path, component in changed.items():
        other = replace(intent, components=(component,))
        found = list(differences(before, essence(other, planned(other))))
        assert any(line.startswith(f"{path}:") for line in found), (path, found)


def test_essence_is_blind_to_what_a_dialect_invents(iris: InferenceService) -> None:
    intent = iris
    invented = replace(
        intent.predictor,
        name="engine",
        object_name="other-engine",
        main_container="ome-container",
        selector={"app": "other"},
        labels={"component": "engine"},
        env={"SERVICE": intent.ref.name},
        exposed_as=(8080, 9000),
    )
    other = replace(intent, components=(invented,), own=frozenset({"component"}))
    assert essence(intent, planned(intent)) == essence(other, planned(other))


@pytest.fixture
def iris() -> InferenceService:
    first = Component(
        kind=ComponentKind.PREDICTOR,
        name="server",
        object_name="iris-server",
        main_container="server",
        selector={"example.com/server": "iris"},
        runtime=RuntimeRequest(format=ModelFormat(name="sklearn")),
        artifacts=(Artifact(uri="s3://models/iris"),),
    )
    return InferenceService(
        ref=ObjectRef(KIND, Namespace("demo"), "iris"),
        metadata={"name": "iris", "namespace": "demo"},
        components=(first,),
        owned_labels={},
    )
