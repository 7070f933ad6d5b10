"""A cache of one kind, kept true by a watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from servery_sdk.manifests import CLUSTER, Kind, Manifest, Namespace, ObjectRef

from servery_kube.port import Expired, KubeApi, KubeError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""After a watch that broke."""


class Informer:
    """Lists, watches, lists again when a watch is too old; tells subscribers of every object that changed."""

    def __init__(self, api: KubeApi, kind: Kind, *, namespace: str | None = None) -> None:
        self.kind = kind
        self._api = api
        self._namespace = namespace
        self._objects: dict[ObjectRef, Manifest] = {}
        self._subscribers: list[Callable[[Manifest], None]] = []
        self._synced = asyncio.Event()
        self._version: str | None = None

    def subscribe(self, callback: Callable[[Manifest], None]) -> None:
        """Call ``callback`` with every object that is added, changed or deleted."""
        self._subscribers.append(callback)

    async def synced(self) -> None:
        """Return when the first list is in."""
        await self._synced.wait()

    def get(self, ref: ObjectRef) -> Manifest | None:
        """Return one object as last seen."""
        return self._objects.get(ref)

    def items(self) -> Iterator[tuple[ObjectRef, Manifest]]:
        """Return every object as last seen."""
        yield from list(self._objects.items())

    async def sync(self) -> None:
        """Take the first list; ``run`` goes on from it.

        Raises:
            KubeError: The API server said no, or nothing.
        """
        self._version = await self._relist()
        self._synced.set()

    async def run(self) -> None:
        """Keep the cache true until cancelled."""
        while True:
            try:
                if self._version is None:
                    await self.sync()
                version, self._version = str(self._version), None
                async for event in self._api.watch(self.kind, namespace=self._namespace, resource_version=version):
                    self._take(event.object, deleted=event.type == "DELETED")
            except Expired:
                logger.debug("watch expired", extra={"kind": str(self.kind)})
            except KubeError as error:
                logger.warning("watch broke", extra={"kind": str(self.kind), "error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)

    async def _relist(self) -> str:
        listing = await self._api.list(self.kind, namespace=self._namespace)
        gone = self._objects.keys() - {self.ref(item) for item in listing.items}
        for ref in gone:
            self._take(self._objects[ref], deleted=True)
        for item in listing.items:
            before = self._objects.get(self.ref(item))
            version = item["metadata"].get("resourceVersion")
            if before is None or before["metadata"].get("resourceVersion") != version:
                self._take(item, deleted=False)
        return listing.resource_version

    def ref(self, manifest: Manifest) -> ObjectRef:
        """Return the reference of an object of this kind."""
        metadata = manifest["metadata"]
        namespace = Namespace(metadata.get("namespace", "")) if self.kind.namespaced else CLUSTER
        return ObjectRef(self.kind, namespace, metadata["name"])

    def _take(self, manifest: Manifest, *, deleted: bool) -> None:
        if deleted:
            self._objects.pop(self.ref(manifest), None)
        else:
            self._objects[self.ref(manifest)] = manifest
        for subscriber in self._subscribers:
            subscriber(manifest)
