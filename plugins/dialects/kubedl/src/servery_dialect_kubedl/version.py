"""From a ModelVersion to the volume of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from servery_sdk import schema as structural
from servery_sdk.lenient import mapping, text
from servery_sdk.manifests import Json, Manifest

from servery_dialect_kubedl import schema
from servery_dialect_kubedl.kinds import LOADER, MODEL_DIRECTORY

_BUILT = "ImageBuildSucceeded"
_STORAGES = ("localStorage", "nfs", "AWSEfs")
_HOST_NAME = "kubernetes.io/hostname"
_LOADING = "/mnt/kubedl-model"
_LOCAL = "file://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """How a model's files come into a pod.

    Attributes:
        volume: The volume that holds them, its name included.
        loader: The init container that fills it; None where it is full.
        node: Labels of the node that has them.
        origin: Where they come from, for ``servery explain``.
    """

    volume: Manifest
    loader: Manifest | None = None
    node: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""


def objections(version: Manifest) -> Iterator[str]:
    """Yield why no pod can have the files of ``version``."""
    wrong = [str(error) for error in structural.check(version, schema.MODEL_VERSION)]
    if wrong or _image(version):
        yield from wrong
        return
    storage = mapping(mapping(version, "spec"), "storage")
    given = [name for name in _STORAGES if storage.get(name) is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        yield f"has no image that was built, and not exactly one storage of {', '.join(_STORAGES)}: found {found}"
        return
    found = storage[given[0]]
    path = f"spec.storage.{given[0]}"
    required = {"localStorage": ("path",), "nfs": ("server", "path"), "AWSEfs": ("volumeHandle",)}[given[0]]
    yield from (f"{path}.{name}: Required value" for name in required if not text(found, name))
    directory = text(found, "path")
    if directory and not directory.startswith(("/", _LOCAL)):
        yield f'{path}.path: Invalid value: "{directory}": must be absolute'


def files(version: Manifest | None, name: str) -> Files:
    """Return how the files of ``version`` come into a pod; of one that is not there yet, in the claim that KubeDL makes.

    Args:
        version: Without objections.
        name: Of the ModelVersion.

    Source: KubeDL controllers/serving/model.go for images. Storage without an image is ours: KubeDL waits for the image.
    """
    claim = f"mv-pvc-{name}"
    claimed = {"name": LOADER, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    if version is None:
        return Files(volume=claimed, origin=f"claim {claim}, since ModelVersion {name} is not there yet")
    if image := _image(version):
        return Files(volume={"name": LOADER, "emptyDir": {}}, loader=_loader(image), origin=f"image {image}")
    storage = mapping(mapping(version, "spec"), "storage")
    if local := mapping(storage, "localStorage"):
        # ``file://./model`` beside the manifest is how the local platform says where a directory of this machine is.
        path, node = text(local, "path").removeprefix(_LOCAL), text(local, "nodeName")
        return Files(
            volume={"name": LOADER, "hostPath": {"path": path, "type": "Directory"}},
            node={_HOST_NAME: node} if node else {},
            origin=f"directory {path} of {f'node {node}' if node else 'the node'}",
        )
    if nfs := mapping(storage, "nfs"):
        source: Json = {"server": text(nfs, "server"), "path": text(nfs, "path"), "readOnly": True}
        return Files(volume={"name": LOADER, "nfs": source}, origin=f"NFS {source['server']}:{source['path']}")
    # Its driver takes persistent volumes only, so a pod cannot name the file system itself.
    return Files(volume=claimed, origin=f"claim {claim} of {text(mapping(storage, 'AWSEfs'), 'volumeHandle')}")


def model_name(version: Manifest | None) -> str:
    """Return the name of the model, empty where nobody says."""
    return text(mapping(version or {}, "spec"), "modelName")


def _image(version: Manifest) -> str:
    status = mapping(version, "status")
    return text(status, "image") if text(status, "imageBuildPhase") == _BUILT else ""


def _loader(image: str) -> Manifest:
    return {
        "name": LOADER,
        "image": image,
        "command": ["/bin/sh", "-c", f"cp -r {MODEL_DIRECTORY}/* {_LOADING}/"],
        "volumeMounts": [{"name": LOADER, "mountPath": f"{_LOADING}/"}],
    }
