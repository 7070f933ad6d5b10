"""Waiting until the Secrets and ConfigMaps are there that something is made of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from servery_kube.informer import Informer

from servery.local.configuration import Configuration, CreateContainerConfigError

Made = TypeVar("Made")


class Configurations:
    """The Secrets and ConfigMaps of every namespace, as last seen."""

    def __init__(self, secrets: Informer, config_maps: Informer) -> None:
        self._secrets, self._config_maps = secrets, config_maps
        self._changed = asyncio.Event()
        for informer in (secrets, config_maps):
            informer.subscribe(lambda _: self._tell())

    async def synced(self) -> None:
        """Return when both kinds have been listed."""
        await self._secrets.synced()
        await self._config_maps.synced()

    async def made(self, namespace: str, make: Callable[[Configuration], Made], refused: Callable[[str], None]) -> Made:
        """Return what ``make`` makes of a namespace's objects; while it cannot, tell ``refused`` why at every change."""
        while True:
            changed = self._changed
            try:
                return make(self._of(namespace))
            except CreateContainerConfigError as error:
                refused(str(error))
            await changed.wait()

    async def changes(self, namespace: str, make: Callable[[Configuration], Made]) -> AsyncIterator[Made]:
        """Yield what ``make`` makes of a namespace's objects, now and after each change; nothing while it cannot."""
        while True:
            changed = self._changed
            # What a pod was made of and is gone, it keeps.
            with contextlib.suppress(CreateContainerConfigError):
                yield make(self._of(namespace))
            await changed.wait()

    def _of(self, namespace: str) -> Configuration:
        secrets, config_maps = (
            {ref.name: found for ref, found in informer.items() if ref.namespace == namespace}
            for informer in (self._secrets, self._config_maps)
        )
        return Configuration(namespace=namespace, secrets=secrets, config_maps=config_maps)

    def _tell(self) -> None:
        before, self._changed = self._changed, asyncio.Event()
        before.set()
