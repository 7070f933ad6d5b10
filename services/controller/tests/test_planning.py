from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from servery_controller import render
from servery_controller.planning import NoPlan, NoRuntime, PlanningSettings
from servery_controller.planning.merge import merge
from servery_controller.planning.placeholders import fill
from servery_controller.planning.selection import select_runtime
from servery_controller.settings import Settings
from servery_sdk import kinds
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Kind, Namespace, ObjectRef
from servery_sdk.model import (
    Catalog,
    DeploymentPlan,
    ModelFormat,
    Protocol,
    Runtime,
    RuntimeRequest,
    RuntimeScope,
    SupportedFormat,
)
from servery_sdk.plugins import Plugins

Make = Callable[..., dict[str, Any]]


SERVICE = ObjectRef(Kind("acme.io/v1", "Inference", "inferences"), Namespace("demo"), "iris")


def runtime(name: str, **more: Any) -> Runtime:
    formats = more.pop("formats", (SupportedFormat(name="sklearn", version="1"),))
    return Runtime(name=name, formats=formats, **more)


def select(*runtimes: Runtime, version: str | None = None, **more: Any) -> Any:
    request = RuntimeRequest(format=ModelFormat(name="sklearn", version=version), **more)
    return select_runtime(request, Catalog(runtimes=runtimes), service=SERVICE)


@pytest.mark.parametrize(
    ("runtimes", "chosen"),
    [
        pytest.param(
            [runtime("a", scope=RuntimeScope.BUILT_IN), runtime("b", scope=RuntimeScope.CLUSTER)],
            "b",
            id="nearest-scope",
        ),
        pytest.param(
            [
                runtime("a", formats=(SupportedFormat(name="sklearn", priority=1),)),
                runtime("b", formats=(SupportedFormat(name="sklearn", priority=2),)),
            ],
            "b",
            id="highest-priority",
        ),
        pytest.param(
            [runtime("a", protocols=frozenset({Protocol.V1, Protocol.V2})), runtime("b")],
            "a",
            id="known-protocol-first",
        ),
        pytest.param([runtime("a", created="2025-01-01"), runtime("b", created="2026-01-01")], "b", id="newest"),
        pytest.param([runtime("b"), runtime("a")], "a", id="by-name"),
    ],
)
def test_runtime_is_chosen(runtimes: list[Runtime], chosen: str) -> None:
    selection = select(*runtimes)
    assert selection.runtime.name == chosen
    assert len(selection.rejected) == len(runtimes) - 1


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        pytest.param(runtime("r", formats=(SupportedFormat(name="onnx"),)), "format", id="format"),
        pytest.param(runtime("r"), 'version "1"', id="version"),
        pytest.param(runtime("r", disabled=True), "disabled", id="disabled"),
        pytest.param(runtime("r", multi_model=True), "multi-model", id="multi-model"),
        pytest.param(runtime("r", multi_node=True), "multi-node", id="multi-node"),
        pytest.param(
            runtime("r", formats=(SupportedFormat(name="sklearn", auto_select=False),)), "autoSelect is off", id="auto"
        ),
        pytest.param(
            runtime("r", formats=(SupportedFormat(name="sklearn", version="2"),), protocols=frozenset({Protocol.V2})),
            'protocol "v2"',
            id="protocol",
        ),
    ],
)
def test_rejection_says_why(unfit: Runtime, reason: str) -> None:
    with pytest.raises(NoRuntime) as refused:
        select(unfit, version="2")
    wanted = 'no runtime serves model format "sklearn" version "2" over protocol "v1" in namespace "demo"'
    known = '; formats that runtimes serve: "onnx"' if reason == "format" else ""
    assert str(refused.value) == f"{wanted}{known}; rejected: r ({reason})"


