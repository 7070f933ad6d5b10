"""Archives and names that mean harm, or are broken: none writes outside, each says why."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from servery_sdk.storage import Sink, StorageEntry, StorageUri
from servery_storage.archive import unpack
from servery_storage.engine import Engine, FetchFailed
from servery_storage.place import RECORD_PREFIX
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from servery_storage.staging import Staging
from servery_storage.tree import BadArchive, Bounds

OUTSIDE = "/tmp/servery-hostile-outside"  # no test writes it, and each says so
END = bytes(1024)
ZEROS = bytes(32 * 1024**2)


class Objects:
    """A provider of objects by their names."""

    name = "objects"
    schemes = frozenset({"test"})

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        for path in self.objects:
            yield StorageEntry(path=path, source=path)

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        sink.write(self.objects[entry.source][offset:])


def member(name: str, content: bytes = b"", **header: Any) -> bytes:
    """Return one member of a tar archive, its header as it is told."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in header.items():
        setattr(info, key, value)
    form = tarfile.PAX_FORMAT if "pax_headers" in header else tarfile.GNU_FORMAT
    return info.tobuf(form, errors="surrogateescape") + content + bytes(-len(content) % 512)


def link(name: str, to: str) -> bytes:
    return member(name, type=tarfile.SYMTYPE, linkname=to)


def hard(name: str, to: str) -> bytes:
    return member(name, type=tarfile.LNKTYPE, linkname=to)


def sparse(*parts: tuple[int, int], size: int) -> bytes:
    told = {
        "GNU.sparse.map": ",".join(f"{offset},{length}" for offset, length in parts),
        "GNU.sparse.numblocks": str(len(parts)),
        "GNU.sparse.size": str(size),
    }
    return member("sparse", b"x" * sum(max(0, length) for _, length in parts), pax_headers=told)


def tar(*members: bytes) -> bytes:
    return b"".join(members) + END


