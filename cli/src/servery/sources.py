"""Manifests from files, folders and standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from servery_sdk import kinds
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import CLUSTER, Json, Kind, Manifest, Namespace, ObjectRef

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
DEFAULT_NAMESPACE = "default"
NAMED = {
    (kind.api_version, kind.kind): kind
    for kind in (kinds.SECRET, kinds.CONFIG_MAP, kinds.SERVICE_ACCOUNT, kinds.PERSISTENT_VOLUME_CLAIM)
}
"""Kinds of objects that services name, and that a file may hold beside them."""


class Unreadable(ServeryError):
    """A file that is not there, or holds no manifests."""


def read(sources: Iterable[str]) -> list[Manifest]:
    """Return every manifest of ``sources`` as written: files, folders (one level), or ``-``.

    Raises:
        Unreadable: Says the file and what is wrong with it.
    """
    return [manifest for source in sources for _, manifest in _documents(source)]


def read_for_here(sources: Iterable[str], namespace: str = DEFAULT_NAMESPACE) -> list[Manifest]:
    """Return the manifests as they run on this machine: in a namespace, ``file://.`` made absolute.

    A storage URI ``file://./model`` or ``file://../model`` is looked up beside the file that says it. That is the only
    thing in which a manifest for this machine may differ from one for a cluster.
    """
    return [
        _placed(_absolute(manifest, folder), namespace) for source in sources for folder, manifest in _documents(source)
    ]


def files(sources: Iterable[str]) -> list[Path]:
    """Return the files and folders to watch."""
    return [Path(source) for source in sources if source != "-"]


def reference(kind: Kind, manifest: Manifest) -> ObjectRef:
    """Return the reference of an object of ``kind``."""
    metadata = manifest["metadata"]
    namespace = Namespace(metadata.get("namespace") or DEFAULT_NAMESPACE) if kind.namespaced else CLUSTER
    return ObjectRef(kind, namespace, metadata["name"])


def _documents(source: str) -> Iterator[tuple[Path, Manifest]]:
    if source == "-":
        yield from ((Path.cwd(), manifest) for manifest in _parsed(sys.stdin.read(), "standard input"))
        return
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not found:
            raise Unreadable(f"{source}: no {', '.join(sorted(SUFFIXES))} file in this folder")
    else:
        found = [path]
    for file in found:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Unreadable(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        # A folder of examples holds requests beside manifests; a file that is named must hold manifests.
        for manifest in _parsed(text, str(file), strict=not path.is_dir()):
            yield file.resolve().parent, manifest


def _parsed(text: str, where: str, *, strict: bool = True) -> Iterator[Manifest]:
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise Unreadable(f"{where}: is not YAML: {error}") from error
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items", ())
        elif isinstance(document, dict) and "apiVersion" in document and "kind" in document:
            if not isinstance(document.get("metadata"), dict) or not document["metadata"].get("name"):
                raise Unreadable(f"{where}: document {number}: metadata.name: Required value")
            yield document
        elif strict:
            raise Unreadable(f"{where}: document {number} is no manifest: it needs apiVersion, kind and metadata.name")


def _placed(manifest: Manifest, namespace: str) -> Manifest:
    # A cluster-scoped object keeps to none.
    if str(manifest["kind"]).startswith("Cluster"):
        return manifest
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "namespace": metadata.get("namespace", namespace)}}


def _absolute(value: Json, folder: Path) -> Json:
    if isinstance(value, dict):
        return {key: _absolute(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_absolute(inner, folder) for inner in value]
    if isinstance(value, str) and value.startswith(("file://./", "file://../")):
        return (folder / value.removeprefix("file://")).resolve().as_uri()
    return value
