"""What Secrets and ConfigMaps give to a pod: variables and the files of volumes. Pure.

Source: k8s.io/kubernetes pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables), pkg/volume/{secret,configmap,projected,
downwardapi}, third_party/forked/golang/expansion; the errors are in their words.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from servery_kube.port import Rejected
from servery_sdk import kinds, quantities
from servery_sdk.errors import FieldError, FieldErrorKind, ServeryError
from servery_sdk.manifests import Json, Manifest

_KEY = re.compile(r"(?!\.\.)(?!\.$)[-._a-zA-Z0-9]{1,253}")
_KEY_DETAIL = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")
_DEFAULT_MODE = 0o644
_HIDDEN = "..."
"""For a value in an error: it may be a password."""
_OWNER_ONLY = 0o700


class CreateContainerConfigError(ServeryError):
    """A container cannot be configured; what it names is not there. Kubernetes' own reason, and tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a volume.

    Attributes:
        path: Below the volume's directory.
        mode: Permission bits.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The Secrets and ConfigMaps of one namespace, by name, as the API server holds them."""

    namespace: str = ""
    secrets: Mapping[str, Manifest] = field(default_factory=dict, repr=False)
    config_maps: Mapping[str, Manifest] = field(default_factory=dict, repr=False)

    def secret(self, name: str) -> Mapping[str, bytes] | None:
        """Return a Secret's entries, None where it is not there."""
        found = self.secrets.get(name)
        return None if found is None else {key: base64.b64decode(v) for key, v in (found.get("data") or {}).items()}

    def config_map(self, name: str) -> Mapping[str, bytes] | None:
        """Return a ConfigMap's ``data``, None where it is not there; ``binaryData`` is for files only."""
        found = self.config_maps.get(name)
        return None if found is None else {key: v.encode() for key, v in (found.get("data") or {}).items()}

    def config_map_files(self, name: str) -> Mapping[str, bytes] | None:
        """Return all entries of a ConfigMap, None where it is not there."""
        text, found = self.config_map(name), self.config_maps.get(name)
        if text is None or found is None:
            return None
        return {**text, **{key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}}


def as_stored(manifest: Manifest) -> Manifest:
    """Return a manifest as an API server would keep it: a Secret's ``stringData`` becomes ``data``.

    Raises:
        Rejected: An entry of a Secret or ConfigMap is not what its field takes.
    """
    kind = (manifest.get("apiVersion"), manifest.get("kind"))
    if kind == (kinds.SECRET.api_version, kinds.SECRET.kind):
        _check(manifest, text=("stringData",), encoded=("data",))
        given = {
            key: base64.b64encode(text.encode()).decode() for key, text in (manifest.get("stringData") or {}).items()
        }
        rest = {name: value for name, value in manifest.items() if name not in {"data", "stringData"}}
        return {**rest, "data": {**(manifest.get("data") or {}), **given}}
    if kind == (kinds.CONFIG_MAP.api_version, kinds.CONFIG_MAP.kind):
        _check(manifest, text=("data",), encoded=("binaryData",))
    return manifest


def _check(manifest: Manifest, *, text: Iterable[str], encoded: Iterable[str]) -> None:
    errors = [
        error
        for names, is_encoded in ((text, False), (encoded, True))
        for name in names
        for error in _objections(name, manifest.get(name), is_encoded=is_encoded)
    ]
    if errors:
        name = manifest["metadata"].get("name", "")
        raise Rejected(f'{manifest["kind"]} "{name}" is invalid: ' + "; ".join(map(str, errors)))