@pytest.mark.parametrize(
    ("request_", "reason", "words"),
    [
        pytest.param({"name": "x"}, "RuntimeNotRecognized", "there are: off, r", id="unknown"),
        pytest.param({"name": "off"}, "RuntimeDisabled", "is disabled", id="disabled"),
        pytest.param({"name": "r", "protocol": Protocol.V1}, "NoSupportingRuntime", 'it speaks: "v2"', id="protocol"),
        pytest.param(
            {"name": "r", "version": "9"}, "NoSupportingRuntime", 'it supports: "sklearn" version "1"', id="version"
        ),
    ],
)
def test_named_runtime_that_does_not_fit_is_refused(request_: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(NoRuntime) as refused:
        select(runtime("r", protocols=frozenset({Protocol.V2})), runtime("off", disabled=True), **request_)
    assert refused.value.reason == reason
    assert words in str(refused.value)


def test_alias_stands_for_its_runtime() -> None:
    assert select(runtime("mine", aliases=("kserve-mine",)), name="kserve-mine").runtime.name == "mine"


@pytest.mark.parametrize(
    ("base", "overlay", "merged"),
    [
        pytest.param({"args": ["a"]}, {"args": ["b"]}, {"args": ["a", "b"]}, id="args-join"),
        pytest.param({"command": ["a"]}, {"command": ["b"]}, {"command": ["b"]}, id="command-replaces"),
        pytest.param(
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {"x": 1}}]},
            {"env": [{"name": "A", "valueFrom": {"x": 1}}, {"name": "B", "value": "1"}]},
            id="env-by-name",
        ),
        pytest.param(
            {"ports": [{"containerPort": 1, "name": "a"}]},
            {"ports": [{"containerPort": 1, "protocol": "TCP", "name": "b"}, {"containerPort": 2}]},
            {"ports": [{"containerPort": 1, "name": "b", "protocol": "TCP"}, {"containerPort": 2}]},
            id="ports-by-number",
        ),
        pytest.param(
            {"readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 5}},
            {"readinessProbe": {"tcpSocket": {"port": 2}}},
            {"readinessProbe": {"periodSeconds": 5, "tcpSocket": {"port": 2}}},
            id="one-probe-handler",
        ),
        pytest.param(
            {"resources": {"limits": {"cpu": "1"}}},
            {"resources": None},
            {"resources": {"limits": {"cpu": "1"}}},
            id="null",
        ),
    ],
)
def test_manifest_merges_over_the_runtime(base: Any, overlay: Any, merged: Any) -> None:
    assert merge(base, overlay) == merged


def test_placeholders_are_filled_everywhere() -> None:
    metadata = {"name": "iris", "namespace": "demo", "labels": {"a-b": "c"}, "annotations": {"x": "y"}}
    found = fill(
        {"args": ["--n={{.Name}}", "{{ .Namespace }}/{{.Labels.a-b}}"], "e": [{"v": "{{.Annotations.x}}"}]},
        metadata,
        where="r",
    )
    assert found == {"args": ["--n=iris", "demo/c"], "e": [{"v": "y"}]}


def test_braces_of_a_chat_template_stay() -> None:
    template = "{% if system %}{{ system }}{% endif %}{{ message['content'] }}"
    assert fill(template, {"name": "a", "namespace": "b"}, where="r") == template


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{.Labels.nope}}", r"r: placeholder {{.Labels.nope}}: the service has no label 'nope'; add it"),
        ("{{.Spec.x}}", r"r: unknown placeholder {{.Spec.x}}: known are .Name"),
    ],
)
def test_placeholder_that_cannot_be_filled_is_named(text: str, words: str) -> None:
    with pytest.raises(NoPlan) as refused:
        fill(text, {"name": "a", "namespace": "b"}, where="r")
    assert str(refused.value).startswith(words)


@pytest.fixture
def planned(installed: Plugins) -> Callable[..., DeploymentPlan]:
    def plan(service: dict[str, Any], *runtimes: dict[str, Any], **settings: Any) -> DeploymentPlan:
        return render.plan(service, render.catalog_from(runtimes, installed), installed, PlanningSettings(**settings))

    return plan


def test_pod_fetches_the_model_before_the_server_starts(
    planned: Callable[..., DeploymentPlan], make_service: Make
) -> None:
    pod = planned(make_service()).workloads[0].pod
    assert pod["initContainers"][0]["args"] == ["s3://models/iris", "/mnt/models"]
    main = pod["containers"][0]
    assert main["name"] == "kserve-container"
    assert {"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": True} in main["volumeMounts"]
    assert "--model_name=iris" in main["args"]


