from __future__ import annotations

from typing import Any

import pytest
from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.errors import Invalid
from servery_sdk.model import ComponentKind, Protocol, RuntimeScope, SupportedFormat

DIALECT = KServeDialect()


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "mine", "namespace": "demo"},
        "spec": {"containers": [{"name": "kserve-container", "image": "acme/server:1"}], **spec},
    }


def test_runtime_carries_what_selection_and_merging_need() -> None:
    found = DIALECT.parse_runtime(
        manifest(
            supportedModelFormats=[
                {"name": "sklearn", "version": "1", "autoSelect": True, "priority": 2},
                {"name": "x"},
            ],
            protocolVersions=["v1", "grpc-v2"],
            nodeSelector={"a": "b"},
            annotations={"prometheus.kserve.io/port": "8080"},
        )
    )
    assert found.scope is RuntimeScope.NAMESPACE
    assert found.formats == (
        SupportedFormat(name="sklearn", version="1", auto_select=True, priority=2),
        SupportedFormat(name="x", version=None, auto_select=False, priority=None),
    )
    assert found.protocols == {Protocol.V1, Protocol.GRPC_V2}
    assert found.parts[ComponentKind.PREDICTOR].container == {"image": "acme/server:1"}
    assert found.parts[ComponentKind.PREDICTOR].pod == {"nodeSelector": {"a": "b"}}
    assert found.parts[ComponentKind.PREDICTOR].annotations == {"prometheus.kserve.io/port": "8080"}


def test_only_container_answers_requests_whatever_its_name() -> None:
    found = DIALECT.parse_runtime(manifest(containers=[{"name": "triton", "image": "t"}]))
    assert found.image == "t"


def test_other_containers_stay_beside_the_main_one() -> None:
    containers = [{"name": "side", "image": "s"}, {"name": "kserve-container", "image": "m"}]
    found = DIALECT.parse_runtime(manifest(containers=containers))
    assert (found.image, found.parts[ComponentKind.PREDICTOR].pod["containers"]) == (
        "m",
        [{"name": "side", "image": "s"}],
    )


@pytest.mark.parametrize(
    ("spec", "errors"),
    [
        pytest.param({"containers": None}, ["spec.containers: Required value"], id="null-containers"),
        pytest.param({"containers": []}, ["spec.containers: Required value"], id="no-containers"),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "b"}]},
            ['spec.containers: Invalid value: ["a", "b"]: one of several containers must be named kserve-container'],
            id="no-main-container",
        ),
        pytest.param(
            {"supportedModelFormats": [{"priority": 0}], "protocolVersions": ["v7"]},
            [
                'spec.protocolVersions[0]: Unsupported value: "v7": supported values: "grpc-v1", "grpc-v2", "v1", "v2"',
                "spec.supportedModelFormats[0].name: Required value",
                "spec.supportedModelFormats[0].priority: Invalid value: 0: must be greater than or equal to 1",
            ],
            id="formats-and-protocols",
        ),
        pytest.param(
            {"multimodel": True}, ['spec.multimodel: Unknown field: did you mean "multiModel"?'], id="misspelt-field"
        ),
    ],
)
def test_wrong_runtime_gets_all_its_errors(spec: dict[str, Any], errors: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        DIALECT.parse_runtime(manifest(**spec))
    assert [str(error) for error in refused.value.errors] == errors
