"""The sink that is a folder: objects are files, whole or not there."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from servery_sdk.errors import Permanent, Transient
from servery_sdk.payloads import ObjectOutlet, SinkTarget


class FileSink:
    """``file:///folder``."""

    name = "file"
    schemes = frozenset({"file"})

    def open(self, target: SinkTarget) -> ObjectOutlet:
        """Return the way to the folder, which is made where it is missing."""
        parts = urlsplit(target.url)
        if parts.netloc not in {"", "localhost"} or not parts.path:
            raise Permanent(f"--log-url: {target.url!r}: a folder of this machine is file:///folder")
        return FileOutlet(Path(unquote(parts.path)))


class FileOutlet:
    """Writes below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, content: bytes, content_type: str) -> None:
        """Write a file."""
        try:
            await asyncio.to_thread(self._write, key, content)
        except OSError as error:
            raise Transient(f"{self._folder / key}: {error.strerror}") from error

    def _write(self, key: str, content: bytes) -> None:
        target = self._folder / key
        if ".." in target.parts:
            raise Permanent(f"{key!r} leads out of {self._folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(partial).replace(target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    async def close(self) -> None:
        """Nothing is held."""
