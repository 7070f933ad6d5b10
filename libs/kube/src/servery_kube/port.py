"""What Servery asks of an API server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json, Kind, Manifest, ObjectRef

FIELD_MANAGER = "servery"
Propagation = Literal["Background", "Foreground", "Orphan"]


class KubeError(ServeryError):
    """The API server said no, or nothing."""


class NotFound(KubeError):
    """No such object."""

    code = ErrorCode.NOT_FOUND


class AlreadyExists(KubeError):
    """There is an object of that name."""

    code = ErrorCode.INVALID_ARGUMENT


class Conflict(KubeError):
    """Somebody else changed the object, or owns the field."""

    code = ErrorCode.UNAVAILABLE


class Expired(KubeError):
    """The resource version is too old to watch from: list again (410)."""

    code = ErrorCode.UNAVAILABLE


class Rejected(KubeError):
    """The object is invalid, or admission refused it."""

    code = ErrorCode.INVALID_ARGUMENT


class Forbidden(KubeError):
    """The role does not allow it."""

    code = ErrorCode.INVALID_ARGUMENT


class TooManyRequests(KubeError):
    """Later; ``retry_after_seconds`` is what the server asks for."""

    code = ErrorCode.RESOURCE_EXHAUSTED
    retry_after_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects, and the version to watch from."""

    items: tuple[Manifest, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A change of one object."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest


class KubeApi(Protocol):
    """An API server. Every method raises ``KubeError`` or one of its kinds, and nothing else of its own."""

    async def get(self, ref: ObjectRef) -> Manifest:
        """Return one object; raises NotFound."""

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Listing:
        """Return all objects of a kind, of one namespace or of all."""

    def watch(self, kind: Kind, *, namespace: str | None = None, resource_version: str) -> AsyncIterator[WatchEvent]:
        """Yield changes after ``resource_version``, for ever; raises Expired when that is too old."""

    async def apply(self, manifest: Manifest, kind: Kind, *, field_manager: str = FIELD_MANAGER) -> Manifest:
        """Server-side apply, taking over fields that others own; return the object."""

    async def create(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Make an object; raises AlreadyExists."""

    async def update(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Replace an object at the resource version that it carries; raises Conflict where that is not the last."""

    async def has(self, kind: Kind) -> bool:
        """Return whether the server serves ``kind``."""

    async def delete(self, ref: ObjectRef, *, propagation: Propagation = "Background") -> None:
        """Delete one object; one that is not there is fine."""

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Json]) -> Manifest:
        """Replace ``.status``; return the object. Raises NotFound."""
