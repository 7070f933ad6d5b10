from __future__ import annotations

from typing import Any

import pytest
from servery_dialect_ome import kinds
from servery_dialect_ome.plugin import OMEDialect
from servery_sdk.manifests import Namespace
from servery_sdk.model import ComponentKind, Protocol, Runtime, RuntimeScope, SupportedFormat, VersionRule


def parsed(spec: Any, kind: str = "ClusterServingRuntime", **metadata: Any) -> Runtime:
    manifest = {"apiVersion": kinds.VERSION, "kind": kind, "metadata": {"name": "acme", **metadata}, "spec": spec}
    return OMEDialect().parse_runtime(manifest)


def container(name: str = "ome-container", image: str = "acme/server:1", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, **more}


def formats(*listed: Any) -> tuple[SupportedFormat, ...]:
    return parsed({"engineConfig": {"runner": container()}, "supportedModelFormats": list(listed)}).formats


SAFETENSORS = {"name": "safetensors", "version": "1.0.0"}


def test_format_says_all_that_selection_compares() -> None:
    (found,) = formats(
        {
            "name": "old",
            "modelFormat": {**SAFETENSORS, "operator": "GreaterThan", "weight": 4},
            "modelFramework": {"name": "transformers", "version": "4.43.1", "operator": "GreaterThanOrEqual"},
            "modelArchitecture": "LlamaForCausalLM",
            "quantization": "fp8",
            "autoSelect": True,
            "priority": 3,
        }
    )
    assert found.name == "safetensors"
    assert (found.version, found.rule) == ("1.0.0", VersionRule.GREATER)
    assert (str(found.framework), found.framework_rule) == (
        '"transformers" version "4.43.1"',
        VersionRule.GREATER_OR_EQUAL,
    )
    assert (found.architecture, found.quantization, found.is_exact) == ("LlamaForCausalLM", "fp8", True)
    assert (found.auto_select, found.priority, found.weight) == (True, 3, 5)


@pytest.mark.parametrize(
    ("found", "score"),
    [
        pytest.param({"modelFormat": SAFETENSORS}, 1, id="defaults"),
        pytest.param({"modelFormat": SAFETENSORS, "modelFramework": {"name": "t"}, "priority": 2}, 4, id="both"),
        pytest.param(
            {
                "modelFormat": {**SAFETENSORS, "weight": 10},
                "modelFramework": {"name": "t", "weight": 5},
                "priority": 3,
            },
            45,
            id="weights",
        ),
        pytest.param(
            {"modelFormat": {**SAFETENSORS, "weight": 0}, "modelFramework": {"name": "t", "weight": 0}},
            15,
            id="of-nothing",
        ),
        pytest.param({"name": "safetensors", "version": "1", "priority": 12}, 12, id="older-form"),
    ],
)
def test_score(found: Any, score: int) -> None:
    (made,) = formats(found)
    assert made.priority is not None
    assert made.priority * made.weight == score


@pytest.mark.parametrize(
    ("said", "selectable"),
    [([None], [False]), ([True, None, False], [True, True, False]), ([False, None], [False, False])],
    ids=["nothing", "one-for-all-that-are-silent", "only-off"],
)
def test_silence_about_selection(said: list[bool | None], selectable: list[bool]) -> None:
    listed = [{"modelFormat": SAFETENSORS, **({} if one is None else {"autoSelect": one})} for one in said]
    assert [found.auto_select for found in formats(*listed)] == selectable


def test_parts_of_the_newer_form() -> None:
    found = parsed(
        {
            "engineConfig": {
                "runner": container(resources={"limits": {"cpu": "1"}}),
                "containers": [container("side"), container(image="under:1", env=[{"name": "A", "value": "b"}])],
                "labels": {"a": "b"},
                "annotations": {"c": "d"},
                "hostNetwork": True,
            },
            "decoderConfig": {
                "dnsPolicy": "Default",
                "leader": {"runner": container(image="lead:1"), "hostIPC": True},
                "worker": {"size": 3, "runner": container(image="work:1")},
            },
            "routerConfig": {"runner": container("router", "acme/router:1"), "config": {"POLICY": "random"}},
            "tolerations": [{"key": "gpu"}],
            "labels": {"all": "parts"},
        }
    )
    engine, decoder, router = (
        found.parts[kind] for kind in (ComponentKind.PREDICTOR, ComponentKind.DECODER, ComponentKind.ROUTER)
    )
    assert found.image == "acme/server:1"
    assert engine.container == container(resources={"limits": {"cpu": "1"}}, env=[{"name": "A", "value": "b"}])
    assert engine.pod == {
        "tolerations": [{"key": "gpu"}],
        "hostNetwork": True,
        "containers": [container("side")],
    }
    assert engine.labels == {"all": "parts", "serving-runtime": "acme", "a": "b"}
    assert engine.annotations == {"ome.io/serving-runtime": "acme", "c": "d"}
    assert (engine.worker_container, engine.worker_count) == (None, 0)
    assert decoder.container["image"] == "lead:1"
    assert decoder.pod == {"tolerations": [{"key": "gpu"}], "dnsPolicy": "Default", "hostIPC": True}
    assert decoder.worker_container == container(image="work:1")
    assert decoder.worker_pod == {"tolerations": [{"key": "gpu"}], "dnsPolicy": "Default"}
    assert decoder.worker_count == 3
    assert router.container["name"] == "router"
    assert router.container["env"] == [{"name": "POLICY", "value": "random"}]
    assert router.pod == {}, "a router needs no node with accelerators"
    assert not found.multi_node, "it may be chosen without being named"


def test_parts_of_the_older_form() -> None:
    found = parsed(
        {
            "containers": [container("side"), container(image="main:1")],
            "workers": {
                "size": 2,
                "containers": [container(image="work:1")],
                "hostIPC": True,
                "labels": {"side": "follows"},
                "annotations": {"rdma": "yes"},
            },
            "nodeSelector": {"a": "b"},
        }
    )
    part = found.parts[ComponentKind.PREDICTOR]
    assert part.container == {"image": "main:1"}
    assert part.pod == {"nodeSelector": {"a": "b"}, "containers": [container("side")]}
    assert part.worker_container == container(image="work:1")
    assert part.worker_pod == {"nodeSelector": {"a": "b"}, "hostIPC": True}
    assert part.worker_count == 2
    assert (part.worker_labels, part.worker_annotations) == ({"side": "follows"}, {"rdma": "yes"})


def test_scope_size_protocols_and_accelerators() -> None:
    found = parsed(
        {
            "engineConfig": {"containers": [container("any")]},
            "modelSizeRange": {"max": "9B"},
            "protocolVersions": ["openAI", "openInference-v2"],
            "acceleratorRequirements": {"acceleratorClasses": ["h100"]},
            "disabled": True,
        },
        kind="ServingRuntime",
        namespace="demo",
        creationTimestamp="2026-01-01T00:00:00Z",
    )
    assert found.scope is RuntimeScope.NAMESPACE
    assert found.ref is not None
    assert found.ref.namespace == Namespace("demo")
    assert (found.parameters.fewest, found.parameters.most) == (None, 9_000_000_000)
    assert found.protocols == {Protocol.OPENAI, Protocol.V2}
    assert found.accelerators == {"h100"}
    assert found.disabled
    assert found.created == "", "among equals OME takes the first by name, not the newest"
    assert found.parts[ComponentKind.PREDICTOR].container["name"] == "any"
