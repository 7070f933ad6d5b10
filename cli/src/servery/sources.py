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
        Unreadable: Says every file and what is wrong with it.
    """
    return [manifest for _, manifest in _all(sources)]


def examine(sources: Iterable[str]) -> tuple[list[Manifest], list[str]]:
    """Return every manifest of ``sources``, and what is wrong with files and documents that hold none."""
    problems: list[str] = []
    return [manifest for source in sources for _, manifest in _documents(source, problems)], problems


def read_for_here(sources: Iterable[str], namespace: str = DEFAULT_NAMESPACE) -> list[Manifest]:
    """Return the manifests as they run on this machine: in a namespace, ``file://.`` made absolute.

    A storage URI ``file://./model`` or ``file://../model`` is looked up beside the file that says it. That is the only
    thing in which a manifest for this machine may differ from one for a cluster.
    """
    return [_placed(_absolute(manifest, folder), namespace) for folder, manifest in _all(sources)]


def files(sources: Iterable[str]) -> list[Path]:
    """Return the files and folders to watch."""
    return [Path(source) for source in sources if source != "-"]


def reference(kind: Kind, manifest: Manifest) -> ObjectRef:
    """Return the reference of an object of ``kind``."""
    metadata = manifest["metadata"]
    namespace = Namespace(metadata.get("namespace") or DEFAULT_NAMESPACE) if kind.namespaced else CLUSTER
    return ObjectRef(kind, namespace, metadata["name"])


def _all(sources: Iterable[str]) -> list[tuple[Path, Manifest]]:
    problems: list[str] = []
    found = [document for source in sources for document in _documents(source, problems)]
    if problems:
        raise Unreadable("\n".join(problems))
    return found


def _documents(source: str, problems: list[str]) -> Iterator[tuple[Path, Manifest]]:
    if source == "-":
        yield from ((Path.cwd(), manifest) for manifest in _parsed(sys.stdin.read(), "standard input", problems))
        return
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not found:
            problems.append(f"{source}: no {', '.join(sorted(SUFFIXES))} file in this folder")
    else:
        found = [path]
    for file in found:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}")
            continue
        # A folder of examples holds requests beside manifests; a file that is named must hold manifests.
        for manifest in _parsed(text, str(file), problems, strict=not path.is_dir()):
            yield file.resolve().parent, manifest


def _parsed(text: str, where: str, problems: list[str], *, strict: bool = True) -> Iterator[Manifest]:
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        problems.append(f"{where}: is not YAML: {error}")
        return
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        if isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items", ())
        elif isinstance(document, dict) and "apiVersion" in document and "kind" in document:
            if not isinstance(document.get("metadata"), dict) or not document["metadata"].get("name"):
                problems.append(f"{where}: document {number}: metadata.name: Required value")
            else:
                yield document
        elif strict:
            problems.append(
                f"{where}: document {number} is no manifest: it needs apiVersion, kind and metadata.name; "
                f"found {_found(document)}"
            )


def _found(document: Json) -> str:
    if isinstance(document, dict):
        return f"an object with {', '.join(map(str, document)) or 'nothing'}"
    return f"a {'list' if isinstance(document, list) else 'value'}"


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
