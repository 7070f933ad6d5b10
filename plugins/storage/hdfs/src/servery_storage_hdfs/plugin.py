"""The HDFS provider, as Servery finds it. Its HTTP library is imported when the first URI is met."""

from __future__ import annotations

import os
import posixpath
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from servery_sdk.errors import Permanent
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri

from servery_storage_hdfs.config import config_of

if TYPE_CHECKING:
    from servery_storage_hdfs.client import WebHdfs

_PLAIN = {"webhdfs": "http", "swebhdfs": "https"}


class HdfsProvider:
    """Files of HDFS, by WebHDFS or HttpFS.

    A datanode sends a file from an offset on, and knows no ranges of HTTP, so a file is one stream.

    Environment: ``HDFS_SECRET_DIR`` and what lies in there, ``STORAGE_CONFIG``, ``HADOOP_USER_NAME``.
    """

    name = "hdfs"
    schemes = frozenset({"hdfs", "webhdfs", "swebhdfs"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._clients: dict[str, WebHdfs] = {}

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below the directory."""
        client, cluster, path = self._at(uri)
        what = str(uri)
        if not path.startswith("/"):
            path = posixpath.join(await client.home(what), path)
        status = await client.status(path, what)
        if status["type"] == "FILE":
            yield _entry(posixpath.basename(path), f"{cluster} {path}", status)
            return
        directories = [path]
        while directories:
            directory = directories.pop()
            for found in await client.children(directory, what):
                inner = posixpath.join(directory, found["pathSuffix"])
                if found["type"] == "DIRECTORY":
                    directories.append(inner)
                elif found["type"] == "FILE":
                    relative = posixpath.relpath(inner, path)
                    yield _entry(relative, f"{cluster} {inner}", found)

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Read the file from ``offset`` on; it must be, before and after, the file that was listed."""
        cluster, _, path = entry.source.partition(" ")
        client, what = self._client(cluster), f"hdfs:/{path}"
        await self._check(client, entry, path, what)
        if offset < (entry.size_bytes or 0):
            await client.read(path, sink, offset, what)
            await self._check(client, entry, path, what)

    async def _check(self, client: WebHdfs, entry: StorageEntry, path: str, what: str) -> None:
        if entry.version != _version(await client.status(path, what)):
            raise Permanent(f"{what}: the object changed during the download")

    def _at(self, uri: StorageUri) -> tuple[WebHdfs, str, str]:
        """Return whom to ask, by what name it is known, and for which path; a relative one is of the user's home."""
        text = uri.text.partition("://")[2]
        config = config_of(self._environment)
        if config.namenodes:
            # KServe's spelling: the cluster is the secret's, and all of the URI is the path.
            return self._client(""), "", posixpath.join(config.root, text.strip("/")).rstrip("/") or "/"
        if uri.scheme in _PLAIN and uri.host:
            cluster = f"{_PLAIN[uri.scheme]}://{uri.host}"
            return self._client(cluster), cluster, f"/{uri.path.strip('/')}"
        raise Permanent(
            f"{uri}: no HDFS_NAMENODE; give the service account a secret with it (its URL of WebHDFS, as in "
            "https://namenode:9871), or write webhdfs://namenode:9870/path"
        )

    def _client(self, cluster: str) -> WebHdfs:
        from servery_storage_hdfs.client import WebHdfs

        if cluster not in self._clients:
            config = config_of(self._environment)
            self._clients[cluster] = WebHdfs(replace(config, namenodes=(cluster,)) if cluster else config)
        return self._clients[cluster]


def _entry(path: str, source: str, status: Mapping[str, Any]) -> StorageEntry:
    return StorageEntry(
        path=path, source=source, size_bytes=int(status["length"]), version=_version(status), has_ranges=False
    )


def _version(status: Mapping[str, Any]) -> str:
    """Return what changes with a file: HDFS knows no sum of its bytes, only one of its blocks' sums."""
    return f"{status.get('fileId', 0)}-{status['modificationTime']}-{status['length']}"


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute HDFS."""
    yield HdfsProvider()
