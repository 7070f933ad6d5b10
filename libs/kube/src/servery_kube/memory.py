"""An API server in memory: what the local platform runs on, and what tests of the controller watch."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from servery_sdk import kinds
from servery_sdk import schema as structural
from servery_sdk.manifests import CLUSTER, Json, Kind, Manifest, Namespace, ObjectRef, has_labels

from servery_kube import fields
from servery_kube.fields import BuiltIn, Declared, Manager, Owned, Shape
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

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.:]*[a-z0-9])?")


class MemoryApi:
    """Objects, versions, owners, field managers and watches as an API server keeps them.

    Args:
        crds: Definitions whose schemas check and complete the objects of their kinds.
        served: More kinds, whose objects are taken as they are.
        now: The clock, for creation times.
        fault: Called before every call with its verb; what it raises is what the caller gets.
        history_events: Changes that a watch may resume over; older ones are Expired.
    """

    def __init__(
        self,
        crds: Iterable[Manifest] = (),
        *,
        served: Iterable[Kind] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        fault: Callable[[str], None] = lambda verb: None,
        history_events: int = 10_000,
    ) -> None:
        self._served = kinds.BUILT_IN | frozenset(served)
        self._now = now
        self._fault = fault
        self._version = 0
        self._objects: dict[ObjectRef, dict[str, Json]] = {}
        self._owned: dict[ObjectRef, Owned] = {}
        self._history: deque[tuple[int, ObjectRef, WatchEvent]] = deque(maxlen=history_events)
        self._changed = asyncio.Condition()
        self._versions = {
            (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]): version
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
        self._serve(kind)
        items = tuple(
            copy.deepcopy(found)
            for ref, found in sorted(self._objects.items())
            if ref.kind == kind and namespace in (None, ref.namespace) and has_labels(found, labels or {})
        )
        return Listing(items, str(self._version))

    async def watch(
        self, kind: Kind, *, namespace: str | None = None, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after ``resource_version``."""
        self._fault("watch")
        self._serve(kind)
        seen = int(resource_version)
        while True:
            if self._history and seen + 1 < self._history[0][0]:
                raise Expired(f"resource version {seen} is too old")
            # Versions are consecutive: what was seen is skipped by its number.
            skipped = seen + 1 - self._history[0][0] if self._history else 0
            for version, ref, event in tuple(itertools.islice(self._history, skipped, None)):
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
        made = self._prepared(ref, manifest, {})
        manager = Manager(FIELD_MANAGER, "Update")
        return await self._store(ref, made, fields.update({}, made, self._shape(kind), manager, {}))

    async def apply(self, manifest: Manifest, kind: Kind, *, field_manager: str = FIELD_MANAGER) -> Manifest:
        """Server-side apply; an apply that changes nothing leaves the resource version alone."""
        self._fault("apply")
        ref = self._ref(manifest, kind)
        live, owned = self._objects.get(ref, {}), self._owned.get(ref, {})
        wanted = copy.deepcopy({key: value for key, value in manifest.items() if key != "status"})
        manager = Manager(field_manager, "Apply")
        merged, owned = fields.apply(live, wanted, self._shape(kind), manager, owned)
        completed = self._prepared(ref, merged, live)
        if live and completed == live and owned == self._owned.get(ref):
            return copy.deepcopy(live)
        return await self._store(ref, completed, owned)

    async def update(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Replace an object at the resource version that it carries."""
        self._fault("update")
        ref = self._ref(manifest, kind)
        live = self._found(ref)
        wanted = manifest["metadata"].get("resourceVersion")
        if wanted is not None and wanted != live["metadata"]["resourceVersion"]:
            raise Conflict(f"{ref}: the object has been modified; read it again")
        made = self._prepared(ref, manifest, live)
        manager = Manager(FIELD_MANAGER, "Update")
        return await self._store(ref, made, fields.update(live, made, self._shape(kind), manager, self._owned[ref]))

    async def has(self, kind: Kind) -> bool:
        """Return whether ``kind`` is Kubernetes' own, has a definition, or was asked for."""
        self._fault("has")
        return kind in self._served or (kind.api_version, kind.kind) in self._versions

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
                await self._store(ref, marked, self._owned[ref])
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
        made = {**live, "status": copy.deepcopy(dict(status))}
        manager = Manager(FIELD_MANAGER, "Update", "status")
        return await self._store(ref, made, fields.update(live, made, self._shape(ref.kind), manager, self._owned[ref]))

    def _found(self, ref: ObjectRef) -> dict[str, Json]:
        found = self._objects.get(ref)
        if found is None:
            raise NotFound(f"{ref.kind.plural} {ref.name!r} not found in namespace {ref.namespace!r}")
        return found

    def _ref(self, manifest: Manifest, kind: Kind) -> ObjectRef:
        self._serve(kind)
        metadata = manifest.get("metadata") or {}
        if not _NAME.fullmatch(str(metadata.get("name") or "")):
            raise Rejected(f"metadata.name: Invalid value: {metadata.get('name')!r}: must be a lowercase RFC 1123 name")
        namespace = Namespace(metadata.get("namespace") or "default") if kind.namespaced else CLUSTER
        return ObjectRef(kind, namespace, metadata["name"])

    def _serve(self, kind: Kind) -> None:
        if kind not in self._served and (kind.api_version, kind.kind) not in self._versions:
            raise NotFound(f"the server could not find the requested resource: {kind}")

    def _shape(self, kind: Kind) -> Shape:
        version = self._versions.get((kind.api_version, kind.kind))
        return BuiltIn() if version is None else Declared(version["schema"]["openAPIV3Schema"], is_root=True)

    def _prepared(self, ref: ObjectRef, wanted: Manifest, live: Manifest) -> dict[str, Json]:
        """Return what is stored for ``wanted``: checked, with defaults, and with the status that it may not set."""
        made = copy.deepcopy(dict(wanted))
        version = self._versions.get((ref.kind.api_version, ref.kind.kind))
        if version is None or "status" in version.get("subresources", {}):
            made.pop("status", None)
            if "status" in live:
                made["status"] = copy.deepcopy(live["status"])
        if version is None:
            return made
        schema = version["schema"]["openAPIV3Schema"]
        errors = list(structural.check(made, schema))
        if errors:
            raise Rejected(f"{ref.kind.kind} {ref.name!r} is invalid: " + "; ".join(map(str, errors)))
        completed = structural.defaulted(made, schema)
        assert isinstance(completed, dict)
        return completed

    async def _store(self, ref: ObjectRef, wanted: dict[str, Json], owned: Owned) -> Manifest:
        live = self._objects.get(ref)
        born: Manifest = {"uid": str(uuid.uuid4()), "creationTimestamp": self._timestamp(), "generation": 0}
        before = live["metadata"] if live else born
        changed = live is None or _spec(live) != _spec(wanted)
        metadata = {
            **wanted["metadata"],
            "uid": before["uid"],
            "creationTimestamp": before["creationTimestamp"],
            "generation": before["generation"] + (1 if changed else 0),
            "resourceVersion": str(self._version + 1),
            "managedFields": self._managed_fields(ref, owned),
        }
        if ref.namespace:
            metadata["namespace"] = ref.namespace
        stored = {**wanted, "metadata": metadata}
        self._objects[ref], self._owned[ref] = stored, owned
        await self._publish(ref, "ADDED" if live is None else "MODIFIED", stored)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            await self._remove(ref)
            await self._collect(metadata["uid"])
        return copy.deepcopy(stored)

    def _managed_fields(self, ref: ObjectRef, owned: Owned) -> Sequence[Manifest]:
        before = self._owned.get(ref, {})
        entries = dict(zip(before, self._objects[ref]["metadata"]["managedFields"], strict=True)) if before else {}
        written = []
        for manager, paths in owned.items():
            if before.get(manager) == paths:
                written.append(entries[manager])
                continue
            entry = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": ref.kind.api_version,
                "time": self._timestamp(),
                "fieldsType": "FieldsV1",
                "fieldsV1": fields.managed_fields(paths),
            }
            written.append({**entry, "subresource": manager.subresource} if manager.subresource else entry)
        return written

    async def _remove(self, ref: ObjectRef) -> None:
        removed = self._objects.pop(ref)
        self._owned.pop(ref, None)
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


def _spec(manifest: Manifest) -> Manifest:
    """Return what ``generation`` counts the changes of."""
    return {key: value for key, value in manifest.items() if key not in {"metadata", "status"}}