def _objections(name: str, entries: Json, *, is_encoded: bool) -> Iterator[FieldError]:
    if entries is not None and not isinstance(entries, Mapping):
        yield FieldError(path=name, kind=FieldErrorKind.INVALID, value=_HIDDEN, detail="must be an object")
        return
    for key, value in (entries or {}).items():
        path = f"{name}[{key}]"
        if not _KEY.fullmatch(str(key)):
            yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=key, detail=_KEY_DETAIL)
        elif not isinstance(value, str):
            yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=_HIDDEN, detail="must be a string; quote it")
        elif is_encoded and not _is_base64(value):
            detail = "must be base64; a Secret's stringData and a ConfigMap's data take plain text"
            yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=_HIDDEN, detail=detail)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(re.sub(r"[\r\n]", "", text), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return ``text`` with each ``$(NAME)`` replaced; an unknown one stays, and ``$$`` is a dollar sign."""
    return _REFERENCE.sub(lambda m: "$" if m[1] is None else variables.get(m[1], m[0]), text)


def environment(pod: Manifest, container: Manifest, address: str, given: Configuration) -> dict[str, str]:
    """Return a container's variables: those of ``envFrom``, then of ``env``, each seeing the ones before it.

    Raises:
        CreateContainerConfigError: A required object or key is missing.
    """
    variables: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for key, value in _all_entries(source, given).items():
            variables[f"{source.get('prefix') or ''}{key}"] = _text(value)
    for entry in container.get("env") or ():
        if entry.get("value"):
            variables[entry["name"]] = expand(str(entry["value"]), variables)
        elif not entry.get("valueFrom"):
            variables[entry["name"]] = ""
        elif (found := _value(pod, container, entry["valueFrom"], address, given)) is not None:
            variables[entry["name"]] = found
    return variables


def _all_entries(source: Manifest, given: Configuration) -> Mapping[str, bytes]:
    if "secretRef" in source:
        reference, found = source["secretRef"], given.secret(str(source["secretRef"].get("name")))
        what = "secret"
    elif "configMapRef" in source:
        reference, found = source["configMapRef"], given.config_map(str(source["configMapRef"].get("name")))
        what = "configmap"
    else:
        raise CreateContainerConfigError("envFrom: must have one of: configMapRef, secretRef")
    return _present(what, reference, found)


def _present(what: str, reference: Manifest, found: Mapping[str, bytes] | None) -> Mapping[str, bytes]:
    if found is None and not reference.get("optional"):
        raise CreateContainerConfigError(f'{what} "{reference.get("name")}" not found')
    return found or {}


def _value(pod: Manifest, container: Manifest, source: Manifest, address: str, given: Configuration) -> str | None:
    """Return a variable's value, None where an optional one is not there."""
    if "fieldRef" in source:
        return field_value(pod, str(source["fieldRef"]["fieldPath"]), address)
    if "resourceFieldRef" in source:
        return _resource(container, source["resourceFieldRef"])
    if "secretKeyRef" in source:
        reference = source["secretKeyRef"]
        entries, what, kind = given.secret(str(reference.get("name"))), "secret", "Secret"
    elif "configMapKeyRef" in source:
        reference = source["configMapKeyRef"]
        entries, what, kind = given.config_map(str(reference.get("name"))), "configmap", "ConfigMap"
    else:
        known = "configMapKeyRef, fieldRef, resourceFieldRef, secretKeyRef"
        raise CreateContainerConfigError(f"valueFrom: must have one of: {known}")
    value = _present(what, reference, entries).get(str(reference["key"]))
    if value is not None:
        return _text(value)
    if reference.get("optional"):
        return None
    where = f"{given.namespace}/{reference.get('name')}"
    raise CreateContainerConfigError(f"couldn't find key {reference['key']} in {kind} {where}")


def field_value(pod: Manifest, path: str, address: str) -> str:
    """Return a field of the pod as the downward API gives it; one that is not there is empty."""
    if path in {"status.podIP", "status.podIPs"}:
        return address
    if path in {"status.hostIP", "status.hostIPs"}:
        return "127.0.0.1"
    if subscript := _SUBSCRIPT.fullmatch(path):
        return str((pod["metadata"].get(subscript[1]) or {}).get(subscript[2], ""))
    found: Json = pod
    for part in path.split("."):
        found = found.get(part, "") if isinstance(found, Mapping) else ""
    if isinstance(found, Mapping):
        return "\n".join(f"{key}={json.dumps(str(value))}" for key, value in sorted(found.items()))
    return str(found)


def _resource(container: Manifest, reference: Manifest) -> str:
    """Return a container's request or limit in units of ``divisor``, rounded up; zero where there is none."""
    part, _, name = str(reference["resource"]).partition(".")
    resources = container.get("resources") or {}
    # A request that is not given is the limit.
    found = (resources.get(part) or {}).get(name, (resources.get("limits") or {}).get(name, 0))
    try:
        return str(math.ceil(quantities.parse(found) / (quantities.parse(reference.get("divisor") or 1) or 1)))
    except ValueError as error:
        raise CreateContainerConfigError(f"resourceFieldRef: {reference['resource']}: {error}") from error


def _text(value: bytes) -> str:
    # As the system itself does with variables that are no text.
    return value.decode("utf-8", "surrogateescape")


def volume_files(pod: Manifest, volume: Manifest, address: str, given: Configuration) -> tuple[File, ...]:
    """Return the files that a volume begins with; none for a kind of volume that begins empty, or is somewhere else.

    Raises:
        CreateContainerConfigError: A required object or key is missing.
    """
    try:
        if "projected" in volume:
            mode = int(volume["projected"].get("defaultMode") or _DEFAULT_MODE)
            sources = volume["projected"].get("sources") or ()
            found = [file for source in sources for file in _source_files(pod, source, mode, address, given)]
        else:
            found = list(_source_files(pod, _as_source(volume), None, address, given))
    except CreateContainerConfigError as error:
        words = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
        raise CreateContainerConfigError(words) from error
    # The last source of a path wins.
    return tuple({file.path: file for file in found}.values())


def _as_source(volume: Manifest) -> Manifest:
    """Return a volume as a projection's source; only the name of a Secret is in another field."""
    if "secret" in volume:
        return {"secret": {**volume["secret"], "name": volume["secret"].get("secretName")}}
    return {kind: volume[kind] for kind in ("configMap", "downwardAPI") if kind in volume}


def _source_files(
    pod: Manifest, source: Manifest, projected_mode: int | None, address: str, given: Configuration
) -> Iterator[File]:
    if "serviceAccountToken" in source or "clusterTrustBundle" in source:
        raise CreateContainerConfigError("the local platform issues no service account tokens and no certificates")
    for kind, body in source.items():
        mode = projected_mode or int(body.get("defaultMode") or _DEFAULT_MODE)
        if kind == "downwardAPI":
            for item in body.get("items") or ():
                content = _downward(pod, item, address).encode()
                yield File(path=_inside(item["path"]), content=content, mode=int(item.get("mode") or mode))
        elif kind == "secret":
            entries = _present("secret", body, given.secret(str(body.get("name"))))
            for file in _selected(entries, body, mode, "references non-existent secret key"):
                # On a machine that people share, unlike in a container, the mode is all that guards it.
                yield File(path=file.path, content=file.content, mode=file.mode & _OWNER_ONLY)
        elif kind == "configMap":
            entries = _present("configmap", body, given.config_map_files(str(body.get("name"))))
            yield from _selected(entries, body, mode, "configmap references non-existent config key")


def _selected(entries: Mapping[str, bytes], body: Manifest, mode: int, missing: str) -> Iterator[File]:
    if not body.get("items"):
        yield from (File(path=key, content=value, mode=mode) for key, value in entries.items())
        return
    for item in body["items"]:
        if item["key"] in entries:
            yield File(path=_inside(item["path"]), content=entries[item["key"]], mode=int(item.get("mode") or mode))
        elif not body.get("optional"):
            raise CreateContainerConfigError(f"{missing}: {item['key']}")


def _downward(pod: Manifest, item: Manifest, address: str) -> str:
    if "fieldRef" in item:
        return field_value(pod, str(item["fieldRef"]["fieldPath"]), address)
    reference = item["resourceFieldRef"]
    container: Manifest = next(
        (c for c in pod["spec"]["containers"] if c["name"] == reference.get("containerName")), {}
    )
    return _resource(container, reference)


def _inside(path: str) -> str:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise CreateContainerConfigError(f"invalid path {path}: must be a relative path and not contain '..'")
    return str(relative)