def zipped(*files: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            archive.writestr(info, content)
    return buffer.getvalue()


def overlapping() -> bytes:
    """Return two members of the directory that are the same bytes of the archive, as in Fifield's bomb."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1000))
        twin = zipfile.ZipInfo("b")
        first = archive.filelist[0]
        for key in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
            setattr(twin, key, getattr(first, key))
        archive.filelist.append(twin)
    return buffer.getvalue()


def flagged(archive: bytes, flag: int) -> bytes:
    """Return a zip archive of one member with a flag set in both of its headers."""
    local, directory = bytearray(archive), archive.index(b"PK\x01\x02")
    local[6] |= flag
    local[directory + 8] |= flag
    return bytes(local)


def patched(archive: bytes, at: int, form: str, *values: Any) -> bytes:
    changed = bytearray(archive)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def of_window(content: bytes) -> bytes:
    """Return zstd that wants to look back 2 GiB."""
    return b"\x28\xb5\x2f\xfd\x00\xa8" + ((len(content) << 3) | 1).to_bytes(3, "little") + content


def of_dictionary(content: bytes) -> bytes:
    """Return xz that wants to look back 4 GiB."""
    packed = bytearray(lzma.compress(content))
    packed[16] = 40
    size = (packed[12] + 1) * 4
    packed[12 + size - 4 : 12 + size] = zlib.crc32(packed[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(packed)


def chained() -> bytes:
    """Return links that are each within by their own words, and together lead two folders up."""
    inside = member("folder", type=tarfile.DIRTYPE)
    return tar(inside, link("a", "folder"), link("folder/b", ".."), link("c", "a/b/../../outside"))


@dataclass(frozen=True)
class Harm:
    """Objects of a source, and the words that they are refused with."""

    objects: Mapping[str, bytes]
    words: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    folds_case: bool = False


def archive(name: str, content: bytes, words: str, *, folds_case: bool = False, **settings: Any) -> Harm:
    return Harm({name: content}, words, settings, folds_case)


def named(name: str, words: str) -> list[Harm]:
    """Return an object of a name, and members of it in a tar and in a zip archive."""
    return [
        Harm({name: b""}, words),
        archive("m.tar", tar(member(name, b"x", pax_headers={"path": name})), words),
        archive("m.zip", zipped((name, b"x")), words),
    ]


NAMES = {
    "parent": ("../outside", "outside the model's directory"),
    "parent-inside": ("a/../../outside", "outside the model's directory"),
    "absolute": (OUTSIDE, "outside the model's directory"),
    "twice-absolute": (f"/{OUTSIDE}", "outside the model's directory"),
    "drive": ("C:/Windows/model.bin", "outside the model's directory"),
    "backslash": ("..\\outside", "has a backslash"),
    "share": ("\\\\host\\share", "has a backslash"),
    "newline": ("model\n.bin", "has a control character"),
    "escape": ("\x1b[2Jmodel.bin", "has a control character"),
    "deep": ("a/" * 200 + "b", "201 folders deep; 128 are allowed"),
    "long-part": ("a" * 256, "is longer than 255 bytes"),
    "long": ("/".join(["a" * 200] * 20), "is longer than 3072 bytes"),
}

ARCHIVES: dict[str, Harm] = {
    # Links.
    "link-absolute": archive("m.tar", tar(link("l", OUTSIDE)), "'l' is a link to '.*', which is absolute"),
    "link-up": archive("m.tar", tar(link("a/l", "../../outside")), "'a/l' is a link to .* outside the model's"),
    "link-backslash": archive("m.tar", tar(link("l", "..\\outside")), "which is no path"),
    "link-written-through": archive(
        "m.tar", tar(link("l", "."), member("l/outside", b"x")), "would be written through 'l', which is a link"
    ),
    "link-to-parent-written-through": archive("m.tar", tar(link("l", ".."), member("l/outside", b"x")), "'l' is a link"),
    "link-replaced-by-file": archive("m.tar", tar(link("l", "x"), member("l", b"x")), "'l' is in the archive twice"),
    "link-chain": archive("m.tar", chained(), "'c' is a link that leads outside the model's directory, by other links"),
    "link-circle": archive("m.tar", tar(link("a", "b"), link("b", "a")), "leads round in a circle"),
    "hard-link-absolute": archive("m.tar", tar(hard("l", "/etc/hostname")), "hard link to '/etc/hostname': .*outside"),
    "hard-link-up": archive("m.tar", tar(hard("l", "../journal")), "hard link to '../journal': .*outside"),
    "hard-link-to-link": archive("m.tar", tar(link("l", "x"), hard("h", "l")), "'h' is a hard link to 'l', which is no"),
    "hard-link-through-link": archive(
        "m.tar", tar(member("d/f", b"x"), link("l", "d"), hard("h", "l/f")), "'h' is a hard link to 'l/f', which is no"
    ),
    "hard-link-to-nothing": archive("m.tar", tar(hard("h", "nothing")), "no file of the archive before it"),
    "hard-link-written-through": archive(
        "m.tar", tar(member("a", b"x"), hard("b", "a"), member("b", b"y")), "'b' is in the archive twice"
    ),
    "pax-link-up": archive(
        "m.tar",
        tar(member("l", type=tarfile.SYMTYPE, linkname="x", pax_headers={"linkpath": "../outside"})),
        "'l' is a link to '../outside', outside",
    ),
    "zip-link": archive("m.zip", zipped(("l", b"/etc"), mode=stat.S_IFLNK | 0o777), "'l' is a link; zip archives may"),
    # What is no file.
    "character-device": archive("m.tar", tar(member("null", type=tarfile.CHRTYPE)), "'null' is a special file"),
    "block-device": archive("m.tar", tar(member("sda", type=tarfile.BLKTYPE)), "'sda' is a special file"),
    "pipe": archive("m.tar", tar(member("pipe", type=tarfile.FIFOTYPE)), "'pipe' is a special file"),
    "unknown-type": archive("m.tar", tar(member("a", type=b"M")), "'a' is of a type b'M' that no model has"),
    "zip-device": archive("m.zip", zipped(("null", b""), mode=stat.S_IFCHR | 0o666), "'null' is a special file"),
    "zip-folder-with-bytes": archive("m.zip", zipped(("a/", b"x")), "'a/' is a folder of 1 bytes"),
    # Names that GNU tar writes apart, or that no file may have.
    "gnu-long-name": archive("m.tar", tar(member("../" + "a" * 150, b"x")), "outside the model's directory"),
    "tar-not-utf8": archive("m.tar", tar(member("a\udcff", b"x")), r"'a\\udcff' is not UTF-8"),
    "zip-not-utf8": archive("m.zip", zipped(("ä", b"x")).replace(b"\xc3\xa4", b"\xff\xfe"), "can't decode byte 0xff"),
    "zip-nul": archive("m.zip", zipped(("ab", b"x")).replace(b"ab", b"a\0"), r"'a\\x00' would be written outside"),
    "empty-name": archive("m.tar", tar(member("", b"x")), "'' would be written outside"),
    # One name for two.
    "tar-twice": archive("m.tar", tar(member("a", b"1"), member("a", b"2")), "'a' is in the archive twice"),
    "zip-twice": archive("m.zip", zipped(("a", b"1"), ("b", b"2")).replace(b"b", b"a"), "'a' is in the archive twice"),
    "tar-file-and-folder": archive("m.tar", tar(member("a", b"1"), member("a/b", b"2")), "'a/b' lies in 'a', which is"),
    "tar-folder-and-file": archive("m.tar", tar(member("a/b", b"1"), member("a", b"2")), "'a' is .* a folder as well"),
    "tar-case": archive(
        "m.tar", tar(member("A", b"1"), member("a", b"2")), "'A' and 'a' would be one file", folds_case=True
    ),
    "zip-case": archive("m.zip", zipped(("A", b"1"), ("a", b"2")), "'A' and 'a' would be one file", folds_case=True),
    "objects-case": Harm({"A": b"", "a": b""}, "'A' and 'a' would be one file", folds_case=True),
    "objects-file-and-folder": Harm({"a": b"", "a/b": b""}, "'a' would be a file, and 'a/b' lies in a folder"),
    # Bombs.
    "zip-of-zeros": archive("m.zip", zipped(("z", ZEROS), method=zipfile.ZIP_DEFLATED), "more than 200 times its size"),
    "gz-of-zeros": archive("z.gz", gzip.compress(ZEROS), "more than 200 times its size"),
    "tar.gz-of-zeros": archive("m.tar.gz", gzip.compress(tar(member("z", ZEROS))), "more than 200 times its size"),
    "tar.bz2-of-zeros": archive("m.tar.bz2", bz2.compress(tar(member("z", ZEROS))), "more than 200 times its size"),
    "tar.xz-of-zeros": archive("m.tar.xz", lzma.compress(tar(member("z", ZEROS))), "more than 200 times its size"),
    "tar.zst-of-zeros": archive("m.tar.zst", zstandard.compress(tar(member("z", ZEROS))), "more than 200 times its"),
    "tar.gz-of-zeros-behind-its-end": archive("m.tar.gz", gzip.compress(tar(ZEROS)), "more than 200 times its size"),
    "tar-too-large": archive("m.tar", tar(member("a", bytes(2000))), "more than 1000 bytes", max_unpacked_bytes=1000),
    "zip-too-large": archive("m.zip", zipped(("a", bytes(2000))), "more than 1000 bytes", max_unpacked_bytes=1000),
    "gz-too-large": archive("a.gz", gzip.compress(bytes(2000)), "more than 1000 bytes", max_unpacked_bytes=1000),
    "tar-too-many": archive(
        "m.tar", tar(*(member(f"{n}", b"") for n in range(9))), "more than 8 files", max_unpacked_files=8
    ),
    "tar-too-many-folders": archive("m.tar", tar(member("a/" * 9 + "b")), "more than 8 files", max_unpacked_files=8),
    "zip-too-many": archive(
        "m.zip", zipped(*((f"{n}", b"") for n in range(9))), "more than 8 files", max_unpacked_files=8
    ),
    "zip-overlapping": archive("m.zip", overlapping(), "'[ab]' overlaps '[ab]', as in a zip bomb"),
    "sparse-too-large": archive("m.tar", tar(sparse((0, 5), size=2**50)), "more than 1000 b", max_unpacked_bytes=1000),
    "sparse-grows-too-much": archive("m.tar", tar(sparse((0, 5), size=2**30)), "more than 200 times its size"),
    "pax-header-too-large": archive(
        "m.tar.gz", gzip.compress(tar(member("a", pax_headers={"comment": "x" * 2**21}))), "header, at .*, is too large"
    ),
    "pax-headers-of-headers": archive(
        "m.tar", tar(member("a", b"11 path=bcd", type=tarfile.XHDTYPE) * 5000), "failed to unpack|is too large"
    ),
    "xz-of-much-memory": archive("m.tar.xz", of_dictionary(tar(member("a"))), "Memory usage limit exceeded"),
    "zstd-of-much-memory": archive("m.tar.zst", of_window(tar(member("a"))), "too much memory"),
    # Two readings of one archive.
    "zip-other-name": archive("m.zip", zipped(("ab", b"x")).replace(b"ab", b"cd", 1), "by the directory, and .*'cd'"),
    "zip-other-size": archive("m.zip", patched(zipped(("ab", b"x")), 18, "<L", 2), "by the directory, and .* where"),
    "zip-other-method": archive("m.zip", patched(zipped(("ab", b"x")), 8, "<H", 8), "by the directory, and .* where"),
    "zip-into-its-directory": archive(
        "m.zip", zipped(("a", b"x")).replace(b"\x01\0\0\0\x01\0\0\0", b"\xc8\0\0\0\xc8\0\0\0"), "'a' overlaps the archive's"
    ),
    "sparse-parts-on-each-other": archive("m.tar", tar(sparse((0, 5), (3, 5), size=100)), "on each other"),
    "sparse-parts-outside": archive("m.tar", tar(sparse((98, 5), size=100)), "its parts lie outside of it"),
    "tar-of-two": archive("m.tar", tar(member("a")) + tar(member("b")), "something follows its end"),
    "zip-lzma": archive("m.zip", zipped(("a", b"x"), method=zipfile.ZIP_LZMA), "compressed by method 14; stored, defl"),
    "zip-encrypted": archive("m.zip", flagged(zipped(("a", b"x")), 1), "'a' is encrypted"),
    "zip-of-several-disks": archive("m.zip", patched(zipped(("a", b"x")), -18, "<H", 1), "one part of an archive"),
    # Broken.
    "no-zip": archive("m.zip", b"garbage", "it is cut, or is none"),
    "no-tar": archive("m.tar", b"garbage" * 100, "failed to unpack"),
    "empty-tar": archive("m.tar", b"", "failed to unpack: empty file"),
    "no-gzip": archive("a.gz", b"garbage", "is not compressed by gzip"),
    "zip-cut": archive("m.zip", zipped(("a", b"x" * 99))[:-30], "it is cut, or is none"),
    "zip-damaged": archive("m.zip", zipped(("a", b"xyz")).replace(b"xyz", b"xyy"), "Bad CRC-32 for file 'a'"),
    "zip-followed": archive("m.zip", zipped(("a", b"x")) + b"garbage", "7 more follow its end"),
    "tar-cut-in-member": archive("m.tar", member("a", b"x" * 2000)[:1500], "it ends within a member"),
    "tar-cut-between-members": archive("m.tar", member("a", b"x"), "ends without the mark that a tar archive ends with"),
    "tar-damaged": archive("m.tar", tar(member("a", b"x"), b"\x01" * 512), "at byte 1536 should be a member"),
    "tar-followed": archive("m.tar", tar(member("a", b"x")) + b"garbage", "something follows its end"),
    "tar-of-negative-size": archive("m.tar", tar(member("a", size=-512)), "has a size of -512 bytes"),
    "sparse-without-a-map": archive(
        "m.tar", tar(member("a", b"no\nnumbers\n", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})), "failed to unpack"
    ),
    "gz-cut": archive("a.gz", gzip.compress(b"x" * 99)[:-9], "failed to unpack: "),
    "gz-damaged": archive("a.gz", patched(gzip.compress(b"x" * 99), -8, "<L", 1), "failed to unpack: CRC"),
    "gz-followed": archive("a.gz", gzip.compress(b"x" * 99) + b"garbage", "failed to unpack: Not a gzipped"),
    "tar.gz-damaged-behind-its-end": archive(
        "m.tar.gz", patched(gzip.compress(tar(member("a", b"x"))), -8, "<L", 1), "failed to unpack: CRC"
    ),
    "tar.bz2-cut": archive("m.tar.bz2", bz2.compress(tar(member("a", b"x")))[:-20], "ends within its compressed bytes"),
    "tar.bz2-followed": archive("m.tar.bz2", bz2.compress(tar(member("a", b"x"))) + b"garbage", "failed to unpack: "),
    "tar.xz-cut": archive("m.tar.xz", lzma.compress(tar(member("a", b"x")))[:-20], "ends within its compressed bytes"),
    "tar.xz-followed": archive("m.tar.xz", lzma.compress(tar(member("a", b"x"))) + b"garbage", "failed to unpack: "),
    "tar.zst-cut": archive("m.tar.zst", zstandard.compress(tar(member("a", b"x")))[:-9], "failed to unpack: "),
}  # fmt: skip
CASES = ARCHIVES | {
    f"{how}-{what}": harm
    for what, (name, words) in NAMES.items()
    for how, harm in zip(("object", "tar", "zip"), named(name, words), strict=True)
}


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 54
    assert len({tuple(harm.objects.items()) for harm in CASES.values()}) == len(CASES)


@pytest.mark.parametrize("harm", CASES.values(), ids=CASES)
async def test_nothing_is_written_and_the_reason_is_said(
    harm: Harm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Staging, "folds_case", lambda _: harm.folds_case)
    engine = Engine({"objects": Objects(harm.objects)}, Settings(**harm.settings))
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(FetchFailed, match=f"^test://m: .*{harm.words}") as failed:
        await engine.fetch("test://m", work / "target", JsonLines(io.StringIO()))
    assert "\n" not in str(failed.value)
    assert list(tmp_path.rglob("*")) == [work]
    assert not Path(OUTSIDE).exists()


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("m.tar", bytes),
        ("m.tar.gz", gzip.compress),
        ("m.tgz", gzip.compress),
        ("m.tar.bz2", bz2.compress),
        ("m.tar.xz", lzma.compress),
        ("m.tar.zst", zstandard.compress),
        ("M.TAR.ZST", lambda content: zstandard.compress(content[:700]) + zstandard.compress(content[700:])),
        ("misnamed.tar", gzip.compress),
    ],
)
async def test_archive_that_means_well_comes_whole(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    long = "folder/" + "n" * 200
    content = tar(
        member("./", type=tarfile.DIRTYPE),
        member("./empty-folder/", type=tarfile.DIRTYPE),
        member("./empty", b""),
        member(long, b"long", mode=0o6755),
        member("ü", b"pax", pax_headers={"path": "ü"}, mode=0o640),
        sparse((0, 2), (50, 3), size=100),
        hard("twin", f"./{long}"),
        link("folder/link", "../empty"),
        link("later", "folder/later"),
        member("folder/later", b"x" * 100_000),
    )
    found = await _fetched(tmp_path, {name: compress(content)})
    assert {path: found[path].read_bytes() for path in found if found[path].is_file()} == {
        "empty": b"",
        long: b"long",
        "twin": b"long",
        "ü": b"pax",
        "sparse": b"xx" + bytes(48) + b"xxx" + bytes(47),
        "folder/link": b"",
        "later": b"x" * 100_000,
        "folder/later": b"x" * 100_000,
    }
    assert found["empty-folder"].is_dir()
    assert [stat.S_IMODE(found[path].stat().st_mode) & 0o7100 for path in (long, "ü")] == [0o100, 0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
async def test_zip_that_means_well_comes_whole(tmp_path: Path, method: int) -> None:
    content = zipped(("a/", b""), ("a/ü", b"x" * 100_000), ("empty", b""), mode=0o104755, method=method)
    found = await _fetched(tmp_path, {"m.zip": content})
    assert {path: found[path].read_bytes() for path in found if found[path].is_file()} == {
        "a/ü": b"x" * 100_000,
        "empty": b"",
    }
    assert stat.S_IMODE(found["empty"].stat().st_mode) & 0o7100 == 0o100


async def test_zip_that_was_written_as_a_stream_comes_whole(tmp_path: Path) -> None:
    """Its sizes follow each member, where others have them before."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = b""

        def writable(self) -> bool:
            return True

        def write(self, chunk: Any) -> int:
            self.content += bytes(chunk)
            return len(chunk)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 1000)
        archive.writestr("b", b"")
    found = await _fetched(tmp_path, {"m.zip": pipe.content})
    assert {path: len(found[path].read_bytes()) for path in found} == {"a": 1000, "b": 0}


