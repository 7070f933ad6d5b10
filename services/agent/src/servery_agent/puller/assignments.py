"""Which models a pod should hold, as KServe's mounted ConfigMap says it and as the controller does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from servery_sdk import quantities
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class WrongAssignments(ServeryError):
    """A list of assignments that says something that cannot be."""

    code = ErrorCode.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One model that is wanted.

    Attributes:
        name: In URLs, and of its folder.
        framework: Its format.
        memory_bytes: What it needs of the server's memory; 0 where nobody says.
    """

    name: str
    uri: str
    framework: str = ""
    memory_bytes: int = 0

    @property
    def tag(self) -> str:
        """What tells its artifact from another of the same name."""
        return hashlib.sha256(json.dumps([self.uri, self.framework]).encode()).hexdigest()[:16]


def parse(text: str | bytes) -> tuple[Assignment, ...]:
    """Return what a ``models.json`` says, in its order.

    Raises:
        WrongAssignments: It is not what KServe's controller writes; says every entry that is not.

    Source: KServe pkg/modelconfig/configmap.go: ``[{"modelName", "modelSpec": {"storageUri", "framework", "memory"}}]``.
    """
    try:
        entries = json.loads(text or "[]")
    except ValueError as error:
        raise WrongAssignments(f"models.json: is no JSON: {error}") from error
    if not isinstance(entries, list):
        raise WrongAssignments(f"models.json: must be a list, found a {type(entries).__name__}")
    objections = [words for index, entry in enumerate(entries) for words in _objections(index, entry)]
    names = [entry["modelName"] for entry in entries if not objections]
    objections += sorted({f"modelName {name!r}: is there twice" for name in names if names.count(name) > 1})
    if objections:
        raise WrongAssignments("models.json: " + "; ".join(objections))
    return tuple(_assignment(entry) for entry in entries)


def _objections(index: int, entry: Json) -> Iterator[str]:
    name = entry.get("modelName") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield f"[{index}].modelName: must be letters, digits, '-', '_' and '.', found {name!r}"
        return
    spec = entry.get("modelSpec")
    if not isinstance(spec, dict) or not isinstance(spec.get("storageUri"), str) or not spec["storageUri"]:
        yield f"[{index}].modelSpec.storageUri: must say where model {name!r} is"
        return
    try:
        quantities.parse(spec.get("memory") or 0)
    except ValueError as error:
        yield f"[{index}].modelSpec.memory: {error}"


def _assignment(entry: Json) -> Assignment:
    spec = entry["modelSpec"]
    return Assignment(
        name=entry["modelName"],
        uri=spec["storageUri"],
        framework=str(spec.get("framework") or ""),
        memory_bytes=int(quantities.parse(spec.get("memory") or 0)),
    )


class Assigned:
    """Whose word counts: the controller's while it is connected, and what it said last until the mounted file changes.

    The file is the same list, but a kubelet may take a minute to mount what the controller has pushed at once: an old
    file that comes late is no news.
    """

    def __init__(self) -> None:
        self._file: tuple[Assignment, ...] | None = None
        self._connected = False
        self.models: tuple[Assignment, ...] | None = None
        """None as long as nobody has said anything: then nothing is unloaded either."""

    def push(self, models: tuple[Assignment, ...]) -> None:
        """Take the controller's word."""
        self._connected, self.models = True, models

    def disconnect(self) -> None:
        """Know that the controller is not there."""
        self._connected = False

    def mount(self, models: tuple[Assignment, ...]) -> None:
        """Take what the file says now."""
        if models != self._file and not self._connected:
            self.models = models
        self._file = models