def test_ports_that_only_the_runtime_names_are_not_asked_for(
    planned: Callable[..., DeploymentPlan], make_service: Make
) -> None:
    assert [port.asked for port in planned(make_service()).workloads[0].ports] == [False, False]
    own = {"storageUri": "s3://models/iris", "ports": [{"containerPort": 8080}]}
    assert planned(make_service(sklearn=own)).workloads[0].ports[0].asked


def test_claim_is_mounted_without_an_init_container(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    pod = planned(make_service(sklearn={"storageUri": "pvc://models/a/b"})).workloads[0].pod
    assert "initContainers" not in pod
    volume = {"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": "models"}}
    assert volume in pod["volumes"]
    mount = {"name": "kserve-pvc-source", "mountPath": "/mnt/models", "readOnly": True, "subPath": "a/b"}
    assert mount in pod["containers"][0]["volumeMounts"]


def test_several_sources_share_one_init_container(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    uris = [{"uri": "s3://a", "mountPath": "/mnt/models/a"}, {"uri": "gs://b", "mountPath": "/mnt/models/b"}]
    (init,) = planned(make_service(sklearn={}, storageUris=uris)).workloads[0].pod["initContainers"]
    assert init["args"] == ["s3://a", "/mnt/models/a", "gs://b", "/mnt/models/b"]
    assert init["volumeMounts"][0]["mountPath"] == "/mnt/models"


def test_nodes_cache_is_the_init_containers_alone(installed: Plugins, make_service: Make) -> None:
    catalog = render.catalog_from([], installed)
    settings = PlanningSettings(storage_cache="/var/lib/models", storage_cache_bytes=10**9)
    pod = render.plan(make_service(), catalog, installed, settings).workloads[0].pod
    host = {"path": "/var/lib/models", "type": "DirectoryOrCreate"}
    assert {"name": "storage-cache", "hostPath": host} in pod["volumes"]
    (init,) = pod["initContainers"]
    assert {"name": "storage-cache", "mountPath": "/var/cache/servery"} in init["volumeMounts"]
    assert {"name": "SERVERY_STORAGE_CACHE", "value": "/var/cache/servery"} in init["env"]
    assert {"name": "SERVERY_STORAGE_MAX_CACHE_BYTES", "value": "1000000000"} in init["env"]
    assert "storage-cache" not in str(pod["containers"])


def test_installations_word_on_safety_is_the_last(installed: Plugins, make_service: Make) -> None:
    said = Settings(storage_settings="SERVERY_STORAGE_FORMATS=safetensors SERVERY_STORAGE_SIGNATURE_KEY='/a b'")
    settings = said.planning(installed)
    pod = render.plan(make_service(), render.catalog_from([], installed), installed, settings).workloads[0].pod
    (init,) = pod["initContainers"]
    assert init["env"][-2:] == [
        {"name": "SERVERY_STORAGE_FORMATS", "value": "safetensors"},
        {"name": "SERVERY_STORAGE_SIGNATURE_KEY", "value": "/a b"},
    ]
    assert "SERVERY_STORAGE" not in str(pod["containers"])


def test_file_of_the_controller_goes_to_pods_as_its_text(tmp_path: Path, installed: Plugins) -> None:
    key = tmp_path / "models.pub"
    key.write_text("-----BEGIN PUBLIC KEY-----\nAA//==\n-----END PUBLIC KEY-----\n")
    said = Settings(storage_settings=f"SERVERY_STORAGE_SIGNATURE_KEY=@{key}").planning(installed)
    assert said.storage_env == {"SERVERY_STORAGE_SIGNATURE_KEY": key.read_text()}


def test_file_that_cannot_go_to_pods_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="No such file"):
        Settings(storage_settings=f"SERVERY_STORAGE_SIGNATURE_KEY=@{tmp_path}/none")
    (tmp_path / "large").write_text("x" * 65537)
    with pytest.raises(ValidationError, match="more than 65536 bytes"):
        Settings(storage_settings=f"SERVERY_STORAGE_SIGNATURE_KEY=@{tmp_path}/large")


@pytest.mark.parametrize("said", ["PATH=/tmp", "SERVERY_STORAGE_FORMATS", "SERVERY_STORAGE_FORMATS='"])
def test_what_is_no_setting_of_the_storage_initializer_is_refused(said: str) -> None:
    with pytest.raises(ValidationError):
        Settings(storage_settings=said)


