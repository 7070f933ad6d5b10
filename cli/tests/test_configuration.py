"""Variables and files from Secrets and ConfigMaps, as a kubelet makes them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery.local.configuration import (
    Configuration,
    CreateContainerConfigError,
    as_stored,
    environment,
    expand,
    volume_files,
)
from servery_kube.port import Rejected

ADDRESS = "127.64.0.7"
POD = {
    "metadata": {"name": "p", "namespace": "demo", "labels": {"b": 'say "x"', "a": "1"}, "annotations": {"k/x.y": "v"}},
    "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "1Gi", "cpu": "1500m"}}}]},
}


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


THERE = Configuration(
    namespace="demo",
    secrets={"s": {"data": {"user": encoded(b"ann"), "raw": encoded(b"\xff")}}},
    config_maps={"c": {"data": {"host": "h", "port": "1"}, "binaryData": {"bin": encoded(b"\x00\xfe")}}},
)


def variables(*env: dict[str, Any], **container: Any) -> dict[str, str]:
    return environment(POD, {**POD["spec"]["containers"][0], "env": env, **container}, ADDRESS, THERE)  # type: ignore[index]


def secret_key(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": key, **more}}}


def config_key(name: str, key: str, **more: Any) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"configMapKeyRef": {"name": name, "key": key, **more}}}


def field(path: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, **more: Any) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"resourceFieldRef": {"resource": name, **more}}}


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        pytest.param(secret_key("s", "user"), "ann", id="secret"),
        pytest.param(secret_key("s", "raw"), "\udcff", id="no-text"),
        pytest.param(config_key("c", "host"), "h", id="config-map"),
        pytest.param(field("metadata.name"), "p", id="name"),
        pytest.param(field("metadata.labels['a']"), "1", id="label"),
        pytest.param(field("metadata.annotations['k/x.y']"), "v", id="annotation"),
        pytest.param(field("metadata.labels['none']"), "", id="no-label"),
        pytest.param(field("status.podIP"), ADDRESS, id="address"),
        pytest.param(field("status.hostIP"), "127.0.0.1", id="host"),
        pytest.param(resource("limits.cpu"), "2", id="rounded-up"),
        pytest.param(resource("requests.memory", divisor="1Mi"), "1024", id="divisor"),
        pytest.param({"name": "V", "value": "$(HOME_OF)/x $$(A) $(NONE)"}, "$(HOME_OF)/x $(A) $(NONE)", id="expanded"),
    ],
)
def test_variable_gets_its_value(entry: dict[str, Any], value: str) -> None:
    assert variables(entry) == {"V": value}


def test_later_variables_see_earlier_ones_and_those_of_whole_objects() -> None:
    found = variables(
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C_host)-$(LATER)"},
        {"name": "LATER", "value": "x"},
        {"name": "C_port", "value": "2"},
        envFrom=[{"secretRef": {"name": "s"}}, {"prefix": "C_", "configMapRef": {"name": "c"}}],
    )
    assert found == {
        "user": "ann",
        "raw": "\udcff",
        "C_host": "h",
        "C_port": "2",
        "A": "1",
        "B": "1-h-$(LATER)",
        "LATER": "x",
    }


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (secret_key("x", "k"), 'secret "x" not found'),
        (secret_key("s", "k"), "couldn't find key k in Secret demo/s"),
        (config_key("x", "k"), 'configmap "x" not found'),
        (config_key("c", "k"), "couldn't find key k in ConfigMap demo/c"),
        (config_key("c", "bin"), "couldn't find key bin in ConfigMap demo/c"),
    ],
)
def test_what_is_missing_is_said_in_kubernetes_words_unless_optional(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(CreateContainerConfigError) as refused:
        variables(entry)
    assert str(refused.value) == words
    (reference,) = entry["valueFrom"].values()
    (source,) = entry["valueFrom"]
    assert variables({"name": "V", "valueFrom": {source: {**reference, "optional": True}}}) == {}


@pytest.mark.parametrize("source", ["secretRef", "configMapRef"])
def test_whole_object_that_is_missing_is_refused_unless_optional(source: str) -> None:
    with pytest.raises(CreateContainerConfigError, match='"x" not found'):
        variables(envFrom=[{source: {"name": "x"}}])
    assert variables(envFrom=[{source: {"name": "x", "optional": True}}]) == {}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$", "$$"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("$(A)$(A)", "11"),
        ("$()", "$()"),
    ],
)
def test_references_are_expanded_as_in_kubernetes(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@given(st.text(alphabet="$(A)x"))
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def files(**volume: Any) -> dict[str, tuple[bytes, str]]:
    found = volume_files(POD, {"name": "v", **volume}, ADDRESS, THERE)
    return {file.path: (file.content, oct(file.mode)) for file in found}


def test_secret_becomes_files_that_only_their_owner_reads() -> None:
    assert files(secret={"secretName": "s"}) == {"user": (b"ann", "0o600"), "raw": (b"\xff", "0o600")}
    items = [{"key": "user", "path": "a/b"}, {"key": "raw", "path": "c", "mode": 0o444}]
    found = files(secret={"secretName": "s", "defaultMode": 0o440, "items": items})
    assert found == {"a/b": (b"ann", "0o400"), "c": (b"\xff", "0o400")}


def test_config_map_becomes_files_text_and_binary() -> None:
    found = files(configMap={"name": "c", "defaultMode": 0o640})
    assert found == {"host": (b"h", "0o640"), "port": (b"1", "0o640"), "bin": (b"\x00\xfe", "0o640")}


def test_downward_api_becomes_files() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}},
    ]
    found = files(downwardAPI={"items": items})
    assert found == {"labels": (b'a="1"\nb="say \\"x\\""', "0o644"), "cpu": (b"1500", "0o644")}


def test_projection_puts_all_sources_into_one_folder() -> None:
    sources = [
        {"secret": {"name": "s", "items": [{"key": "user", "path": "user"}]}},
        {"configMap": {"name": "c", "items": [{"key": "host", "path": "user"}]}},
        {"configMap": {"name": "none", "optional": True}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o400}]}},
    ]
    found = files(projected={"defaultMode": 0o444, "sources": sources})
    assert found == {"user": (b"h", "0o444"), "name": (b"p", "0o400")}


@pytest.mark.parametrize("kind", ["emptyDir", "hostPath", "persistentVolumeClaim"])
def test_other_volumes_begin_without_files(kind: str) -> None:
    assert files(**{kind: {}}) == {}


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"secret": {"secretName": "x"}}, 'secret "x" not found'),
        (
            {"secret": {"secretName": "s", "items": [{"key": "k", "path": "k"}]}},
            "references non-existent secret key: k",
        ),
        ({"configMap": {"name": "x"}}, 'configmap "x" not found'),
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "k"}]}},
            "configmap references non-existent config key: k",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "user", "path": "../../x"}]}},
            "invalid path ../../x: must be a relative path and not contain '..'",
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            "the local platform issues no service account tokens and no certificates",
        ),
    ],
)
def test_volume_that_cannot_be_filled_says_why(volume: dict[str, Any], words: str) -> None:
    with pytest.raises(CreateContainerConfigError) as refused:
        files(**volume)
    assert str(refused.value) == f'MountVolume.SetUp failed for volume "v" : {words}'


def test_missing_optional_volume_begins_empty() -> None:
    assert files(secret={"secretName": "x", "optional": True}) == {}
    assert files(secret={"secretName": "s", "optional": True, "items": [{"key": "k", "path": "k"}]}) == {}


def a(kind: str, **entries: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, **entries}


def test_secret_is_kept_encoded_and_its_plain_text_wins() -> None:
    stored = as_stored(a("Secret", data={"k": encoded(b"1"), "l": encoded(b"2")}, stringData={"k": "ü"}))
    assert stored == a("Secret", data={"k": encoded("ü".encode()), "l": encoded(b"2")})
    assert as_stored(stored) == stored


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (
            a("Secret", stringData={"port": 80}),
            'Secret "x" is invalid: stringData[port]: Invalid value: "...": must be a',
        ),
        (a("Secret", data={"k": "hunter2!"}), r'data[k]: Invalid value: "...": must be base64; a Secret'),
        (a("Secret", data={"../k": ""}), 'data[../k]: Invalid value: "../k": a valid config key must consist of'),
        (a("ConfigMap", data={"..": ""}), 'data[..]: Invalid value: "..": a valid config key'),
        (a("ConfigMap", data=["a"]), 'ConfigMap "x" is invalid: data: Invalid value: "...": must be an object'),
    ],
)
def test_entry_that_its_field_does_not_take_is_refused(manifest: dict[str, Any], words: str) -> None:
    with pytest.raises(Rejected) as refused:
        as_stored(manifest)
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_nothing_secret_is_in_what_is_printed() -> None:
    found = volume_files(POD, {"name": "v", "secret": {"secretName": "s"}}, ADDRESS, THERE)
    assert "ann" not in f"{found} {THERE}"
    assert encoded(b"ann") not in f"{found} {THERE}"
