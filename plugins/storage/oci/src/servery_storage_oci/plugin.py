"""The provider of models in OCI registries, as Servery finds it. Its HTTP library is imported when the first URI is met."""

from __future__ import annotations

import asyncio
import os
import platform
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from servery_sdk.digests import Digest
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri

from servery_storage_oci.credentials import credential_for
from servery_storage_oci.manifests import architecture_of, chosen, entries_of, is_index
from servery_storage_oci.references import Reference, reference_of

if TYPE_CHECKING:
    from servery_storage_oci.registry import Repository


class OciProvider:
    """Models in OCI registries: modelcar images, ORAS artifacts, ModelPack and ModelKit.

    Environment: ``KSERVE_OCI_DOCKER_CONFIG``, docker's and podman's own files after it, and
    ``KSERVE_OCI_INSECURE_REGISTRY``.
    """

    name = "oci"
    schemes = frozenset({"oci", "oci+fetch"})

    def __init__(
        self, environment: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._environment, self._clock = environment, clock
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._making = threading.Lock()

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the layers, archives among them, of what the name now is."""
        for entry in await asyncio.to_thread(self._entries, uri):
            yield entry

    def _entries(self, uri: StorageUri) -> tuple[StorageEntry, ...]:
        reference, what = reference_of(uri), str(uri)
        repository = self._repository(reference)
        document, _ = repository.manifest(reference.version, what)
        try:
            if is_index(document):
                descriptor = chosen(document, architecture_of(platform.machine()))
                document, _ = repository.manifest(descriptor["digest"], what)
            return tuple(entries_of(document, f"{reference.registry}/{reference.repository}"))
        except Permanent as error:
            raise error if what in str(error) else Permanent(f"{what}: {error}") from error
        except (LookupError, TypeError, ValueError) as error:
            raise Permanent(f"{what}: its manifest is broken: {type(error).__name__}: {error}") from error

    def locate(self, entry: StorageEntry) -> Location:
        """Return the blob's URL, with a token that lasts."""
        repository, digest = self._of(entry)
        return repository.location(digest, f"oci://{entry.source}")

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what the registry's error document says."""
        repository, _ = self._of(entry)
        return repository.refused(refusal, f"oci://{entry.source}")

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the sum by which the manifest names the blob."""
        return entry.digest

    def _of(self, entry: StorageEntry) -> tuple[Repository, str]:
        name, _, digest = entry.source.partition("@")
        registry, _, repository = name.partition("/")
        return self._repository(Reference(registry=registry, repository=repository, version=digest)), digest

    def _repository(self, reference: Reference) -> Repository:
        from servery_storage_oci.registry import Repository

        key = (reference.registry, reference.repository)
        with self._making:
            if key not in self._repositories:
                self._repositories[key] = Repository(
                    reference,
                    credential_for(reference, self._environment),
                    is_insecure=self._environment.get("KSERVE_OCI_INSECURE_REGISTRY", "").lower() in {"1", "true"},
                    clock=self._clock,
                )
            return self._repositories[key]


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute OCI registries."""
    yield OciProvider()
