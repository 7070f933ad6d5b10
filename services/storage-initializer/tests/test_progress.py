from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving import Ask, Fault, Locating, served
from rich.console import Console
from servery_sdk.fetches import FetchReport
from servery_sdk.storage import StorageEntry
from servery_storage import progress
from servery_storage.engine import Engine
from servery_storage.progress import JsonLines, Tally, TerminalBars
from servery_storage.settings import Settings

MIB = 1024**2
LARGE = StorageEntry(path="weights/model-00001-of-00002.safetensors", source="a", size_bytes=8 * MIB)
SMALL = StorageEntry(path="config.json", source="b", size_bytes=100)
UNKNOWN = StorageEntry(path="stream.bin", source="c")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140)


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_terminal_has_a_bar_for_the_whole_and_one_for_each_file_that_takes_a_while(screen: Console) -> None:
    with TerminalBars(screen) as bars:
        bars.begin("s3://b/llm", [LARGE, SMALL])
        bars.advance(SMALL, 100)
        bars.advance(LARGE, 2 * MIB)
    assert "s3://b/llm" in shown(screen)
    assert "weights/model-00001-of-00002.safetensors" in shown(screen)
    assert "/8.4 MB" in shown(screen)
    assert "config.json" not in shown(screen), "it came by one read"


def test_files_bar_goes_when_the_file_is_whole(screen: Console) -> None:
    with TerminalBars(screen) as bars:
        bars.begin("s3://b/llm", [LARGE])
        bars.advance(LARGE, 2 * MIB)
        bars.advance(LARGE, 6 * MIB)
    last = shown(screen).rpartition("s3://b/llm")[2]
    assert "8.4/8.4 MB" in last
    assert LARGE.path not in last


def test_long_path_keeps_its_end(screen: Console) -> None:
    entry = StorageEntry(path=f"{'deep/' * 30}model.safetensors", source="a", size_bytes=MIB)
    with TerminalBars(screen) as bars:
        bars.begin("s3://b/llm", [entry])
        bars.advance(entry, 1)
    assert "…p/deep/deep/deep/deep/model.safetensors" in shown(screen)


def test_brackets_of_names_and_reasons_are_no_markup(screen: Console) -> None:
    entry = StorageEntry(path="model[/b].bin", source="a", size_bytes=MIB)
    with TerminalBars(screen) as bars:
        bars.begin("s3://b/llm[bold]", [entry])
        bars.advance(entry, 1)
        bars.tries_again("object 'model[/b].bin': the server answered 503")
    for words in ("model[/b].bin", "s3://b/llm[bold]", "trying again: object 'model[/b].bin': the server answered 503"):
        assert words in shown(screen)


def test_file_of_no_known_size_has_a_bar_without_an_end(screen: Console) -> None:
    with TerminalBars(screen) as bars:
        bars.begin("https://h/x", [UNKNOWN])
        bars.advance(UNKNOWN, 3 * MIB)
    assert "3.1/? MB" in shown(screen)


def test_lines_say_rate_and_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    told = JsonLines(stream, every_seconds=5.0)
    told.begin("s3://b/llm", [LARGE])
    clock.now += 4
    told.advance(LARGE, MIB)
    clock.now += 4
    told.advance(LARGE, MIB)
    clock.now += 1
    told.advance(LARGE, 6 * MIB)
    told.end("s3://b/llm")
    first, middle, last = lines(stream)
    assert (first["message"], first["total_bytes"]) == ("fetching", 8 * MIB)
    assert middle == {
        "message": "progress",
        "done_bytes": 2 * MIB,
        "total_bytes": 8 * MIB,
        "bytes_per_second": MIB // 4,
        "seconds_left": 24.0,
    }
    assert (last["message"], last["fetched_bytes"], last["seconds"]) == ("fetched", 8 * MIB, 9.0)


def test_lines_say_of_what_fails_only_every_few_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    told = JsonLines(stream, every_seconds=5.0)
    for _ in range(10):
        told.tries_again("503")
        clock.now += 1
    assert [(line["message"], line["retries"]) for line in lines(stream)] == [("trying again", 1), ("trying again", 6)]


