"""One of several processes leads: who holds a Lease.

Source: client-go tools/leaderelection: clocks are never compared; a lease is over when it has not changed for its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from servery_sdk.kinds import LEASE
from servery_sdk.manifests import Manifest, Namespace, ObjectRef

from servery_kube.port import AlreadyExists, Conflict, KubeApi, KubeError, NotFound

logger = logging.getLogger(__name__)


class LeadershipLost(KubeError):
    """Somebody else may lead by now: stop at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """Where and how leadership is decided.

    Attributes:
        identity: Of this process, unique.
        lease_seconds: How long a leader that is silent is still believed.
        renew_seconds: How often a leader speaks, and a follower looks.
    """

    name: str
    namespace: str
    identity: str
    lease_seconds: float = 15.0
    renew_seconds: float = 2.0


async def lead(api: KubeApi, election: Election, work: Callable[[], Awaitable[None]]) -> None:
    """Wait until this process leads, then run ``work`` for as long as it does; the lease is given back at the end.

    Raises:
        LeadershipLost: The lease could not be renewed in time.
    """
    holder = _Holder(api, election)
    while not await holder.acquired():  # noqa: ASYNC110  # another process changes it
        await asyncio.sleep(election.renew_seconds)
    logger.info("leading", extra={"identity": election.identity})
    working = asyncio.ensure_future(work())
    keeping = asyncio.create_task(holder.keep(), name="lease")
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
        await working
    finally:
        for task in (working, keeping):
            task.cancel()
        await asyncio.gather(working, keeping, return_exceptions=True)
        await holder.release()


class _Holder:
    def __init__(self, api: KubeApi, election: Election) -> None:
        self._api = api
        self._election = election
        self._ref = ObjectRef(LEASE, Namespace(election.namespace), election.name)
        self._seen: tuple[str, float] = ("", 0.0)

    async def acquired(self) -> bool:
        """Take the lease if it is free, over, or ours."""
        loop = asyncio.get_running_loop()
        try:
            lease = await self._api.get(self._ref)
        except NotFound:
            return await self._create()
        except KubeError as error:
            logger.warning("lease cannot be read", extra={"error": str(error)})
            return False
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, loop.time())
        holder = lease["spec"].get("holderIdentity") or ""
        is_over = loop.time() - self._seen[1] >= self._election.lease_seconds
        if holder not in {"", self._election.identity} and not is_over:
            return False
        return await self._take(lease, self._election.identity)

    async def keep(self) -> None:
        """Renew until that fails for the lease's time."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while loop.time() - renewed < self._election.lease_seconds * 2 / 3:
            await asyncio.sleep(self._election.renew_seconds)
            try:
                lease = await self._api.get(self._ref)
                if lease["spec"].get("holderIdentity") != self._election.identity:
                    break
                if await self._take(lease, self._election.identity):
                    renewed = loop.time()
            except KubeError as error:
                logger.warning("lease cannot be renewed", extra={"error": str(error)})
        raise LeadershipLost(f"lease {self._election.name}: not renewed in time")

    async def release(self) -> None:
        """Let the next one lead without waiting."""
        try:
            lease = await self._api.get(self._ref)
            if lease["spec"].get("holderIdentity") == self._election.identity:
                await self._take(lease, "")
        except KubeError as error:
            logger.info("lease not given back", extra={"error": str(error)})

    async def _create(self) -> bool:
        manifest: Manifest = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._election.name, "namespace": self._election.namespace},
            "spec": self._spec(self._election.identity),
        }
        try:
            await self._api.create(manifest, LEASE)
        except AlreadyExists:
            return False
        return True

    async def _take(self, lease: Manifest, identity: str) -> bool:
        try:
            await self._api.update({**lease, "spec": {**lease["spec"], **self._spec(identity)}}, LEASE)
        except Conflict:
            return False
        return True

    def _spec(self, identity: str) -> Manifest:
        return {
            "holderIdentity": identity,
            "leaseDurationSeconds": int(max(1, self._election.lease_seconds)),
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
