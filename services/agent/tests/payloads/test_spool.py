"""The spool keeps what was written, whatever happened to who wrote it; what it cannot keep it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.reading import Reading
from servery_agent.payloads.records import Record, head_of, records_of
from servery_agent.payloads.segments import (
    Block,
    Segment,
    head_of_block,
    last_number,
    path_of,
    segments,
    spares,
)
from servery_agent.payloads.spool import Batch, Spool
from servery_sdk.payloads import Part
from waiting import until


def head(number: int, body: bytes, *, part: Part = Part.REQUEST, identified: bytes = b"id") -> bytes:
    return head_of(number, part, 1.5, 200, identified, b"a/b", b"/p", b"{}", len(body), is_whole=True)


def block_of(pieces: list[bytes], first: int, count: int) -> bytes:
    return b"".join([head_of_block(pieces, first, count), *pieces])


def block_at(path: Path, offset: int) -> Block | None:
    segment = Segment(path)
    try:
        return segment.block(offset)
    finally:
        segment.close()


def make_batch(first: int, bodies: Sequence[bytes]) -> Batch:
    batch = Batch(first)
    for number, body in enumerate(bodies, start=first):
        batch.add(head(number, body), body)
    return batch


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def spooled(folder: Path, ledger: Ledger, *batches: Batch, max_bytes: int = 2**30) -> None:
    spool = Spool(folder, ledger, max_bytes, lambda: None)
    for batch in batches:
        spool.put(batch)
    spool.close()


async def read_all(reading: Reading, *, settles: bool = True) -> list[Record]:
    reading.is_ending = True
    found = []
    while (record := await reading.next()) is not None:
        found.append(record)
        if settles:
            reading.settle((record,))
    return found


texts = st.binary(max_size=20)


@given(st.lists(st.tuples(texts, texts, texts, texts, texts, st.sampled_from(Part), st.booleans()), max_size=5))
def test_records_come_out_as_they_went_in(given: list[tuple[bytes, bytes, bytes, bytes, bytes, Part, bool]]) -> None:
    block = b"".join(
        head_of(number, part, 2.5, 404, identified, kind, path, metadata, len(body), is_whole=is_whole) + body
        for number, (identified, kind, path, metadata, body, part, is_whole) in enumerate(given)
    )
    found = [
        (
            one.id.encode("latin-1"),
            one.content_type.encode("latin-1"),
            one.subject.encode("latin-1"),
            one.metadata,
            one.body,
            one.part,
            one.is_whole,
        )
        for one in records_of(block)
    ]
    assert found == given
    assert [one.number for one in records_of(block)] == list(range(len(given)))


async def test_what_is_written_is_read_in_its_order_and_its_segments_go(tmp_path: Path, ledger: Ledger) -> None:
    bodies = [b"%d" % number * 1000 for number in range(300)]
    # 64 KiB a segment, the least there is.
    spooled(
        tmp_path, ledger, *(make_batch(1 + 10 * n, bodies[10 * n : 10 * n + 10]) for n in range(30)), max_bytes=2**20
    )
    assert len(segments(tmp_path)) > 5
    found = await read_all(Reading(tmp_path, ledger))
    assert [record.body for record in found] == bodies
    assert [record.number for record in found] == list(range(1, 301))
    assert len(segments(tmp_path)) == 1
    assert ledger[Count.SETTLED] == ledger[Count.ACCOUNTED] == 300


async def test_next_reader_goes_on_behind_what_was_settled(tmp_path: Path, ledger: Ledger) -> None:
    spooled(tmp_path, ledger, make_batch(1, [b"a", b"b", b"c", b"d"]))
    reading = Reading(tmp_path, ledger)
    first, _, third = [await reading.next() for _ in range(3)]
    assert first is not None
    assert third is not None
    reading.settle((third,))
    assert ledger[Count.SETTLED] == 0, "what came before is still on its way"
    reading.settle((first,))
    assert ledger[Count.SETTLED] == 1
    assert [record.body for record in await read_all(Reading(tmp_path, ledger))] == [b"b", b"c", b"d"]


async def test_reader_waits_for_what_is_written_later(tmp_path: Path, ledger: Ledger) -> None:
    reading = Reading(tmp_path, ledger)
    waiting = asyncio.create_task(reading.next())
    spooled(tmp_path, ledger, make_batch(1, [b"late"]))
    reading.grown.set()
    record = await waiting
    assert record is not None
    assert record.body == b"late"


@settings(max_examples=30)
@given(cut=st.integers(min_value=0, max_value=400), flipped=st.booleans())
def test_half_a_block_ends_its_segment_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flipped: bool
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    ledger = Ledger(folder / "ledger")
    good = block_of([head(1, b"one"), b"one"], 1, 1)
    torn = bytearray(block_of([head(2, b"x" * 400), b"x" * 400], 2, 1))
    if flipped:
        torn[cut] ^= 1
    else:
        del torn[cut:]
    path_of(folder, 1).write_bytes(good + torn)
    path_of(folder, 3).write_bytes(block_of([head(3, b"three"), b"three"], 3, 1))
    assert block_at(path_of(folder, 1), len(good)) is None
    assert last_number(folder) == 3
    assert [record.body for record in asyncio.run(read_all(Reading(folder, ledger)))] == [b"one", b"three"]


@settings(max_examples=30)
@given(
    before=st.integers(min_value=3, max_value=8),
    sizes=st.lists(st.integers(min_value=0, max_value=40_000), min_size=1, max_size=4),
)
def test_segment_that_is_written_over_has_nothing_of_its_earlier_life(
    tmp_path_factory: pytest.TempPathFactory, before: int, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    ledger = Ledger(folder / "ledger")
    # Each fills a segment, all but the last of which are spares once they are read.
    spooled(folder, ledger, *(make_batch(number, [b"x" * 70_000]) for number in range(1, before)), max_bytes=2**20)
    asyncio.run(read_all(Reading(folder, ledger)))
    assert spares(folder)
    bodies = [b"y" * size for size in sizes]
    later = make_batch(before, bodies)
    spooled(folder, ledger, later, max_bytes=2**20)
    assert last_number(folder) == before + len(bodies) - 1
    assert [record.body for record in asyncio.run(read_all(Reading(folder, ledger)))] == bodies


async def test_block_is_checked_unless_the_agent_that_lives_accounts_for_it(tmp_path: Path, ledger: Ledger) -> None:
    spooled(tmp_path, ledger, make_batch(1, [b"x" * 9000]), make_batch(2, [b"y" * 9000]))
    path = path_of(tmp_path, 1)
    written = bytearray(path.read_bytes())
    written[-1] ^= 1
    path.write_bytes(written)
    known = await read_all(Reading(tmp_path, ledger), settles=False)
    assert [len(record.body) for record in known] == [9000, 9000], "neither was looked at"
    ledger[Count.BEGUN] = 2
    found = await read_all(Reading(tmp_path, ledger), settles=False)
    assert [record.number for record in found] == [1], "an earlier agent's, and not right"
    ledger[Count.BEGUN] = 0
    ledger.add(Count.DROPPED_DISK)
    found = await read_all(Reading(tmp_path, ledger), settles=False)
    assert [record.number for record in found] == [1], "a disk that failed once is not believed"


def test_spares_are_given_up_where_room_is_needed(tmp_path: Path, ledger: Ledger) -> None:
    spooled(tmp_path, ledger, *(make_batch(number, [b"x" * 70_000]) for number in range(1, 5)), max_bytes=300_000)
    asyncio.run(read_all(Reading(tmp_path, ledger)))
    assert len(spares(tmp_path)) == 3
    spooled(tmp_path, ledger, make_batch(5, [b"y" * 200_000]), max_bytes=300_000)
    assert ledger[Count.DROPPED_SPOOL_FULL] == 0
    assert not spares(tmp_path)


def test_what_a_full_spool_has_no_room_for_is_counted(tmp_path: Path, ledger: Ledger) -> None:
    batches = [make_batch(number, [b"x" * 60_000]) for number in range(1, 11)]
    spooled(tmp_path, ledger, *batches, max_bytes=200_000)
    kept = sum(path.stat().st_size for path in segments(tmp_path))
    assert kept <= 200_000
    assert ledger[Count.DROPPED_SPOOL_FULL] == 7
    assert ledger[Count.ACCOUNTED] == 10


async def test_room_that_was_freed_is_used_again(tmp_path: Path, ledger: Ledger) -> None:
    spool = Spool(tmp_path, ledger, 200_000, lambda: None)
    reading = Reading(tmp_path, ledger)
    for number in range(1, 11):
        spool.put(make_batch(number, [b"x" * 60_000]))
        await until(lambda number=number: ledger[Count.ACCOUNTED] == number)  # type: ignore[misc]
        record = await reading.next()
        assert record is not None
        reading.settle((record,))
    spool.close()
    assert ledger[Count.DROPPED_SPOOL_FULL] == 0


def test_disk_that_cannot_be_written_drops_and_counts(tmp_path: Path, ledger: Ledger) -> None:
    folder = tmp_path / "gone"
    spooled(folder, ledger, make_batch(1, [b"a", b"b"]))
    assert ledger[Count.DROPPED_DISK] == 2


def test_long_list_is_written_in_blocks(tmp_path: Path, ledger: Ledger) -> None:
    spooled(tmp_path, ledger, make_batch(1, [b"x" * 400_000] * 7))
    first = block_at(path_of(tmp_path, 1), 0)
    assert first is not None
    assert first.count == 3
    assert last_number(tmp_path) == 7


def test_counters_outlive_their_process(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "l"), Ledger(tmp_path / "l")
    one.add(Count.DEAD, 2**40)
    assert other[Count.DEAD] == 2**40