async def test_gzip_of_one_file_is_that_file(tmp_path: Path) -> None:
    found = await _fetched(tmp_path, {"model.pkl.gz": gzip.compress(b"abc") + gzip.compress(b"def")})
    assert {path: found[path].read_bytes() for path in found} == {"model.pkl": b"abcdef"}


async def test_bound_that_is_raised_lets_it_through(tmp_path: Path) -> None:
    found = await _fetched(tmp_path, {"z.gz": gzip.compress(ZEROS)}, max_unpacked_ratio=2000)
    assert found["z"].stat().st_size == len(ZEROS)


SOUND = {
    "m.tar": tar(member("a", b"x" * 700), member("n" * 150), link("l", "a"), sparse((0, 2), (50, 3), size=100)),
    "m.zip": zipped(("a", b"x" * 700), ("b/", b""), ("b/ü", b"y"), method=zipfile.ZIP_DEFLATED),
}
PACKED = SOUND | {
    "m.tar.gz": gzip.compress(SOUND["m.tar"]),
    "m.tar.bz2": bz2.compress(SOUND["m.tar"]),
    "m.tar.xz": lzma.compress(SOUND["m.tar"]),
    "m.tar.zst": zstandard.compress(SOUND["m.tar"]),
}


@given(
    st.sampled_from(sorted(PACKED)),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), max_size=4),
)
def test_any_damage_is_said_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(PACKED[name])
    for place, changed in changes:
        at = place % len(content)
        content[at : at + len(changed)] = changed
    folder = tmp_path_factory.mktemp("damaged")
    (folder / name).write_bytes(content)
    (folder / "target").mkdir()
    with contextlib.suppress(BadArchive):
        unpack(folder / name, folder / "target", Bounds(max_bytes=10**6))
    assert {path.name for path in folder.iterdir()} == {name, "target"}
    assert all(path.resolve().is_relative_to(folder / "target") for path in (folder / "target").rglob("*"))


async def _fetched(folder: Path, objects: Mapping[str, bytes], **settings: Any) -> dict[str, Path]:
    engine = Engine({"objects": Objects(objects)}, Settings(**settings))
    await engine.fetch("test://m", folder / "target", JsonLines(io.StringIO()))
    root = folder / "target"
    return {
        path.relative_to(root).as_posix(): path for path in root.rglob("*") if not path.name.startswith(RECORD_PREFIX)
    }
