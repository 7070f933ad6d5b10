"""``oci://`` URIs: an image's name, as every registry's client spells it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri

DOCKER_HUB = "docker.io"
_ORACLE = re.compile(r"n/[^/]+/b/[^/]+(/o(/.*)?)?")
_NAME = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<repository>{_NAME}(?:/{_NAME})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?"
    r"(?:@(?P<digest>(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a name names. ``version`` is a digest, or else a tag."""

    registry: str
    repository: str
    version: str

    @property
    def host(self) -> str:
        """Where the registry answers: Docker Hub's name is not its address."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry


def reference_of(uri: StorageUri) -> Reference:
    """Return what ``oci://registry/repository[:tag][@digest]`` names; Docker Hub's names may be short, as docker's are.

    Raises:
        Permanent: It is spelled otherwise, or means Oracle's object storage, as OME's ``oci://n/…/b/…/o/…`` does.
    """
    text = uri.text.partition("://")[2]
    if _ORACLE.fullmatch(text):
        raise Permanent(
            f"{uri}: this is Oracle's object storage, as OME spells it; it is read as s3:// with the endpoint of its "
            "S3 compatibility API"
        )
    first, slash, rest = text.partition("/")
    is_registry = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    registry, name = (first, rest) if is_registry else (DOCKER_HUB, text)
    found = _REFERENCE.fullmatch(name)
    if found is None:
        raise Permanent(f"{uri}: not of the form oci://<registry>/<repository>[:<tag>][@<digest>]")
    repository = found["repository"]
    if registry in {DOCKER_HUB, "index.docker.io"}:
        registry, repository = DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    return Reference(registry=registry, repository=repository, version=found["digest"] or found["tag"] or "latest")
