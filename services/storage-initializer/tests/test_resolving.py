from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import StorageEntry, StorageUri
from servery_storage.engine import Engine, FetchFailed
from servery_storage.progress import JsonLines
from servery_storage.providers import FileProvider
from servery_storage.settings import Settings


class Names:
    """A provider of names for what lies elsewhere; the first time it is busy."""

    name = "names"
    schemes = frozenset({"names"})

    def __init__(self, places: dict[str, str]) -> None:
        self._places = places
        self._is_busy = True

    async def resolve(self, uri: StorageUri) -> StorageUri:
        if self._is_busy:
            self._is_busy = False
            raise Transient("busy")
        if uri.path not in self._places:
            raise Permanent(f"{uri}: nobody knows it")
        return StorageUri.parse(self._places[uri.path])

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        raise AssertionError
        yield


async def no_wait(_: float) -> None:
    return


def make_engine(places: dict[str, str]) -> Engine:
    return Engine({"names": Names(places), "file": FileProvider()}, Settings(), sleep=no_wait)


async def test_name_leads_to_another_provider(tmp_path: Path) -> None:
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "model.bin").write_bytes(b"weights")
    engine = make_engine({"iris": "names:/alias", "alias": str(tmp_path / "stored")})
    await engine.fetch("names:/iris", tmp_path / "model", JsonLines(io.StringIO()))
    assert (tmp_path / "model" / "model.bin").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({}, "names:/iris: nobody knows it"),
        ({"iris": "dbfs:/models"}, "cannot recognize storage type for dbfs:/models"),
    ],
)
async def test_name_that_leads_nowhere_is_said(tmp_path: Path, places: dict[str, str], said: str) -> None:
    with pytest.raises(FetchFailed, match=said):
        await make_engine(places).fetch("names:/iris", tmp_path / "model", JsonLines(io.StringIO()))
