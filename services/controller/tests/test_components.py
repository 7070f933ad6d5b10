"""A transformer has all requests, an explainer those for explanations, and both are told where the predictor is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from servery_controller import render
from servery_controller.planning import NoPlan, PlanningSettings
from servery_sdk.manifests import Manifest
from servery_sdk.model import Capability, DeploymentPlan, Workload
from servery_sdk.plugins import Plugins

CUSTOM = {"containers": [{"image": "acme/one:1"}]}
Rendered = tuple[DeploymentPlan, tuple[Manifest, ...]]


@pytest.fixture
def rendered(installed: Plugins, make_service: Callable[..., dict[str, Any]]) -> Callable[..., Rendered]:
    def make(
        *capabilities: Capability, annotations: dict[str, str] | None = None, mode: str = "raw", **beside: Any
    ) -> Rendered:
        service = make_service(annotations=annotations)
        service["spec"] |= beside
        catalog = render.catalog_from([], installed, frozenset(capabilities))
        return render.render(service, catalog, installed, PlanningSettings(default_mode=mode))

    return make


def arguments(workload: Workload) -> list[str]:
    found: list[str] = workload.pod["containers"][0]["args"]
    return found


def named(objects: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    return next(found for found in objects if (found["kind"], found["metadata"]["name"]) == (kind, name))


def test_transformer_is_first_and_knows_its_predictor(rendered: Callable[..., Rendered]) -> None:
    plan, _ = rendered(transformer=CUSTOM)
    predictor, transformer = plan.workloads
    assert (predictor.traffic_percent, transformer.traffic_percent) == (0, 100)
    assert transformer.name == "iris-transformer"
    told = ["--model_name=iris", "--predictor_host=iris-predictor.demo", "--http_port=8080"]
    assert arguments(transformer) == told
    assert [backend.workload for backend in plan.routes[0].backends] == ["iris-transformer"]
    assert plan.address == "http://iris-transformer.demo.svc.cluster.local"
    main = transformer.pod["containers"][0]
    assert main["env"] == [{"name": "INFERENCE_SERVICE_NAME", "value": "iris"}]
    assert main["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}


@pytest.mark.parametrize(
    "said",
    [
        {"args": ["--model_name=own", "--predictor_host", "there:8080", "--http-port=9000"]},
        {"command": ["python", "model.py", "--model_name", "own", "--predictor_host=there", "--http_port=9000"]},
    ],
    ids=["args", "command"],
)
def test_flag_that_the_manifest_says_is_not_said_again(rendered: Callable[..., Rendered], said: Any) -> None:
    plan, _ = rendered(transformer={"containers": [{"image": "acme/one:1", **said}]})
    assert plan.workloads[1].pod["containers"][0].get("args", []) == said.get("args", [])


def test_port_of_the_container_is_the_one_that_it_is_told(rendered: Callable[..., Rendered]) -> None:
    container = {"image": "acme/one:1", "ports": [{"containerPort": 9000}]}
    plan, _ = rendered(explainer={"containers": [container]})
    explainer = plan.workloads[1]
    assert arguments(explainer)[-1] == "--http_port=9000"
    assert explainer.ports[0].target_port == 9000
    assert plan.workloads[0].traffic_percent == 100


def test_concurrency_is_no_number_of_processes(rendered: Callable[..., Rendered]) -> None:
    plan, _ = rendered(transformer={**CUSTOM, "containerConcurrency": 4})
    assert plan.workloads[1].concurrency == 4
    assert not any("workers" in argument for argument in arguments(plan.workloads[1]))


def test_art_is_a_runtime_with_its_settings_as_flags(rendered: Callable[..., Rendered]) -> None:
    art = {"type": "SquareAttack", "config": {"nb_classes": "3", "max_iter": "7"}, "args": ["--keep_shape"]}
    plan, _ = rendered(explainer={"art": art})
    explainer = plan.workloads[1]
    assert explainer.selection is not None
    assert explainer.selection.runtime.name == "servery-art"
    assert arguments(explainer)[5:] == [
        "--keep_shape",
        "--predictor_host=iris-predictor.demo",
        "--adversary_type=SquareAttack",
        "--max_iter=7",
        "--nb_classes=3",
    ]


def test_explainer_is_no_runtime_of_models(installed: Plugins, make_service: Callable[..., dict[str, Any]]) -> None:
    catalog = render.catalog_from([], installed)
    with pytest.raises(NoPlan, match="no runtime serves model format") as refused:
        render.plan(make_service(model={"modelFormat": {"name": "art"}}), catalog, installed, PlanningSettings())
    assert "servery-art" not in str(refused.value)


def test_gateway_routes_explanations_before_all_else(rendered: Callable[..., Rendered]) -> None:
    explainer = {"containers": [{"image": "acme/one:1", "args": ["--model_name=other"]}], "timeout": 300}
    _, objects = rendered(Capability.GATEWAY_API, transformer=CUSTOM, explainer=explainer)
    first, second = named(objects, "HTTPRoute", "iris")["spec"]["rules"]
    assert [match["path"] for match in first["matches"]] == [
        {"type": "Exact", "value": "/v1/models/iris:explain"},
        {"type": "Exact", "value": "/v2/models/iris/explain"},
        {"type": "Exact", "value": "/v1/models/other:explain"},
        {"type": "Exact", "value": "/v2/models/other/explain"},
        {
            "type": "RegularExpression",
            "value": "^/(v1/models/[^/]+:explain|v2/models/[^/]+(/versions/[^/]+)?/explain)$",
        },
    ]
    assert [backend["name"] for backend in first["backendRefs"]] == ["iris-explainer"]
    assert first["timeouts"] == {"request": "300s"}
    assert [backend["name"] for backend in second["backendRefs"]] == ["iris-transformer"]
    for component in ("predictor", "transformer", "explainer"):
        (rule,) = named(objects, "HTTPRoute", f"iris-{component}")["spec"]["rules"]
        assert [backend["name"] for backend in rule["backendRefs"]] == [f"iris-{component}"]


def test_ingress_routes_as_the_gateway_does(rendered: Callable[..., Rendered]) -> None:
    _, objects = rendered(Capability.INGRESS, transformer=CUSTOM, explainer=CUSTOM)
    rules = {rule["host"]: rule["http"]["paths"] for rule in named(objects, "Ingress", "iris")["spec"]["rules"]}
    found = {
        host: [(path["path"], path["pathType"], path["backend"]["service"]["name"]) for path in paths]
        for host, paths in rules.items()
    }
    assert found == {
        "iris-demo.example.com": [
            ("/v1/models/iris:explain", "Exact", "iris-explainer"),
            ("/v2/models/iris/explain", "Exact", "iris-explainer"),
            ("/", "Prefix", "iris-transformer"),
        ],
        "iris-predictor-demo.example.com": [("/", "Prefix", "iris-predictor")],
        "iris-transformer-demo.example.com": [("/", "Prefix", "iris-transformer")],
        "iris-explainer-demo.example.com": [("/", "Prefix", "iris-explainer")],
    }


@pytest.mark.parametrize(("mode", "kind"), [("knative", "Service"), ("ray", "RayService")])
def test_every_mode_has_an_object_for_each_component(rendered: Callable[..., Rendered], mode: str, kind: str) -> None:
    beside = {"transformer": CUSTOM, "explainer": {"art": {"type": "SquareAttack"}}}
    _, objects = rendered(*Capability, mode=mode, **beside)
    engines = [found for found in objects if found["kind"] == kind and found["apiVersion"] != "v1"]
    assert [found["metadata"]["name"] for found in engines] == ["iris-predictor", "iris-transformer", "iris-explainer"]


def test_plan_says_who_gets_what(rendered: Callable[..., Rendered]) -> None:
    plan, _ = rendered(transformer=CUSTOM, explainer=CUSTOM)
    assert "transformer: gets all requests, and asks iris-predictor" in plan.explanations
    assert any(sentence.startswith("explainer: gets requests for explanations") for sentence in plan.explanations)


@pytest.mark.parametrize("transformer", [None, CUSTOM], ids=["predictor", "transformer"])
def test_knative_tells_who_has_the_services_requests_where_explanations_come_from(
    rendered: Callable[..., Rendered], transformer: Any
) -> None:
    beside = {"explainer": CUSTOM, **({} if transformer is None else {"transformer": transformer})}
    _, objects = rendered(Capability.KNATIVE, mode="knative", **beside)
    told = {
        found["metadata"]["name"]: [
            one["value"]
            for container in found["spec"]["template"]["spec"]["containers"]
            for one in container.get("env", ())
            if one["name"] == "SERVERY_PREDICTOR_EXPLAINER_HOST"
        ]
        for found in objects
        if found["kind"] == "Service"
    }
    entry = "iris-predictor" if transformer is None else "iris-transformer"
    assert told.pop(entry) == ["iris-explainer.demo"]
    assert set(map(len, told.values())) == {0}


def test_knative_leaves_a_hosts_own_word_for_its_explainer(rendered: Callable[..., Rendered]) -> None:
    variable = {"name": "SERVERY_PREDICTOR_EXPLAINER_HOST", "value": "elsewhere"}
    transformer = {"containers": [{"image": "acme/one:1", "env": [variable]}]}
    _, objects = rendered(Capability.KNATIVE, mode="knative", explainer=CUSTOM, transformer=transformer)
    (container,) = named(objects, "Service", "iris-transformer")["spec"]["template"]["spec"]["containers"]
    assert [one["value"] for one in container["env"] if one["name"] == variable["name"]] == ["elsewhere"]
