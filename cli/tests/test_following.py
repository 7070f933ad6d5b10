"""What counts as a change of the files that ``up`` follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from servery.session import changes


@pytest.fixture
async def next_change(tmp_path: Path) -> AsyncIterator[asyncio.Queue[None]]:
    """What is put here are changes of ``service.yaml`` and of the folder ``more``; the watch is on."""
    (tmp_path / "service.yaml").write_text("1")
    (tmp_path / "more").mkdir()
    found: asyncio.Queue[None] = asyncio.Queue()

    async def watch() -> None:
        async for change in changes([tmp_path / "service.yaml", tmp_path / "more"]):
            found.put_nowait(change)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    yield found
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_file_that_is_replaced_again_and_again_is_followed(
    tmp_path: Path, next_change: asyncio.Queue[None]
) -> None:
    for round_ in range(3):
        (tmp_path / "edited").write_text(str(round_))
        (tmp_path / "edited").replace(tmp_path / "service.yaml")
        await asyncio.wait_for(next_change.get(), 10)


async def test_file_that_comes_into_a_folder_is_a_change(tmp_path: Path, next_change: asyncio.Queue[None]) -> None:
    (tmp_path / "more" / "new.yaml").write_text("1")
    await asyncio.wait_for(next_change.get(), 10)


async def test_other_files_beside_are_none(tmp_path: Path, next_change: asyncio.Queue[None]) -> None:
    (tmp_path / "notes.txt").write_text("1")
    (tmp_path / "service.yaml").write_text("2")
    await asyncio.wait_for(next_change.get(), 10)
    # One batch, for the file that is followed; had the other one counted, it would have come first.
    assert next_change.empty()
