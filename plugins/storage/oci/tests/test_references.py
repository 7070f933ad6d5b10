from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri
from servery_storage_oci.credentials import Credential, credential_for
from servery_storage_oci.references import Reference, reference_of

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "version"),
    [
        ("oci://ghcr.io/acme/iris", "ghcr.io", "acme/iris", "latest"),
        ("oci://ghcr.io/acme/iris:v1", "ghcr.io", "acme/iris", "v1"),
        (f"oci://ghcr.io/acme/iris@{DIGEST}", "ghcr.io", "acme/iris", DIGEST),
        (f"oci://ghcr.io/acme/iris:v1@{DIGEST}", "ghcr.io", "acme/iris", DIGEST),
        ("oci://127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000", "a/b/c", "v1"),
        ("oci://localhost/iris", "localhost", "iris", "latest"),
        ("oci+fetch://acme/iris:v1", "docker.io", "acme/iris", "v1"),
        ("oci://iris", "docker.io", "library/iris", "latest"),
        (f"oci://iris@{DIGEST}", "docker.io", "library/iris", DIGEST),
        ("oci://docker.io/iris", "docker.io", "library/iris", "latest"),
    ],
)
def test_name_is_read_as_docker_reads_it(text: str, registry: str, repository: str, version: str) -> None:
    found = reference_of(StorageUri.parse(text))
    assert (found.registry, found.repository, found.version) == (registry, repository, version)


@pytest.mark.parametrize(
    "text", ["oci://", "oci://ghcr.io/", "oci://ghcr.io/Acme", "oci://a.b/../c", "oci://a.b/c@md5:1"]
)
def test_name_that_is_none_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(Permanent) as refused:
        reference_of(StorageUri.parse(text))
    assert str(refused.value) == f"{text}: not of the form oci://<registry>/<repository>[:<tag>][@<digest>]"


@pytest.mark.parametrize("text", ["oci://n/acme/b/models/o/llm", "oci://n/acme/b/models"])
def test_oracle_s_object_storage_is_not_taken_for_a_registry(text: str) -> None:
    with pytest.raises(Permanent, match="this is Oracle's object storage, as OME spells it"):
        reference_of(StorageUri.parse(text))


def credential(tmp_path: Path, config: object, repository: str = "acme/iris", registry: str = "ghcr.io") -> Credential:
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    reference = Reference(registry=registry, repository=repository, version="latest")
    found = credential_for(reference, {"KSERVE_OCI_DOCKER_CONFIG": str(path), "PATH": str(tmp_path)})
    assert found is not None
    return found


def pair(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def test_docker_hub_is_known_by_its_old_name(tmp_path: Path) -> None:
    config = {"auths": {"https://index.docker.io/v1/": pair("me:it")}}
    assert credential(tmp_path, config, registry="docker.io").basic == "Basic bWU6aXQ="


def test_nearest_name_wins(tmp_path: Path) -> None:
    config = {"auths": {"ghcr.io": pair("all:1"), "ghcr.io/acme/iris": pair("one:1"), "ghcr.io/acme": pair("some:1")}}
    assert credential(tmp_path, config).username == "one"
    assert credential(tmp_path, config, "acme/other").username == "some"
    assert credential(tmp_path, config, "acmes/iris").username == "all"


def test_registry_token_is_read(tmp_path: Path) -> None:
    assert credential(tmp_path, {"auths": {"ghcr.io": {"registrytoken": "t"}}}).registry_token == "t"


@pytest.mark.parametrize(
    "config", [{"credHelpers": {"ghcr.io": "here"}}, {"auths": {"ghcr.io": {}}, "credsStore": "here"}]
)
@pytest.mark.parametrize(("user", "token"), [("me", ""), ("<token>", "it")])
def test_helper_is_asked(
    tmp_path: Path, config: object, user: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker-credential-here"
    program.write_text(f"""#!/bin/sh\necho '{{"Username": "{user}", "Secret": "it"}}'\n""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = credential(tmp_path, config)
    assert (found.identity_token, found.source) == (token, "docker-credential-here")


@pytest.mark.parametrize("config", ["{", "[]", '{"auths": {"ghcr.io": {"auth": "?"}}}'])
def test_configuration_that_is_none_is_said(tmp_path: Path, config: str) -> None:
    with pytest.raises(Permanent, match=r"config\.json: "):
        credential(tmp_path, config)


def test_helper_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"cannot ask docker-credential-gone for the credential of ghcr\.io: "):
        credential(tmp_path, {"credHelpers": {"ghcr.io": "gone"}})
