"""What a manifest says of a model: which parts it has, and how they become a tree. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageEntry, Unpack

ACCEPTED = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MODELCAR_DIRECTORY = "models"
_IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
# The file's path in the model: of ORAS, of ModelPack, and of ModelPack when it was called otherwise.
_PATHS = ("org.opencontainers.image.title", "org.cncf.model.filepath", "org.cnai.model.filepath")
_DIRECTORY = "io.deis.oras.content.unpack"
_EMPTY = "application/vnd.oci.empty.v1+json"
_TAR = re.compile(r".*[./]tar(?:[.+](?:gzip|zstd))?")
# ModelPack, ModelKit and Docker's own: their tars hold paths of the model, whatever else is said.
_MODEL_TAR = re.compile(
    r"application/vnd\.(?:cncf\.model|cnai\.model|kitops|jozu|docker\.ai)\..*\.tar(?:\+(?:gzip|zstd))?"
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


def architecture_of(machine: str) -> str:
    """Return the registries' word for what the kernel calls the machine."""
    return _ARCHITECTURES.get(machine, machine)


def is_index(document: Mapping[str, Any]) -> bool:
    """Return whether it lists manifests instead of layers."""
    return "manifests" in document


def chosen(index: Mapping[str, Any], architecture: str) -> Mapping[str, Any]:
    """Return the manifest's descriptor for Linux on ``architecture``.

    A model's files are the same on every machine, so the only one there is will do.

    Raises:
        Permanent: There are several, and none for this machine.
    """
    manifests = [found for found in index["manifests"] if not _is_attestation(found)]
    for found in manifests:
        platform = found.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return dict(found)
    if len(manifests) == 1:
        return dict(manifests[0])
    said = ", ".join(sorted({_platform(found) for found in manifests})) or "none"
    raise Permanent(f"the index has no manifest for linux/{architecture}; it has {said}")


def entries_of(manifest: Mapping[str, Any], repository: str) -> Iterator[StorageEntry]:
    """Yield the model's parts. ``repository`` with its registry begins each one's source.

    Raises:
        Permanent: It is no manifest of a model, or a layer's kind is not known.

    Source: KServe, "modelcars", whose model lies in ``/models``; ORAS, files by title and directories to be unpacked;
    the ModelPack specification; KitOps, "ModelKit".
    """
    layers = manifest.get("layers")
    if not isinstance(layers, Sequence):
        raise Permanent(f"{repository}: neither an image's manifest nor an artifact's (schema 1 is not read)")
    is_image = (manifest.get("config") or {}).get("mediaType") in _IMAGE_CONFIGS
    for order, layer in enumerate(layers):
        kind, annotations = str(layer["mediaType"]), layer.get("annotations") or {}
        path = next((annotations[name] for name in _PATHS if annotations.get(name)), None)
        if annotations.get(_DIRECTORY) == "true" or _MODEL_TAR.fullmatch(kind):
            yield _entry(layer, repository, _archive_path(order, layer), Unpack(order=order))
        elif path is not None:
            yield _entry(layer, repository, PurePosixPath(path).as_posix(), None)
        elif _TAR.fullmatch(kind):
            below = MODELCAR_DIRECTORY if is_image else ""
            unpack = Unpack(order=order, below=below, has_whiteouts=is_image)
            yield _entry(layer, repository, _archive_path(order, layer), unpack)
        elif kind != _EMPTY:
            raise Permanent(
                f"{repository}: the layer {layer['digest']} of type {kind!r} is neither an archive nor named "
                f"(by {_PATHS[0]} or {_PATHS[1]})"
            )


def digest_of(text: str) -> Digest:
    """Return the digest that ``sha256:…`` spells.

    Raises:
        Permanent: It spells none that is known.
    """
    algorithm, _, value = text.partition(":")
    if algorithm not in {DigestAlgorithm.SHA256, DigestAlgorithm.SHA512}:
        raise Permanent(f"{text!r} is no digest of a known algorithm (sha256, sha512)")
    return Digest.of_hex(DigestAlgorithm(algorithm), value)


def _entry(layer: Mapping[str, Any], repository: str, path: str, unpack: Unpack | None) -> StorageEntry:
    return StorageEntry(
        path=path,
        source=f"{repository}@{layer['digest']}",
        size_bytes=int(layer["size"]),
        version=layer["digest"],
        digest=digest_of(layer["digest"]),
        unpack=unpack,
    )


def _archive_path(order: int, layer: Mapping[str, Any]) -> str:
    """Return a name that no other entry has: the same layer may be there twice."""
    return f"{order:03}-{layer['digest'].partition(':')[2][:16]}.layer"


def _is_attestation(descriptor: Mapping[str, Any]) -> bool:
    return (descriptor.get("annotations") or {}).get("vnd.docker.reference.type") == "attestation-manifest"


def _platform(descriptor: Mapping[str, Any]) -> str:
    platform = descriptor.get("platform") or {}
    return "/".join(str(platform[part]) for part in ("os", "architecture", "variant") if platform.get(part)) or "any"
