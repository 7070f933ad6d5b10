from __future__ import annotations

import errno
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from servery_sdk.errors import Permanent, Transient
from servery_sdk.fetches import FetchReport
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri, path_below
from servery_storage import cli
from servery_storage.engine import Engine, FetchFailed
from servery_storage.patterns import Patterns
from servery_storage.place import RECORD_PREFIX
from servery_storage.progress import JsonLines
from servery_storage.providers import FileProvider, HttpProvider
from servery_storage.settings import Settings


class Clock:
    """Remembers how long was waited, and waits not at all."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress() -> JsonLines:
    return JsonLines(io.StringIO())


@pytest.fixture
def make_engine(clock: Clock) -> Callable[..., Engine]:
    def make(*providers: StorageProvider, **options: Any) -> Engine:
        found = providers or (FileProvider(), HttpProvider())
        settings = Settings(**options)
        return Engine({provider.name: provider for provider in found}, settings, sleep=clock.sleep)

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def tree(folder: Path) -> dict[str, bytes]:
    """Return the model's files; the fetch's own record is none of them."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(RECORD_PREFIX)
    }


async def test_folder_is_copied_whole_with_its_empty_files(
    make_engine: Callable[..., Engine], tmp_path: Path, target: Path, progress: JsonLines
) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "model.bin").write_bytes(b"abc")
    (source / "deep" / "empty").touch()
    await make_engine().fetch(f"file://{source}", target, progress)
    assert tree(target) == {"model.bin": b"abc", "deep/empty": b""}


async def test_file_of_a_url_is_fetched(
    make_engine: Callable[..., Engine], site: Any, target: Path, progress: JsonLines
) -> None:
    site.files["/models/model.joblib"] = b"abc"
    await make_engine().fetch(f"{site.url}/models/model.joblib", target, progress)
    assert tree(target) == {"model.joblib": b"abc"}


async def test_cut_download_goes_on_where_it_broke(
    make_engine: Callable[..., Engine], site: Any, target: Path, progress: JsonLines
) -> None:
    site.files["/model.bin"] = bytes(range(256)) * 100
    site.cuts["/model.bin"] = [1000, 2000]
    await make_engine(backoff_seconds=0.001).fetch(f"{site.url}/model.bin", target, progress)
    assert tree(target) == {"model.bin": site.files["/model.bin"]}
    ranges = [wanted for method, _, wanted in site.requests if method == "GET"]
    assert ranges == [None, "bytes=1000-", "bytes=3000-"]


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_server_that_recovers_is_asked_again(
    make_engine: Callable[..., Engine], site: Any, target: Path, progress: JsonLines, status: int
) -> None:
    site.files["/model.bin"] = b"abc"
    site.failures["/model.bin"] = [status] * 3
    await make_engine(backoff_seconds=0.001).fetch(f"{site.url}/model.bin", target, progress)
    assert tree(target) == {"model.bin": b"abc"}
    assert [method for method, _, _ in site.requests] == ["HEAD", "GET", "GET", "GET", "GET"]


async def test_listing_that_fails_is_tried_again_later_and_later(
    make_engine: Callable[..., Engine], target: Path, progress: JsonLines, clock: Clock
) -> None:
    with pytest.raises(FetchFailed, match="Failed to connect to HTTP endpoint"):
        await make_engine(backoff_seconds=1.0, max_attempts=4).fetch("http://127.0.0.1:1/m", target, progress)
    assert [0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(clock.waits)] == [True] * 3


async def test_server_that_does_not_recover_is_said_and_leaves_nothing(
    make_engine: Callable[..., Engine], site: Any, target: Path, progress: JsonLines
) -> None:
    site.files["/model.bin"] = b"abc"
    site.failures["/model.bin"] = [500] * 99
    with pytest.raises(FetchFailed, match=r"/model\.bin: the server answered 500"):
        await make_engine(max_attempts=3).fetch(f"{site.url}/model.bin", target, progress)
    assert tree(target) == {}


async def test_missing_object_is_not_asked_for_again(
    make_engine: Callable[..., Engine], site: Any, target: Path, progress: JsonLines, clock: Clock
) -> None:
    with pytest.raises(FetchFailed, match="404"):
        await make_engine().fetch(f"{site.url}/nope", target, progress)
    assert clock.waits == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s4://b/m", "cannot recognize storage type for s4://b/m: known are file://, http://, https://"),
        ("/no/such/folder", "/no/such/folder: no such file or directory"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1/"),
    ],
)
async def test_source_that_is_not_there_is_named(
    make_engine: Callable[..., Engine], target: Path, progress: JsonLines, source: str, words: str
) -> None:
    with pytest.raises(FetchFailed) as failed:
        await make_engine(max_attempts=2).fetch(source, target, progress)
    assert words in str(failed.value)


