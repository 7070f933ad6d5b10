"""How a model comes into the pod: a claim mounted, or an init container that fetches it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from servery_sdk.errors import FieldError, FieldErrorKind, Invalid
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Artifact
from servery_sdk.storage import StorageUri

from servery_controller.planning.credentials import Credentials
from servery_controller.planning.settings import PlanningSettings

INIT_CONTAINER = "storage-initializer"
VOLUME = "kserve-provision-location"
CLAIM_VOLUME = "kserve-pvc-source"
CACHE, CACHE_PATH = "storage-cache", "/var/cache/servery"
CONFIG_SECRET = "storage-config"  # noqa: S105  # a Secret's name, KServe's


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What storage adds to a pod: init containers, volumes, and mounts of every container that reads the model."""

    init_containers: tuple[Manifest, ...] = ()
    volumes: tuple[Manifest, ...] = ()
    mounts: tuple[Manifest, ...] = ()


def storage(artifacts: Sequence[Artifact], settings: PlanningSettings, given: Credentials) -> Storage:
    """Return how ``artifacts`` come into a pod, with the credentials that its service account gives.

    Raises:
        Invalid: A URI that no provider knows; says which schemes are known.
    """
    errors = [error for artifact in artifacts if (error := _objection(artifact, settings)) is not None]
    if errors:
        raise Invalid(errors)
    claims = [artifact for artifact in artifacts if _is_claim(artifact)]
    fetched = [artifact for artifact in artifacts if not _is_claim(artifact)]
    volumes: list[Manifest] = []
    mounts = []
    for index, artifact in enumerate(claims):
        name = CLAIM_VOLUME if index == 0 else f"{CLAIM_VOLUME}-{index}"
        uri = StorageUri.parse(artifact.uri or "")
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": uri.host}})
        mount: dict[str, Json] = {"name": name, "mountPath": artifact.mount_path, "readOnly": True}
        if uri.path.strip("/"):
            mount["subPath"] = uri.path.strip("/")
        mounts.append(mount)
    if not fetched:
        return Storage(volumes=tuple(volumes), mounts=tuple(mounts))
    roots = _roots([artifact.mount_path for artifact in fetched])
    named = {VOLUME if index == 0 else f"{VOLUME}-{index}": root for index, root in enumerate(roots)}
    volumes += ({"name": name, "emptyDir": {}} for name in named)
    mounts += ({"name": name, "mountPath": root, "readOnly": True} for name, root in named.items())
    volumes += cache_volumes(settings)
    return Storage(
        init_containers=(_initializer(fetched, named, settings, given),),
        volumes=(*volumes, *given.volumes),
        mounts=tuple(mounts),
    )


def _initializer(
    artifacts: Sequence[Artifact], roots: Mapping[str, str], settings: PlanningSettings, given: Credentials
) -> Manifest:
    container: dict[str, Json] = {
        "name": INIT_CONTAINER,
        "image": settings.storage_image,
        "args": [argument for artifact in artifacts for argument in (_source(artifact), artifact.mount_path)],
        "resources": settings.storage_resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [
            *({"name": name, "mountPath": root} for name, root in roots.items()),
            *cache_mounts(settings),
            *given.mounts,
        ],
    }
    own = [variable for artifact in artifacts for variable in artifact.env]
    told = (*cache_variables(settings), *given.env, *_storage_config(artifacts), *own)
    if env := with_settings(told, settings):
        container["env"] = env
    return container


def with_settings(variables: Iterable[Manifest], settings: PlanningSettings) -> list[Manifest]:
    """Return ``variables`` and the installation's: what that says of models' safety is not for a service to say otherwise."""
    # An API server refuses two variables of one name; the last counts, as in a pod.
    env = {variable["name"]: variable for variable in variables}
    env |= {name: {"name": name, "value": value} for name, value in settings.storage_env.items()}
    return list(env.values())


def cache_volumes(settings: PlanningSettings) -> Iterator[Manifest]:
    """Yield the node's cache, where the installation has one."""
    if settings.storage_cache:
        yield {"name": CACHE, "hostPath": {"path": settings.storage_cache, "type": "DirectoryOrCreate"}}


def cache_mounts(settings: PlanningSettings) -> Iterator[Manifest]:
    """Yield how who fetches sees it."""
    if settings.storage_cache:
        yield {"name": CACHE, "mountPath": CACHE_PATH}


def cache_variables(settings: PlanningSettings) -> Iterator[Manifest]:
    """Yield what tells it so."""
    if settings.storage_cache:
        yield {"name": "SERVERY_STORAGE_CACHE", "value": CACHE_PATH}
        if settings.storage_cache_bytes:
            yield {"name": "SERVERY_STORAGE_MAX_CACHE_BYTES", "value": str(settings.storage_cache_bytes)}


def _storage_config(artifacts: Sequence[Artifact]) -> Iterator[Manifest]:
    references = [artifact.storage for artifact in artifacts if artifact.storage is not None]
    if not references:
        return
    reference = references[0]
    entry = reference.key or f"default_{reference.parameters.get('type', 's3')}"
    yield {"name": "STORAGE_CONFIG", "valueFrom": {"secretKeyRef": {"name": CONFIG_SECRET, "key": entry}}}
    if reference.parameters:
        pairs = ", ".join(f'"{key}": "{value}"' for key, value in sorted(reference.parameters.items()))
        yield {"name": "STORAGE_OVERRIDE_CONFIG", "value": f"{{{pairs}}}"}


def _source(artifact: Artifact) -> str:
    if artifact.uri is not None:
        return artifact.uri
    assert artifact.storage is not None
    kind = artifact.storage.parameters.get("type", "s3")
    # The entry of the secret knows the bucket; the initializer reads both.
    bucket = artifact.storage.parameters.get("bucket", "<bucket>")
    return f"{kind}://{bucket}/{artifact.storage.path.lstrip('/')}"


def _is_claim(artifact: Artifact) -> bool:
    return (artifact.uri or "").startswith("pvc://")


def _objection(artifact: Artifact, settings: PlanningSettings) -> FieldError | None:
    if artifact.uri is None or "://" not in artifact.uri:
        return None
    scheme = artifact.uri.partition("://")[0].lower()
    if scheme == "pvc" and not StorageUri.parse(artifact.uri).host:
        detail = "names no claim: pvc://<claim>/<path>"
        return FieldError(path=artifact.field_path, kind=FieldErrorKind.INVALID, value=artifact.uri, detail=detail)
    if scheme in settings.storage_schemes | {"pvc"}:
        return None
    known = ", ".join(f'"{name}"' for name in sorted(settings.storage_schemes | {"pvc"}))
    return FieldError(
        path=artifact.field_path,
        kind=FieldErrorKind.NOT_SUPPORTED,
        value=artifact.uri,
        detail=f"supported schemes: {known}",
    )


def _roots(paths: Sequence[str]) -> list[str]:
    """Return the directories that hold all of ``paths``: one, unless only the container's own root does."""
    top: dict[str, list[str]] = {}
    for path in paths:
        top.setdefault(path.split("/")[1], []).append(path)
    return [posixpath.commonpath(below) for below in top.values()]