def test_unknown_scheme_names_the_known_ones(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    with pytest.raises(Invalid) as refused:
        planned(make_service(sklearn={"storageUri": "s4://b/m"}))
    assert str(refused.value) == (
        'spec.predictor.sklearn.storageUri: Unsupported value: "s4://b/m": '
        'supported schemes: "abfs", "abfss", "az", "azure", "file", "git", "git+http", "git+https", "git+ssh", "gs", "hdfs", '
        '"hf", "http", "https", "mlflow-artifacts", "models", "modelscope", "oci", "oci+fetch", "pvc", '
        '"runs", "s3", "swebhdfs", "wasb", "wasbs", "webhdfs"'
    )


def test_mode_that_is_not_installed_is_refused(installed: Plugins, make_service: Make) -> None:
    service = make_service(annotations={"serving.kserve.io/deploymentMode": "Knative"})
    few = replace(installed, modes={"raw": installed.modes["raw"]})
    with pytest.raises(Invalid, match='Unsupported value: "knative": installed modes: "raw"'):
        render.plan(service, render.catalog_from([], few), few, PlanningSettings())


@pytest.mark.parametrize(
    ("name", "image", "is_ours"),
    [
        ("servery-sklearn", "registry.example.com/mirror/predictor-sklearn:0.2.0@sha256:ab", True),
        ("servery-sklearn", "acme/server", False),
        ("acme", "servery/predictor-sklearn:0.1.0", False),
    ],
)
def test_object_that_installs_a_plugins_runtime_is_that_runtime(
    installed: Plugins, make_runtime: Make, name: str, image: str, is_ours: bool
) -> None:
    runtime = make_runtime(name)
    runtime["spec"]["containers"][0]["image"] = image
    found = render.catalog_from([runtime], installed).runtimes[0]
    assert found.model_class == (installed.runtimes["servery-sklearn"].model_class if is_ours else None)


def test_bound_of_requests_at_once_is_explained(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
    found = planned(make_service(model=model, containerConcurrency=4))
    assert [said for said in found.explanations if "requests at once" in said] == [
        "predictor: at most 4 requests at once in one pod, where the mode has something before its pods that holds the "
        "others back"
    ]


def test_service_whose_engine_is_not_there_falls_back_where_the_installation_says_so(
    planned: Callable[..., DeploymentPlan], make_service: Make
) -> None:
    service = make_service(annotations={"serving.kserve.io/deploymentMode": "Serverless"})
    assert planned(service).mode == "knative"
    found = planned(service, fallback_mode="raw")
    assert found.mode == "raw"
    assert found.explanations[-1] == "mode raw: knative needs Knative Serving, and this place has it not"


def test_runtime_of_the_namespace_beats_the_built_in(
    planned: Callable[..., DeploymentPlan], make_service: Make, make_runtime: Make
) -> None:
    workload = planned(make_service(), make_runtime("mine")).workloads[0]
    assert workload.selection is not None
    assert workload.selection.runtime.name == "mine"
    assert workload.pod["containers"][0]["args"] == ["--name=iris"]


def test_runtime_version_is_the_images_tag(
    planned: Callable[..., DeploymentPlan], make_service: Make, make_runtime: Make
) -> None:
    service = make_service(sklearn={"runtimeVersion": "7"})
    assert planned(service, make_runtime("mine")).workloads[0].pod["containers"][0]["image"] == "acme/mine:7"


def test_broken_runtime_is_among_the_rejected(
    planned: Callable[..., DeploymentPlan], make_service: Make, make_runtime: Make
) -> None:
    with pytest.raises(NoRuntime, match=r"broken \(spec\.containers: Required value\)"):
        planned(make_service(model={"modelFormat": {"name": "nobodys"}}), make_runtime("broken", containers=[]))


def test_autoscaled_plan_omits_replicas(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    assert planned(make_service()).workloads[0].replicas is None
    fixed = make_service(annotations={"serving.kserve.io/autoscalerClass": "none"}, sklearn={}, minReplicas=3)
    assert planned(fixed).workloads[0].replicas == 3


def test_cluster_local_service_has_no_route(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    service = make_service()
    service["metadata"]["labels"] = {"networking.kserve.io/visibility": "cluster-local"}
    plan = planned(service)
    assert (plan.routes, plan.url) == ((), None)
    assert plan.address == "http://iris-predictor.demo.svc.cluster.local"


def account(name: str = "default", *secrets: dict[str, Any]) -> dict[ObjectRef, Any]:
    namespace = Namespace("demo")
    listed = [{"name": secret["metadata"]["name"]} for secret in secrets]
    found: dict[ObjectRef, Any] = {ObjectRef(kinds.SERVICE_ACCOUNT, namespace, name): {"secrets": listed}}
    for secret in secrets:
        found[ObjectRef(kinds.SECRET, namespace, secret["metadata"]["name"])] = secret
    return found


def initializer(installed: Plugins, service: dict[str, Any], objects: dict[ObjectRef, Any]) -> tuple[Any, Any]:
    catalog = replace(render.catalog_from([], installed), objects=objects)
    pod = render.plan(service, catalog, installed, PlanningSettings()).workloads[0].pod
    return pod["initContainers"][0], pod["volumes"]


def test_s3_secret_of_the_service_account_reaches_the_initializer(installed: Plugins, make_service: Make) -> None:
    annotations = {"serving.kserve.io/s3-endpoint": "minio:9000", "serving.kserve.io/s3-usehttps": "0"}
    data = {"AWS_ACCESS_KEY_ID": "eA==", "awsSecretAccessKey": "eQ=="}
    secret = {"metadata": {"name": "s", "annotations": annotations}, "data": data}
    service = make_service(sklearn={"storageUri": "s3://b/m"}, serviceAccountName="sa")
    container, _ = initializer(installed, service, account("sa", secret))
    assert container["env"] == [
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s", "key": "AWS_ACCESS_KEY_ID"}}},
        {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "awsSecretAccessKey"}}},
        {"name": "S3_ENDPOINT", "value": "minio:9000"},
        {"name": "S3_USE_HTTPS", "value": "0"},
    ]


@pytest.mark.parametrize(("file", "mount"), [(None, "/etc/ssl/custom-certs"), ("/ca/own.crt", "/ca")])
def test_ca_bundle_of_an_s3_secret_is_mounted(
    installed: Plugins, make_service: Make, file: str | None, mount: str
) -> None:
    annotations = {"serving.kserve.io/s3-cabundle-configmap": "trusted"}
    if file is not None:
        annotations["serving.kserve.io/s3-cabundle"] = file
    data = {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eQ=="}
    secret = {"metadata": {"name": "s", "annotations": annotations}, "data": data}
    container, volumes = initializer(installed, make_service(), account("default", secret))
    said = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert (said["CA_BUNDLE_CONFIGMAP_NAME"], said["CA_BUNDLE_VOLUME_MOUNT_POINT"]) == ("trusted", mount)
    assert said.get("AWS_CA_BUNDLE") == file
    assert {"name": "cabundle-cert", "mountPath": mount, "readOnly": True} in container["volumeMounts"]
    assert {"name": "cabundle-cert", "configMap": {"name": "trusted"}} in volumes


def test_azure_secret_of_the_service_account_reaches_the_initializer(installed: Plugins, make_service: Make) -> None:
    """In Azure's names, and in KServe's older ones."""
    keys = ("AZ_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_ACCESS_KEY")
    secret = {"metadata": {"name": "a"}, "data": dict.fromkeys(keys, "eA==")}
    service = make_service(sklearn={"storageUri": "https://acct.blob.core.windows.net/c/m"})
    container, _ = initializer(installed, service, account("default", secret))
    assert container["env"] == [
        {"name": key.replace("AZ_", "AZURE_"), "valueFrom": {"secretKeyRef": {"name": "a", "key": key}}} for key in keys
    ]


def test_headers_of_a_host_reach_the_initializer(installed: Plugins, make_service: Make) -> None:
    data = {"https-host": base64.b64encode(b"example.com\n").decode(), "headers": "eA=="}
    secret = {"metadata": {"name": "w"}, "data": data}
    service = make_service(sklearn={"storageUri": "https://example.com/m.joblib"})
    container, _ = initializer(installed, service, account("default", secret))
    ref = {"secretKeyRef": {"name": "w", "key": "headers"}}
    assert container["env"] == [{"name": "example.com-headers", "valueFrom": ref}]


def test_hub_secret_of_the_service_account_reaches_the_initializer(installed: Plugins, make_service: Make) -> None:
    secret = {"metadata": {"name": "h"}, "data": {"HF_TOKEN": "eA==", "HF_ENDPOINT": "eQ==", "OTHER": ""}}
    service = make_service(sklearn={"storageUri": "hf://acme/m"})
    container, _ = initializer(installed, service, account("default", secret))
    assert container["args"][0] == "hf://acme/m"
    assert container["env"] == [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "h", "key": name}}}
        for name in ("HF_TOKEN", "HF_ENDPOINT")
    ]