class Scripted:
    """A provider of entries that come, fail, or fill the disk."""

    name = "scripted"
    schemes = frozenset({"test"})

    def __init__(self, entries: dict[str, bytes | Exception]) -> None:
        self.entries = entries

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        for path in self.entries:
            yield StorageEntry(path=path, source=path)

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        found = self.entries[entry.source]
        if isinstance(found, Exception):
            raise found
        sink.write(found[offset:])


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Permanent("object b: access denied"), "test://m: object b: access denied"),
        (Transient("object b: slow down"), "test://m: object b: slow down"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "test://m: the disk is full: [Errno 28] No space left on device",
        ),
    ],
    ids=["permanent", "transient", "disk-full"],
)
async def test_one_object_that_fails_leaves_nothing_of_the_model(
    make_engine: Callable[..., Engine], target: Path, progress: JsonLines, failure: Exception, words: str
) -> None:
    engine = make_engine(Scripted({"a": b"1", "b": failure, "c": b"3"}), max_attempts=2)
    with pytest.raises(FetchFailed) as failed:
        await engine.fetch("test://m", target, progress)
    assert str(failed.value) == words
    assert tree(target) == {}


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b"])
async def test_object_whose_name_leads_out_is_refused(
    make_engine: Callable[..., Engine], target: Path, progress: JsonLines, path: str
) -> None:
    with pytest.raises(FetchFailed, match="outside the model's directory"):
        await make_engine(Scripted({path: b""})).fetch("test://m", target, progress)


async def test_source_without_objects_is_said(
    make_engine: Callable[..., Engine], target: Path, progress: JsonLines
) -> None:
    with pytest.raises(FetchFailed, match="no model found in test://m"):
        await make_engine(Scripted({})).fetch("test://m", target, progress)


async def test_patterns_choose_files(make_engine: Callable[..., Engine], target: Path, progress: JsonLines) -> None:
    patterns = Patterns.of({"STORAGE_ALLOW_PATTERNS": '["*.bin", "*.json"]', "STORAGE_IGNORE_PATTERNS": "old/*"})
    found = {"a.bin": b"1", "b.txt": b"2", "old/c.bin": b"3", "d.json": b"4"}
    await make_engine(Scripted(found)).fetch("test://m", target, progress, patterns)
    assert tree(target) == {"a.bin": b"1", "d.json": b"4"}


def make_zip(files: dict[str, bytes], *, link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            if link:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes], mode: str = "w", **more: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.zip", make_zip({"a/model.bin": b"abc"})),
        ("m.tar", make_tar({"a/model.bin": b"abc"})),
        ("m.tar.gz", make_tar({"a/model.bin": b"abc"}, "w:gz")),
        ("m.tgz", make_tar({"a/model.bin": b"abc"}, "w:gz")),
    ],
)
async def test_single_archive_is_unpacked(
    make_engine: Callable[..., Engine], target: Path, progress: JsonLines, name: str, content: bytes
) -> None:
    await make_engine(Scripted({name: content})).fetch("test://m", target, progress)
    assert tree(target) == {"a/model.bin": b"abc"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("m.zip", make_zip({"../out": b""}), "outside", id="zip-up"),
        pytest.param("m.zip", make_zip({"/out": b""}), "outside", id="zip-absolute"),
        pytest.param("m.zip", make_zip({"l": b"/etc/passwd"}, link=True), "is a link", id="zip-link"),
        pytest.param("m.tar", make_tar({"../out": b""}), "outside", id="tar-up"),
        pytest.param(
            "m.tar", make_tar({"l": b""}, type=tarfile.SYMTYPE, linkname="/etc"), "link", id="tar-link-absolute"
        ),
        pytest.param(
            "m.tar", make_tar({"l": b""}, type=tarfile.SYMTYPE, linkname="../../x"), "outside", id="tar-link-up"
        ),
        pytest.param("m.tar", make_tar({"d": b""}, type=tarfile.CHRTYPE), "special file", id="tar-device"),
        pytest.param("m.zip", make_zip({"big": b"0" * 2000}), "more than 1000 bytes unpacked", id="zip-bomb"),
        pytest.param("m.tar.gz", make_tar({"big": b"0" * 2000}, "w:gz"), "more than 1000 bytes", id="tar-bomb"),
        pytest.param("m.zip", b"garbage", "failed to unpack", id="no-zip"),
        pytest.param("m.tar", b"garbage", "failed to unpack", id="no-tar"),
    ],
)
async def test_archive_that_does_harm_is_refused(
    make_engine: Callable[..., Engine],
    tmp_path: Path,
    target: Path,
    progress: JsonLines,
    name: str,
    content: bytes,
    words: str,
) -> None:
    engine = make_engine(Scripted({name: content}), max_unpacked_bytes=1000)
    with pytest.raises(FetchFailed, match=words):
        await engine.fetch("test://m", target, progress)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("key", "prefix", "path"),
    [
        ("llm/a/b", "llm", "a/b"),
        ("llm", "llm", "llm"),
        ("x/llm", "x/llm", "llm"),
        ("llm-other/a", "llm", None),
        ("a/b", "", "a/b"),
    ],
)
def test_prefix_ends_where_a_name_ends(key: str, prefix: str, path: str | None) -> None:
    assert path_below(key, prefix) == path


def test_command_fetches_every_pair_and_leaves_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setenv("SERVERY_STORAGE_TERMINATION_LOG", str(log))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    pairs = [str(tmp_path / name) for name in ("a", "a-out", "b", "b-out")]
    cli.main(pairs)
    assert (tmp_path / "a-out" / "f").read_text() + (tmp_path / "b-out" / "f").read_text() == "ab"
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["fetching", "fetched"] * 2
    left = FetchReport.parse(log.read_text())
    assert left is not None
    assert (left.files, left.fetched_bytes) == (2, 2), "of both models, for who asks after the container's end"
    with pytest.raises(SystemExit) as failed:
        cli.main([str(tmp_path / "nope"), str(tmp_path / "out")])
    assert failed.value.code == 1
    assert "no such file or directory" in log.read_text()


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "c"]])
def test_odd_arguments_are_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as failed:
        cli.main(arguments)
    assert failed.value.code == 2
