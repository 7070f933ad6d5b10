"""Who a registry is told that we are: docker's and podman's configuration files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servery_sdk.errors import Permanent

from servery_storage_oci.references import DOCKER_HUB, Reference

KSERVE_CONFIG = "/mnt/oci-fetch-auth/config.json"
HELPER_SECONDS = 30.0
_TOKEN_USER = "<token>"  # noqa: S105  # what a helper says in the place of a user whose secret is an identity token


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a configuration says of one registry. ``identity_token`` is changed for a token, ``registry_token`` is one."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    source: str = ""

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def config_paths(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield where configurations may be, the first to be asked first."""
    yield Path(environment.get("KSERVE_OCI_DOCKER_CONFIG") or KSERVE_CONFIG)
    if given := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(given)
    home = Path(environment.get("HOME") or "/nonexistent")
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"


def credential_for(reference: Reference, environment: Mapping[str, str] = os.environ) -> Credential | None:
    """Return what the first configuration that knows the repository or its registry says of it.

    Raises:
        Permanent: A configuration is none.

    Source: docker's config.json; containers-auth.json(5), whose keys may be of a repository or of a namespace.
    """
    for path in config_paths(environment):
        if path.is_file():
            config = _read(path)
            for key in _keys(reference):
                if (found := _of(config, key, path)) is not None:
                    return found
    return None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Permanent(f"{path}: cannot read the registries' credentials: {error}") from error
    if not isinstance(config, dict):
        raise Permanent(f"{path}: cannot read the registries' credentials: a JSON object is wanted")
    return config


def _keys(reference: Reference) -> Iterator[str]:
    """Yield the names under which a configuration may keep the credential, the most exact first."""
    parts = reference.repository.split("/")
    for length in range(len(parts), 0, -1):
        yield "/".join((reference.registry, *parts[:length]))
    yield reference.registry
    if reference.registry == DOCKER_HUB:
        yield from ("https://index.docker.io/v1/", "index.docker.io", reference.host)
    yield from (f"https://{reference.registry}", f"http://{reference.registry}", f"https://{reference.registry}/v1/")
    yield from (f"https://{reference.registry}/", f"https://{reference.registry}/v2/")


def _of(config: Mapping[str, Any], key: str, path: Path) -> Credential | None:
    helper = config.get("credHelpers", {}).get(key)
    if helper is not None:
        return _helped(helper, key)
    entry = config.get("auths", {}).get(key)
    if entry is None:
        return None
    if not entry:
        return _helped(config["credsStore"], key) if "credsStore" in config else None
    username, password = entry.get("username", ""), entry.get("password", "")
    if text := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(text, validate=True).decode().rstrip("\0").partition(":")
        except ValueError as error:
            raise Permanent(f"{path}: auths[{key!r}].auth: base64 of <user>:<password> is wanted") from error
    return Credential(
        username=username,
        password=password,
        identity_token=entry.get("identitytoken", ""),
        registry_token=entry.get("registrytoken", ""),
        source=str(path),
    )


def _helped(helper: str, key: str) -> Credential | None:
    """Return what the program ``docker-credential-<helper>`` says; None where it knows nothing of it."""
    program = f"docker-credential-{helper}"
    try:
        said = subprocess.run(  # noqa: S603  # of the user's own configuration
            [program, "get"], input=key, capture_output=True, text=True, check=False, timeout=HELPER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Permanent(f"cannot ask {program} for the credential of {key}: {error}") from error
    if said.returncode != 0:
        return None
    answer = json.loads(said.stdout)
    username, secret = answer["Username"], answer["Secret"]
    if username == _TOKEN_USER:
        return Credential(identity_token=secret, source=program)
    return Credential(username=username, password=secret, source=program)
