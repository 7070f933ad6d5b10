"""One fetch of safetensors and its load into memory, as ``bench/storage.py --cases load`` times them; prints JSON.

Run: ``python bench/storage_load.py MODE SOURCE TARGET``. ``then`` loads when the model is in place, as a predictor behind
an init container does. ``cold`` lets the page cache forget the model in between, as after a restart of the machine.
``while`` loads each shard as soon as its last byte is there, from the staging directory: the most that a runtime could
gain that asks for a stream or a lazy directory. ``in-turn`` is that with the shards fetched one after the other.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import boto3  # noqa: F401  # not timed
import torch
from safetensors import safe_open
from servery_sdk.storage import StorageEntry
from servery_storage import mover
from servery_storage.engine import Engine
from servery_storage.plan import Piece
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from servery_storage.staging import Staging
from servery_storage_s3.plugin import S3Provider


class Telling(JsonLines):
    """Has each shard loaded when all of its bytes came."""

    def __init__(self, staging: Staging, loaders: ThreadPoolExecutor) -> None:
        super().__init__(io.StringIO())
        self._staging, self._loaders = staging, loaders
        self._came: Counter[str] = Counter()
        self.loading: list[Future[Mapping[str, torch.Tensor]]] = []

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        super().advance(entry, size_bytes)
        with self._lock:
            self._came[entry.path] += size_bytes
            is_whole = self._came[entry.path] == entry.size_bytes
        if is_whole:
            # Mapped before it is renamed into place.
            self.loading.append(self._loaders.submit(copied, mapped(self._staging.path(entry))))


def mapped(path: str) -> Mapping[str, torch.Tensor]:
    """Return a file's tensors as the page cache has them; nothing is read."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping


def copied(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Return tensors in memory of their own, as a cast or a device's copy makes them."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def forget(paths: Iterable[str]) -> None:
    """Let the page cache forget files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def in_turn(pieces: Iterable[Piece]) -> list[Piece]:
    """Return the pieces object by object."""
    return sorted(pieces, key=lambda piece: (piece.entry.path, piece.offset))


def main(mode: str, source: str, target: Path) -> None:
    """Fetch, load, print."""
    if mode == "in-turn":
        mover.in_order = in_turn  # type: ignore[attr-defined]  # what is measured is whether it should be so
    engine = Engine({"s3": S3Provider()}, Settings())
    with ThreadPoolExecutor(2) as loaders:
        progress = (
            Telling(Staging(source, target), loaders) if mode in {"while", "in-turn"} else JsonLines(io.StringIO())
        )
        began = time.perf_counter()
        asyncio.run(engine.fetch(source, target, progress))
        fetched = time.perf_counter()
        paths = [str(path) for path in sorted(target.glob("*.safetensors"))]
        if mode == "cold":
            forget(paths)
        again = time.perf_counter()
        if isinstance(progress, Telling):
            held = [future.result() for future in progress.loading]
            mapped_at = again
        else:
            tensors = [mapped(path) for path in paths]
            mapped_at = time.perf_counter()
            held = list(loaders.map(copied, tensors))
        ended = time.perf_counter()
    assert len(held) == len(paths)
    took = {"fetch": fetched - began, "map": mapped_at - again, "load": ended - mapped_at}
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
