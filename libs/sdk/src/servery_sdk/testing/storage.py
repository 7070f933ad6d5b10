"""What every storage provider must do, whatever it reads."""

from __future__ import annotations

import asyncio
import errno
import os
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Protocol

import pytest

from servery_sdk.digests import digest_of
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import (
    Addressed,
    Refusal,
    Sink,
    StorageEntry,
    StorageProvider,
    StorageUri,
    Streamed,
    provider_of,
)
from servery_sdk.testing.servers import ServerContract

# More than a mebibyte, no two parts of it alike: providers read in pieces.
_MODEL = b"".join(number.to_bytes(4, "little") for number in range(2**18 + 2))
OBJECTS = {
    "llm/model.bin": _MODEL,
    "llm/model.bin.sha256": b"the sum",
    "llm/deep/empty": b"",
    "llm/marker/": b"",
    "llm-other/model.bin": b"other",
}
"""What ``source`` holds in a test: a name that ends in ``/`` is a directory's marker."""


class Source(Protocol):
    """A place of the provider's kind, in the tests' hands."""

    def uri(self, path: str) -> str:
        """Return the URI of an object, or of all below a directory."""

    def put(self, path: str, content: bytes) -> None:
        """Make an object, or replace it; of a path that ends in ``/``, make the directory's marker if there is such."""

    def remove(self, path: str) -> None:
        """Delete an object."""


class Bytes:
    """A sink that keeps what it gets, or fails."""

    def __init__(self, failure: OSError | None = None) -> None:
        self.data = b""
        self._failure = failure

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``."""
        if self._failure is not None:
            raise self._failure
        self.data += chunk


class StorageProviderContract:
    """Subclass it as ``Test<Provider>`` with the fixtures ``provider`` and ``source``.

    A provider that lists what lies below a prefix subclasses ``PrefixStorageContract``; one that talks to a server,
    ``RemoteStorageContract``; one that does both, both.
    """

    @pytest.fixture
    def provider(self) -> StorageProvider:
        """The provider, set up for ``source``."""
        raise NotImplementedError

    @pytest.fixture
    def source(self) -> Source:
        """An empty place."""
        raise NotImplementedError

    @pytest.fixture
    def stored(self, source: Source) -> Source:
        """The place with ``OBJECTS``."""
        for path, content in OBJECTS.items():
            source.put(path, content)
        return source

    def test_provider_answers_for_its_uris(self, provider: StorageProvider, source: Source) -> None:
        assert provider.name
        assert provider_of(StorageUri.parse(source.uri("llm/model.bin")), [provider]) is provider

    def test_uri_of_one_object_lists_that_object(self, provider: StorageProvider, stored: Source) -> None:
        (entry,) = listed(provider, stored.uri("llm/model.bin"))
        assert entry.path == "model.bin"
        assert entry.size_bytes in (None, len(_MODEL))

    def test_listing_twice_gives_the_same(self, provider: StorageProvider, stored: Source) -> None:
        uri = stored.uri("llm/model.bin")
        assert listed(provider, uri) == listed(provider, uri)

    @pytest.mark.parametrize("offset", [0, len(_MODEL) // 2 + 1, len(_MODEL)], ids=["whole", "middle", "end"])
    def test_object_is_read_from_an_offset(self, provider: StorageProvider, stored: Source, offset: int) -> None:
        (entry,) = listed(provider, stored.uri("llm/model.bin"))
        assert fetched(provider, entry, offset=offset) == _MODEL[offset:]

    def test_empty_object_is_listed_and_read(self, provider: StorageProvider, stored: Source) -> None:
        (entry,) = listed(provider, stored.uri("llm/deep/empty"))
        assert (entry.path, entry.size_bytes or 0) == ("empty", 0)
        assert fetched(provider, entry) == b""

    def test_version_stays_with_the_object_and_changes_with_it(self, provider: StorageProvider, stored: Source) -> None:
        uri = stored.uri("llm/model.bin")
        (first,), (again,) = listed(provider, uri), listed(provider, uri)
        stored.put("llm/model.bin", b"another model")
        (changed,) = listed(provider, uri)
        assert first.version == again.version
        if first.version is None:
            assert changed.version is None
        else:
            assert changed.version not in (None, first.version)
        assert fetched(provider, changed) == b"another model"

    def test_object_that_was_never_there_is_permanently_missing(
        self, provider: StorageProvider, stored: Source
    ) -> None:
        """A provider that lists prefixes may also list nothing, and leaves saying so to its caller."""
        uri = stored.uri("llm/nope")
        try:
            assert listed(provider, uri) == []
        except Permanent as missing:
            assert uri in str(missing)  # noqa: PT017  # either way is right

    def test_object_that_went_away_is_permanently_missing(self, provider: StorageProvider, stored: Source) -> None:
        (entry,) = listed(provider, stored.uri("llm/model.bin"))
        stored.remove("llm/model.bin")
        with pytest.raises(Permanent) as missing:
            fetched(provider, entry)
        assert "llm/model.bin" in str(missing.value)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EPIPE, errno.ENOENT], ids=errno.errorcode.get)
    def test_error_of_the_disk_passes_unchanged(self, provider: StorageProvider, stored: Source, number: int) -> None:
        (entry,) = listed(provider, stored.uri("llm/model.bin"))
        failure = OSError(number, os.strerror(number))
        with pytest.raises(OSError) as raised:  # noqa: PT011  # compared below
            fetched(provider, entry, sink=Bytes(failure))
        assert raised.value is failure


class PrefixStorageContract(StorageProviderContract):
    """For providers whose URIs may also name all that lies below a directory."""

    @pytest.mark.parametrize("slash", ["", "/"], ids=["bare", "slash"])
    def test_prefix_takes_all_below_it_and_never_a_sibling(
        self, provider: StorageProvider, stored: Source, slash: str
    ) -> None:
        """An empty file is a file; a directory's marker is none."""
        found = {entry.path: entry.size_bytes for entry in listed(provider, stored.uri("llm") + slash)}
        sizes = {"model.bin": len(_MODEL), "model.bin.sha256": 7, "deep/empty": 0}
        assert found.keys() == sizes.keys()
        assert all(size in (None, sizes[path]) for path, size in found.items())

    def test_prefix_listed_twice_gives_the_same(self, provider: StorageProvider, stored: Source) -> None:
        assert listed(provider, stored.uri("llm")) == listed(provider, stored.uri("llm"))

    def test_every_entry_is_read_as_what_it_is(self, provider: StorageProvider, stored: Source) -> None:
        for entry in listed(provider, stored.uri("llm")):
            assert fetched(provider, entry) == OBJECTS[f"llm/{entry.path}"], entry.path

    def test_entries_are_versioned_all_or_none(self, provider: StorageProvider, stored: Source) -> None:
        assert len({entry.version is None for entry in listed(provider, stored.uri("llm"))}) == 1

    def test_paths_are_relative_and_lead_nowhere_else(self, provider: StorageProvider, stored: Source) -> None:
        for entry in listed(provider, stored.uri("llm")):
            assert PurePosixPath(entry.path).as_posix() == entry.path, "written as a POSIX path is written"
            assert not PurePosixPath(entry.path).is_absolute(), entry.path
            assert ".." not in PurePosixPath(entry.path).parts, entry.path


