"""Kubernetes events: what ``kubectl describe`` shows of an object's past.

Source: client-go tools/record: the same event again raises its count instead of making another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from servery_sdk.kinds import EVENT
from servery_sdk.manifests import Manifest, Namespace, ObjectRef
from servery_sdk.model import Event

from servery_kube.port import AlreadyExists, KubeApi, KubeError

logger = logging.getLogger(__name__)

_MESSAGE_CHARACTERS = 1024
"""The API server refuses longer ones."""


class Recorder:
    """Writes events of one component.

    Args:
        component: Who says so, ``servery-controller``.
        now: The clock.
    """

    def __init__(
        self, api: KubeApi, component: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._api = api
        self._component = component
        self._now = now

    async def record(self, about: Manifest, event: Event) -> None:
        """Write ``event`` about an object. Never raises: an event that is lost must not stop the work."""
        try:
            await self._record(about, event)
        except KubeError as error:
            logger.warning("event lost", extra={"reason": event.reason, "error": str(error)})

    async def _record(self, about: Manifest, event: Event) -> None:
        metadata = about["metadata"]
        said = "\n".join((metadata.get("uid", ""), event.type, event.reason, event.message))
        name = f"{metadata['name'][:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        namespace = Namespace(metadata.get("namespace") or "default")
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        made: Manifest = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": metadata["name"],
                "namespace": metadata.get("namespace", ""),
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MESSAGE_CHARACTERS],
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        with contextlib.suppress(AlreadyExists):
            await self._api.create(made, EVENT)
            return
        found = await self._api.get(ObjectRef(EVENT, namespace, name))
        await self._api.update({**found, "count": found.get("count", 0) + 1, "lastTimestamp": now}, EVENT)
