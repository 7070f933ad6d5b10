"""A service in the words of another dialect, and the proof that the same will run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from servery_controller import render
from servery_controller.convert import Converted, Different, convert
from servery_controller.planning import NoPlan, PlanningSettings
from servery_sdk.contract import Dialect
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Manifest
from servery_sdk.model import Capability, InferenceService
from servery_sdk.plugins import Plugins

SETTINGS = PlanningSettings()


@pytest.fixture
def converted(installed: Plugins) -> Callable[..., Converted]:
    def made(
        manifest: Manifest, to: str | Dialect, settings: PlanningSettings = SETTINGS, *beside: Manifest
    ) -> Converted:
        catalog = render.catalog_from(beside, installed, frozenset(Capability))
        dialect = installed.dialects[to] if isinstance(to, str) else to
        return convert(manifest, dialect, catalog, installed, settings)

    return made


@pytest.fixture
def ome() -> Callable[..., Manifest]:
    def made(kind: str, name: str, spec: Any) -> Manifest:
        metadata = {"name": name, "namespace": "demo"}
        return {"apiVersion": "ome.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec}

    return made


def test_runtime_and_files_are_said_as_such(converted: Callable[..., Converted], make_service: Any) -> None:
    found = converted(make_service(), "ome")
    service, model = found.manifests
    assert service["spec"]["model"] == {"name": "iris", "kind": "BaseModel"}
    assert model["metadata"] == {"name": "iris", "namespace": "demo"}
    assert model["spec"] == {"modelFormat": {"name": "sklearn"}, "storage": {"storageUri": "s3://models/iris"}}
    assert found.spelled_out == ()


def test_dialect_without_runtimes_gets_whole_pods_and_says_why(
    converted: Callable[..., Converted], make_service: Any
) -> None:
    found = converted(make_service(), "kubedl")
    (predictor,) = found.manifests[0]["spec"]["predictors"]
    pod = predictor["template"]["spec"]
    assert [container["name"] for container in pod["initContainers"]] == ["storage-initializer"]
    assert [container["name"] for container in pod["containers"]] == ["predictor"]
    assert "INFERENCE_SERVICE_NAME" not in str(pod), "KServe's promise, which nobody here relies on"
    assert [reason.partition(":")[0] for reason in found.spelled_out] == [
        "spec.predictor.model",
        "spec.predictor.model.storageUri",
    ]


@pytest.mark.parametrize("to", ["kserve", "kubedl", "ome"])
def test_what_a_class_of_accelerators_brings_is_said_in_a_whole_pod(
    converted: Callable[..., Converted], ome: Callable[..., Manifest], to: str
) -> None:
    engine = {"deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}}}
    spec = {"model": {"name": "llama"}, "engine": engine, "acceleratorSelector": {"acceleratorClass": "h100"}}
    service = ome("InferenceService", "chat", spec)
    around = (
        ome("BaseModel", "llama", {"modelFormat": {"name": "acme"}, "storage": {"storageUri": "s3://bucket/llama"}}),
        ome("AcceleratorClass", "h100", {"discovery": {}, "resources": [{"name": "acme.com/gpu", "quantity": 2}]}),
        ome(
            "ServingRuntime",
            "acme",
            {
                "supportedModelFormats": [{"modelFormat": {"name": "acme"}, "autoSelect": True}],
                "acceleratorRequirements": {"acceleratorClasses": ["h100"]},
                "engineConfig": {"runner": {"name": "ome-container", "image": "acme/server:1"}},
            },
        ),
    )
    found = converted(service, to, SETTINGS, *around)
    assert "acme.com/gpu: '2'" in yaml.safe_dump(list(found.manifests))
    assert any("acme.com/gpu where the " in reason for reason in found.spelled_out)


def test_promised_variable_that_the_container_uses_is_said(
    converted: Callable[..., Converted], make_service: Any
) -> None:
    container = {"image": "acme/server:1", "args": ["--name=$(INFERENCE_SERVICE_NAME)"]}
    (predictor,) = converted(make_service(containers=[container]), "kubedl").manifests[0]["spec"]["predictors"]
    (made,) = predictor["template"]["spec"]["containers"]
    assert made["env"] == [{"name": "INFERENCE_SERVICE_NAME", "value": "iris"}]


def test_annotation_that_another_dialect_would_take_for_its_own_is_refused(
    converted: Callable[..., Converted], make_service: Any
) -> None:
    with pytest.raises(Invalid) as refused:
        converted(make_service(annotations={"ome.io/deploymentMode": "Serverless"}), "ome")
    assert "metadata.annotations[ome.io/deploymentMode]" in {error.path for error in refused.value.errors}


def test_all_refusals_come_at_once_at_the_manifests_own_paths(
    converted: Callable[..., Converted], make_service: Any
) -> None:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    service = make_service(model=model, timeout=30, containerConcurrency=4)
    with pytest.raises(Invalid) as refused:
        converted(service, "kubedl")
    assert [str(error) for error in refused.value.errors] == [
        "spec.predictor.model: Forbidden: KubeDL cannot say how long a request may take (30 seconds)",
        "spec.predictor.model: Forbidden: KubeDL cannot say a bound of the requests at once (4)",
    ]


def test_no_bound_of_the_replicas_is_none_only_where_the_mode_says_so(
    converted: Callable[..., Converted], make_service: Any
) -> None:
    """KServe's service without maxReplicas has no bound in mode knative; OME's has one always."""
    assert converted(make_service(), "ome").manifests
    with pytest.raises(Different, match=r"workloads\[0\].scaling in mode knative"):
        converted(make_service(), "ome", replace(SETTINGS, default_mode="knative"))


def test_runtime_object_of_one_dialect_serves_the_other_as_a_whole_pod(
    converted: Callable[..., Converted], make_service: Any, make_runtime: Any
) -> None:
    own = make_runtime("acme")
    service = make_service(model={"modelFormat": {"name": "sklearn"}, "runtime": "acme", "storageUri": "s3://a/b"})
    assert converted(service, "kserve", SETTINGS, own).spelled_out == ()
    found = converted(service, "ome", SETTINGS, own)
    runner = found.manifests[0]["spec"]["engine"]["runner"]
    assert (runner["image"], runner["args"]) == ("acme/acme:1", ["--name=iris"])
    assert "no ServingRuntime or ClusterServingRuntime with the name 'acme'" in found.spelled_out[0]


def test_manifest_that_nothing_serves_is_refused_as_it_is(
    converted: Callable[..., Converted], make_service: Any
) -> None:
    with pytest.raises(NoPlan, match="no runtime serves model format"):
        converted(make_service(model={"modelFormat": {"name": "acme"}, "storageUri": "s3://a/b"}), "ome")


def test_dialect_that_drops_something_is_found_out(
    converted: Callable[..., Converted], make_service: Any, installed: Plugins
) -> None:
    class Forgetful:
        """Writes as KServe's dialect, but for the timeout."""

        name = "forgetful"

        def write(self, service: InferenceService) -> tuple[Manifest, ...]:
            (made,) = installed.dialects["kserve"].write(service)
            predictor = {key: value for key, value in made["spec"]["predictor"].items() if key != "timeout"}
            return ({**made, "spec": {"predictor": predictor}},)

        def __getattr__(self, name: str) -> Any:
            return getattr(installed.dialects["kserve"], name)

    service = make_service(model={"modelFormat": {"name": "sklearn"}, "storageUri": "s3://a/b"}, timeout=30)
    with pytest.raises(Different) as refused:
        converted(service, Forgetful())
    assert "workloads[0].timeout_seconds: 30, and nothing" in refused.value.differences