class RemoteStorageContract(ServerContract, StorageProviderContract):
    """For providers that talk to a server."""

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        """Return a provider whose server would be at the loopback's ``port``, where nobody listens, and a URI."""
        raise NotImplementedError

    def test_server_that_does_not_answer_may_answer_later(
        self, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider, uri = self.unreachable(closed_port, monkeypatch)
        with pytest.raises(Transient) as failed:
            listed(provider, uri)
        assert uri in str(failed.value)


def listed(provider: StorageProvider, uri: str) -> list[StorageEntry]:
    """Return what ``provider`` lists, by path; each path once."""

    async def collect() -> list[StorageEntry]:
        return [entry async for entry in provider.list(StorageUri.parse(uri))]

    found = sorted(asyncio.run(collect()), key=lambda entry: entry.path)
    assert len({entry.path for entry in found}) == len(found)
    return found


def fetched(provider: StorageProvider, entry: StorageEntry, *, offset: int = 0, sink: Sink | None = None) -> bytes:
    """Return what ``provider`` gives of ``entry``, by its own hand or by HTTP."""
    kept = Bytes()
    if isinstance(provider, Addressed):
        _read(provider, entry, sink or kept, offset)
    else:
        assert isinstance(provider, Streamed), f"{provider.name} neither locates its objects nor fetches them"
        asyncio.run(provider.fetch(entry, sink or kept, offset=offset))
    return kept.data


def _read(provider: Addressed, entry: StorageEntry, sink: Sink, offset: int) -> None:
    """Read what was located, simply: the engine has its own way, and is tested by itself."""
    if offset and offset == entry.size_bytes:
        return  # No server sends a range of nothing.
    location = provider.locate(entry)
    headers = {**location.headers, **({"range": f"bytes={offset}-"} if offset else {})}
    try:
        # Of the test's own server.
        with urllib.request.urlopen(urllib.request.Request(location.url, headers=headers)) as answer:  # noqa: S310
            body = answer.read()
            digest = provider.digest(entry, {name.lower(): value for name, value in answer.headers.items()})
    except urllib.error.HTTPError as error:
        with error:
            refusal = Refusal(
                url=error.url,
                status=error.code,
                reason=error.reason,
                headers={name.lower(): value for name, value in error.headers.items()},
                body=error.read(),
            )
        raise provider.refused(entry, refusal) from error
    part = body[offset:] if answer.status == HTTPStatus.OK else body
    if not offset and digest is not None:
        assert digest == digest_of(digest.algorithm, part), f"the digest of {entry.path} is another's"
    sink.write(part)
