"""The MLflow provider, as Servery finds it. Its HTTP library is imported when the first URI is met."""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import quote, urlsplit

from servery_sdk.digests import Digest
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri

from servery_storage_mlflow.access import Access

_STORE = "mlflow-artifacts"
_FORMS = "models:/<name>/<version>, models:/<name>@<alias>, models:/<model id>, runs:/<run id>/<path>"


class MlflowProvider:
    """Models by their names in an MLflow registry or tracking server, and the files that the server itself keeps.

    Names are resolved to where the artifacts lie, which may be another provider's: a bucket, or a directory.

    Environment: ``MLFLOW_TRACKING_URI``, ``MLFLOW_REGISTRY_URI``, and MLflow's variables for credentials and TLS.
    """

    name = "mlflow"
    schemes = frozenset({"models", "runs", _STORE})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    async def resolve(self, uri: StorageUri) -> StorageUri:
        """Return where what ``models:/…`` or ``runs:/…`` names lies now."""
        if uri.scheme == _STORE:
            return uri
        from servery_storage_mlflow import server

        access, what = Access.of(self._environment), str(uri)
        first, _, rest = uri.path.strip("/").partition("/")
        name, at, alias = first.partition("@")
        try:
            if uri.scheme == "runs" and first:
                place, rest = await server.of_run(access, first, rest, what)
            elif uri.scheme == "models" and name and at:
                place = await server.of_alias(access, name, alias, what)
            elif uri.scheme == "models" and first.startswith("m-") and not rest.partition("/")[0].isdigit():
                _, place = await server.of_logged(access, first, what)
            elif uri.scheme == "models" and name and rest:
                version, _, rest = rest.partition("/")
                place = await server.of_version(access, name, version, what)
            else:
                raise Permanent(f"{uri}: not of the forms {_FORMS}")
        except (LookupError, TypeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
            raise Permanent(f"{uri}: MLFLOW_TRACKING_URI does not answer as MLflow does: {said}") from error
        return StorageUri.parse(_joined(place, rest))

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below it, that the server itself keeps.

        The server may have to bring the whole object from its own store for each request, so ranges are not asked for.
        """
        from servery_storage_mlflow import server

        found, what = await self.resolve(uri), str(uri)
        if found.scheme != _STORE:
            raise Permanent(f"{uri}: the artifacts lie at {found}, which another provider reads")
        access = Access.of(self._environment)
        base, root = _base(access, found), found.path.strip("/")
        folders, is_empty = [root], True
        while folders:
            folder = folders.pop()
            for child in await server.listed(access, base, folder, what):
                is_empty, path = False, posixpath.join(folder, posixpath.basename(child["path"]))
                if child.get("is_dir"):
                    folders.append(path)
                else:
                    yield _entry(posixpath.relpath(path, root or "."), f"{base} {path}", child)
        if is_empty and root:
            parent, name = posixpath.split(root)
            for child in await server.listed(access, base, parent, what):
                if posixpath.basename(child["path"]) == name and not child.get("is_dir"):
                    yield _entry(name, f"{base} {root}", child)

    def locate(self, entry: StorageEntry) -> Location:
        """Return the file's URL at the server."""
        from servery_storage_mlflow import server

        access = Access.of(self._environment)
        base, _, path = entry.source.partition(" ")
        return Location(url=f"{base}{server.ARTIFACTS}/{quote(path)}", headers=access.headers, tls=access.tls)

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what the server's error document says."""
        from servery_storage_mlflow import server

        return server.failure(refusal, f"{_STORE}:/{entry.source.partition(' ')[2]}")

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return None: MLflow keeps no sums."""
        return None


def _entry(path: str, source: str, found: Mapping[str, object]) -> StorageEntry:
    size = found.get("file_size")
    return StorageEntry(
        path=path, source=source, size_bytes=int(str(size)) if size is not None else None, has_ranges=False
    )


def _base(access: Access, uri: StorageUri) -> str:
    """Return the URL of the server that keeps the artifacts: the tracking server, where the URI names none."""
    if not uri.host:
        return access.tracking_url
    return f"{urlsplit(access.tracking_url).scheme}://{uri.host}"


def _joined(place: str, path: str) -> str:
    """Return the URI of a path below a place. A store behind the server's own address is spelled as MLflow does."""
    from servery_storage_mlflow import server

    parts = urlsplit(place)
    if parts.scheme in {"http", "https"} and parts.path.startswith(f"{server.ARTIFACTS}/"):
        place = f"{_STORE}://{parts.netloc}{parts.path.removeprefix(server.ARTIFACTS)}"
    return f"{place.rstrip('/')}/{quote(path) if ':/' in place else path}" if path else place


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute MLflow."""
    yield MlflowProvider()
