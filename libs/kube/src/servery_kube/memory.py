"""An API server in memory: what the local platform runs on, and what tests of the controller watch."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from servery_sdk import schema as structural
from servery_sdk.manifests import CLUSTER, Json, Kind, Manifest, Namespace, ObjectRef

from servery_kube import fields
from servery_kube.port import (
    FIELD_MANAGER,
    AlreadyExists,
    Conflict,
    Expired,
    Listing,
    NotFound,
    Propagation,
    Rejected,
    WatchEvent,
)

HISTORY_EVENTS = 10_000
"""Changes that a watch may resume over; older ones are Expired."""


class MemoryApi:
    """Objects, versions, owners and watches as an API server keeps them.

    Args:
        crds: Definitions whose schemas check the objects of their kinds.
        now: The clock, for creation times.
        fault: Called before every call with its verb; what it raises is what the caller gets.
    """

    def __init__(
        self,
        crds: Iterable[Manifest] = (),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        fault: Callable[[str], None] = lambda verb: None,
    ) -> None:
        self._now = now
        self._fault = fault
        self._version = 0
        self._objects: dict[ObjectRef, dict[str, Json]] = {}
        self._applied: dict[ObjectRef, dict[str, Manifest]] = {}
        self._history: deque[tuple[int, ObjectRef, WatchEvent]] = deque(maxlen=HISTORY_EVENTS)
        self._changed = asyncio.Condition()
        self._schemas = {
            (crd["spec"]["group"], crd["spec"]["names"]["kind"]): version["schema"]["openAPIV3Schema"]
            for crd in crds
            for version in crd["spec"]["versions"]
        }

    async def get(self, ref: ObjectRef) -> Manifest:
        """Return one object."""
        self._fault("get")
        return copy.deepcopy(self._found(ref))

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Listing:
        """Return all objects of a kind."""
        self._fault("list")
        items = tuple(
            copy.deepcopy(found)
            for ref, found in sorted(self._objects.items())
            if ref.kind == kind and namespace in (None, ref.namespace) and _selected(found, labels or {})
        )
        return Listing(items, str(self._version))

    async def watch(
        self, kind: Kind, *, namespace: str | None = None, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after ``resource_version``."""
        self._fault("watch")
        seen = int(resource_version)
        while True:
            if self._history and seen + 1 < self._history[0][0] and len(self._history) == HISTORY_EVENTS:
                raise Expired(f"resource version {seen} is too old")
            for version, ref, event in [entry for entry in self._history if entry[0] > seen]:
                seen = version
                if ref.kind == kind and namespace in (None, ref.namespace):
                    yield WatchEvent(event.type, copy.deepcopy(event.object))
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self._version > seen)  # type: ignore[misc]

    async def create(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Make an object."""
        self._fault("create")
        ref = self._ref(manifest, kind)
        if ref in self._objects:
            raise AlreadyExists(f"{ref} already exists")
        return await self._store(ref, copy.deepcopy(dict(manifest)))

    async def apply(self, manifest: Manifest, kind: Kind, *, field_manager: str = FIELD_MANAGER) -> Manifest:
        """Server-side apply; an apply that changes nothing leaves the resource version alone."""
        self._fault("apply")
        ref = self._ref(manifest, kind)
        wanted = copy.deepcopy(dict(manifest))
        applied = self._applied.setdefault(ref, {})
        live = self._objects.get(ref, {})
        merged = fields.apply(live, applied.get(field_manager, {}), wanted)
        applied[field_manager] = wanted
        if live and merged == live:
            return copy.deepcopy(live)
        return await self._store(ref, merged)

    async def update(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Replace an object at the resource version that it carries."""
        self._fault("update")
        ref = self._ref(manifest, kind)
        live = self._found(ref)
        wanted = manifest["metadata"].get("resourceVersion")
        if wanted is not None and wanted != live["metadata"]["resourceVersion"]:
            raise Conflict(f"{ref}: the object has been modified; read it again")
        return await self._store(ref, copy.deepcopy(dict(manifest)))

    async def has(self, kind: Kind) -> bool:
        """Return True for every kind: there is nothing to install."""
        self._fault("has")
        return True

    async def delete(self, ref: ObjectRef, *, propagation: Propagation = "Background") -> None:
        """Delete an object and, unless orphaned, what it owns; finalizers hold it back."""
        self._fault("delete")
        found = self._objects.get(ref)
        if found is None:
            return
        if found["metadata"].get("finalizers"):
            if "deletionTimestamp" not in found["metadata"]:
                marked = copy.deepcopy(found)
                marked["metadata"]["deletionTimestamp"] = self._timestamp()
                await self._store(ref, marked)
            return
        await self._remove(ref)
        if propagation != "Orphan":
            await self._collect(found["metadata"]["uid"])

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Json]) -> Manifest:
        """Replace ``.status``; an equal one writes nothing."""
        self._fault("patch_status")
        live = self._found(ref)
        if live.get("status") == status:
            return copy.deepcopy(live)
        return await self._store(ref, {**live, "status": copy.deepcopy(dict(status))})

    def _found(self, ref: ObjectRef) -> dict[str, Json]:
        found = self._objects.get(ref)
        if found is None:
            raise NotFound(f"{ref.kind.plural} {ref.name!r} not found in namespace {ref.namespace!r}")
        return found

    @staticmethod
    def _ref(manifest: Manifest, kind: Kind) -> ObjectRef:
        metadata = manifest.get("metadata") or {}
        if not metadata.get("name"):
            raise Rejected("metadata.name: Required value")
        namespace = Namespace(metadata.get("namespace") or "default") if kind.namespaced else CLUSTER
        return ObjectRef(kind, namespace, metadata["name"])

    async def _store(self, ref: ObjectRef, wanted: dict[str, Json]) -> Manifest:
        live = self._objects.get(ref)
        self._check(ref, wanted)
        born: Manifest = {"uid": str(uuid.uuid4()), "creationTimestamp": self._timestamp(), "generation": 0}
        before = live["metadata"] if live else born
        changed = live is None or _spec(live) != _spec(wanted)
        metadata = {
            **wanted["metadata"],
            "uid": before["uid"],
            "creationTimestamp": before["creationTimestamp"],
            "generation": before["generation"] + (1 if changed else 0),
            "resourceVersion": str(self._version + 1),
        }
        if ref.namespace:
            metadata["namespace"] = ref.namespace
        stored = {**wanted, "metadata": metadata}
        self._objects[ref] = stored
        await self._publish(ref, "ADDED" if live is None else "MODIFIED", stored)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            await self._remove(ref)
            await self._collect(metadata["uid"])
        return copy.deepcopy(stored)

    def _check(self, ref: ObjectRef, wanted: Manifest) -> None:
        schema = self._schemas.get((ref.kind.group, ref.kind.kind))
        errors = list(structural.check(wanted, schema)) if schema else []
        if errors:
            raise Rejected(f"{ref.kind.kind} {ref.name!r} is invalid: " + "; ".join(map(str, errors)))

    async def _remove(self, ref: ObjectRef) -> None:
        removed = self._objects.pop(ref)
        self._applied.pop(ref, None)
        await self._publish(ref, "DELETED", removed)

    async def _collect(self, uid: str) -> None:
        owned = [
            ref
            for ref, found in self._objects.items()
            if any(owner.get("uid") == uid for owner in found["metadata"].get("ownerReferences", ()))
        ]
        for ref in owned:
            await self.delete(ref)

    async def _publish(
        self, ref: ObjectRef, change: Literal["ADDED", "MODIFIED", "DELETED"], manifest: Manifest
    ) -> None:
        self._version += 1
        self._history.append((self._version, ref, WatchEvent(change, copy.deepcopy(manifest))))
        async with self._changed:
            self._changed.notify_all()

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _selected(manifest: Manifest, labels: Mapping[str, str]) -> bool:
    found = manifest["metadata"].get("labels") or {}
    return all(found.get(key) == value for key, value in labels.items())


def _spec(manifest: Manifest) -> Manifest:
    """Return what ``generation`` counts the changes of."""
    return {key: value for key, value in manifest.items() if key not in {"metadata", "status"}}
