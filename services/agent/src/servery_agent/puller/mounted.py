"""KServe's mounted ConfigMap: ``models.json``, read again whenever the kubelet has swapped it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import awatch

from servery_agent.puller.assignments import Assignment, WrongAssignments, parse

logger = logging.getLogger(__name__)

FILE = "models.json"
_GATHER_MS, _STEP_MS = 200, 20
"""A swap is a few changes at once: new folder, new link, old folder gone."""
_LOOK_MS = 5000
"""A watch may miss what happens while it is being put up; then the next look finds it."""


async def mounted(folder: Path) -> AsyncIterator[tuple[Assignment, ...]]:
    """Yield what the file says, at once and whenever it says something else; what is no list changes nothing.

    A kubelet writes a folder ``..2026_…`` and swaps the link ``..data`` to it, through which ``models.json`` is read.

    Source: k8s.io/kubernetes pkg/volume/util/atomic_writer.go.
    """
    said: bytes | None = None
    async for _ in _looks(folder):
        text = _read(folder / FILE)
        if text is None or text == said:
            continue
        said = text
        try:
            models = parse(text)
        except WrongAssignments as error:
            logger.warning("assignments not taken", extra={"file": str(folder / FILE), "reason": str(error)})
        else:
            yield models


async def _looks(folder: Path) -> AsyncIterator[None]:
    yield
    if not folder.is_dir():
        logger.warning("no folder of assignments", extra={"folder": str(folder)})
        return
    watching = awatch(
        folder, debounce=_GATHER_MS, step=_STEP_MS, rust_timeout=_LOOK_MS, yield_on_timeout=True, recursive=False
    )
    async for _ in watching:
        yield


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError as error:
        # Between two swaps, or not mounted yet.
        logger.debug("assignments not read", extra={"file": str(file), "reason": str(error)})
        return None