@pytest.mark.parametrize(
    ("uri", "keys"),
    [
        ("git://host/m.git", ("GIT_USERNAME", "GIT_PASSWORD")),
        ("modelscope://acme/m", ("MODELSCOPE_API_TOKEN",)),
        ("models:/iris/1", ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN")),
    ],
)
def test_secret_whose_keys_are_variables_reaches_the_initializer(
    installed: Plugins, make_service: Make, uri: str, keys: tuple[str, ...]
) -> None:
    secret = {"metadata": {"name": "h"}, "data": dict.fromkeys(keys, "eA==")}
    container, _ = initializer(installed, make_service(sklearn={"storageUri": uri}), account("default", secret))
    assert container["env"] == [{"name": key, "valueFrom": {"secretKeyRef": {"name": "h", "key": key}}} for key in keys]


def test_secrets_of_hdfs_and_of_a_registry_are_mounted(installed: Plugins, make_service: Make) -> None:
    hdfs = {"metadata": {"name": "h"}, "data": {"HDFS_NAMENODE": "eA=="}}
    registry = {"metadata": {"name": "r"}, "data": {".dockerconfigjson": "e30="}}
    container, volumes = initializer(installed, make_service(), account("default", hdfs, registry))
    assert container["env"] == [{"name": "KSERVE_OCI_DOCKER_CONFIG", "value": "/mnt/oci-fetch-auth/config.json"}]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["hdfs-secrets"] == "/var/secrets/kserve-hdfscreds"
    assert mounts["oci-fetch-auth"] == "/mnt/oci-fetch-auth"
    assert {"name": "hdfs-secrets", "secret": {"secretName": "h"}} in volumes
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    assert {"name": "oci-fetch-auth", "secret": {"secretName": "r", "items": items}} in volumes


def test_of_two_secrets_with_one_variable_the_last_counts(installed: Plugins, make_service: Make) -> None:
    secrets = [{"metadata": {"name": name}, "data": {"HF_TOKEN": "eA=="}} for name in ("first", "last")]
    container, _ = initializer(installed, make_service(), account("default", *secrets))
    (variable,) = container["env"]
    assert variable["valueFrom"]["secretKeyRef"]["name"] == "last"


def test_google_secret_of_the_service_account_is_mounted(installed: Plugins, make_service: Make) -> None:
    secret = {"metadata": {"name": "g"}, "data": {"gcloud-application-credentials.json": "e30="}}
    container, volumes = initializer(installed, make_service(), account("default", secret))
    path = "/var/secrets/gcloud-application-credentials.json"
    assert container["env"] == [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": path}]
    assert {"name": "user-gcp-sa", "mountPath": "/var/secrets/", "readOnly": True} in container["volumeMounts"]
    assert {"name": "user-gcp-sa", "secret": {"secretName": "g"}} in volumes


def test_secret_of_no_known_type_gives_nothing(installed: Plugins, make_service: Make) -> None:
    container, _ = initializer(
        installed, make_service(), account("default", {"metadata": {"name": "x"}, "data": {"a": ""}})
    )
    assert "env" not in container


def test_plan_that_its_mode_cannot_run_says_so(planned: Callable[..., DeploymentPlan], make_service: Make) -> None:
    with pytest.raises(
        NoPlan, match="mode 'raw' cannot run it: predictor: a HorizontalPodAutoscaler cannot scale on rps"
    ):
        planned(make_service(sklearn={"storageUri": "s3://b/m"}, scaleMetric="rps"))