def test_object_that_comes_again_is_counted_once_as_done_and_twice_as_fetched() -> None:
    stream = io.StringIO()
    told = JsonLines(stream, every_seconds=0.0)
    told.begin("s3://b/llm", [SMALL])
    told.advance(SMALL, 100)
    told.comes_again(SMALL, "its sum is another's")
    told.advance(SMALL, 100)
    assert lines(stream)[-1]["done_bytes"] == 100
    assert (told.report().fetched_bytes, told.report().retries) == (200, 1)


async def test_report_tells_what_came_from_where(tmp_path: Path) -> None:
    content = {"/llm/a": b"a" * 300_000, "/llm/b": b"b" * 1000}
    settings = {"piece_bytes": 65536, "backoff_seconds": 0.0, "cache": tmp_path / "cache"}
    with served() as site:
        site.objects |= content
        left = iter([Fault(status=503)])
        site.rule = lambda ask: next(left, None) if ask.path == "/llm/b" else None
        engine = Engine({"bad": Locating(site.url, site.objects)}, Settings(**settings))
        first, cached, there = Tally(), Tally(), Tally()
        await engine.fetch("bad://x/llm", tmp_path / "one", first)
        await engine.fetch("bad://x/llm", tmp_path / "two", cached)
        await engine.fetch("bad://x/llm", tmp_path / "two", there)
    found = first.report()
    assert (found.files, found.fetched_bytes, found.cached_bytes, found.retries) == (2, 301_000, 0, 1)
    found = cached.report()
    assert (found.files, found.fetched_bytes, found.cached_files, found.cached_bytes) == (2, 0, 2, 301_000)
    assert (there.report().kept_bytes, there.report().cached_files) == (301_000, 0)


async def test_pieces_of_an_earlier_process_are_no_fetched_bytes(tmp_path: Path) -> None:
    content = {"/llm/a": bytes(range(256)) * 1024}
    settings = Settings(piece_bytes=65536, backoff_seconds=0.0, max_connections=1, max_attempts=1)

    def last_fails(ask: Ask) -> Fault | None:
        return Fault(status=503) if ask.start == 3 * 65536 else None

    with served() as site:
        site.objects |= content
        site.rule = last_fails
        engine = Engine({"bad": Locating(site.url, site.objects)}, settings)
        with pytest.raises(Exception, match="503"):
            await engine.fetch("bad://x/llm", tmp_path / "llm", Tally())
        site.rule = lambda ask: None
        again = Tally()
        await engine.fetch("bad://x/llm", tmp_path / "llm", again)
    assert (again.report().kept_bytes, again.report().fetched_bytes) == (3 * 65536, 65536)


numbers = st.integers(0, 10**15)
reports = st.builds(
    FetchReport,
    files=numbers,
    fetched_bytes=numbers,
    cached_files=numbers,
    cached_bytes=numbers,
    kept_bytes=numbers,
    retries=numbers,
    seconds=st.floats(0, 10**6),
)


@given(reports)
def test_report_is_read_as_it_was_written(report: FetchReport) -> None:
    assert FetchReport.parse(report.text()) == report
    assert report.words


@given(reports, reports)
def test_reports_add_up(one: FetchReport, other: FetchReport) -> None:
    assert (one + other).fetched_bytes == one.fetched_bytes + other.fetched_bytes
    assert one + FetchReport() == one


@pytest.mark.parametrize(
    "words",
    [
        "",
        "s3://b/m: no such bucket",
        "[1]",
        "7",
        '{"message": "ready"}',
        '{"message": "fetched", "files": "many"}',
        '{"message": "fetched", "files": -1}',
    ],
)
def test_other_last_words_are_no_report(words: str) -> None:
    assert FetchReport.parse(words) is None


def test_report_is_said_in_words() -> None:
    report = FetchReport(files=3, fetched_bytes=4_200_000_000, cached_files=1, cached_bytes=500, retries=1, seconds=12)
    assert report.words == (
        "3 files in 12.0 s, 4.2 GB from the source at 350.0 MB/s, 500 B (1 files) from this node's cache, "
        "1 try failed before one went well"
    )
