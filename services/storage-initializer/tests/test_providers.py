from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from servery_sdk.storage import StorageProvider
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_storage.providers import FileProvider, HttpProvider


class Folder:
    """A directory whose clock ticks with every write: a file system's own may be too coarse for two in a row."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seconds = 0

    def uri(self, path: str) -> str:
        return f"file://{self._root}/{path}"

    def put(self, path: str, content: bytes) -> None:
        if path.endswith("/"):
            (self._root / path).mkdir(parents=True)
            return
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._seconds += 1
        os.utime(file, (self._seconds, self._seconds))

    def remove(self, path: str) -> None:
        (self._root / path).unlink()


class TestFile(PrefixStorageContract):
    @pytest.fixture
    def provider(self) -> StorageProvider:
        return FileProvider()

    @pytest.fixture
    def source(self, tmp_path: Path) -> Source:
        return Folder(tmp_path)


class Web:
    def __init__(self, site: Any) -> None:
        self._site = site

    def uri(self, path: str) -> str:
        return f"{self._site.url}/{path}"

    def put(self, path: str, content: bytes) -> None:
        self._site.files[f"/{path}"] = content

    def remove(self, path: str) -> None:
        del self._site.files[f"/{path}"]


class TestHttp(RemoteStorageContract):
    @pytest.fixture
    def provider(self) -> StorageProvider:
        return HttpProvider()

    @pytest.fixture
    def source(self, site: Any) -> Source:
        return Web(site)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return HttpProvider(), f"http://127.0.0.1:{port}/llm/model.bin"
