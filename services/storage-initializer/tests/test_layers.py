from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from servery_sdk.errors import Permanent
from servery_sdk.storage import Sink, StorageEntry, StorageUri, Unpack
from servery_storage.engine import Engine
from servery_storage.layers import unpack_layers
from servery_storage.patterns import Patterns
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from servery_storage.tree import BadArchive, Bounds

Member = tuple[str, bytes | str | None]
"""A file with content, a link (``-> target`` or ``= target`` for a hard one), or a directory (None)."""


def tarred(*members: Member) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, what in members:
            member = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                member.size = len(what)
                tar.addfile(member, io.BytesIO(what))
                continue
            if what is None:
                member.type = tarfile.DIRTYPE
            else:
                member.type = tarfile.SYMTYPE if what.startswith("-> ") else tarfile.LNKTYPE
                member.linkname = what.partition(" ")[2]
            tar.addfile(member)
    return buffer.getvalue()


def framed(content: bytes) -> bytes:
    """Return zstd in two frames, as layers have that can be read in parts."""
    return zstandard.compress(content[:100]) + zstandard.compress(content[100:])


def image(*layers: bytes, below: str = "models") -> list[tuple[bytes, Unpack]]:
    return [(layer, Unpack(order=order, below=below, has_whiteouts=True)) for order, layer in enumerate(layers)]


def unpacked(
    folder: Path,
    layers: Sequence[tuple[bytes, Unpack]],
    *,
    max_bytes: int = 10**6,
    wants: Callable[[str], bool] = lambda _: True,
) -> dict[str, bytes | str]:
    """Return the tree's files and links, by path."""
    files, target = folder / "files", folder / "target"
    files.mkdir(parents=True)
    target.mkdir()
    entries = []
    for number, (content, unpack) in enumerate(layers):
        (files / str(number)).write_bytes(content)
        entries.append(StorageEntry(path=str(number), source="", unpack=unpack))
    unpack_layers(entries[::-1], files, target, Bounds(max_bytes=max_bytes), wants=wants)
    assert {path.name for path in folder.iterdir()} == {"files", "target"}
    return tree(target)


def tree(root: Path) -> dict[str, bytes | str]:
    return {
        path.relative_to(root).as_posix(): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("compressed", [bytes, gzip.compress, framed], ids=["plain", "gzip", "zstd"])
def test_what_lies_below_the_directory_is_the_model(tmp_path: Path, compressed: Callable[[bytes], bytes]) -> None:
    layer = tarred(
        ("etc/passwd", b"root"),
        ("models", None),
        ("./models/a", b"1"),
        ("/models/deep/b", b"2"),
        ("models-2/c", b"3"),
        ("models/empty", b""),
    )
    assert unpacked(tmp_path, image(compressed(layer))) == {"a": b"1", "deep/b": b"2", "empty": b""}


def test_later_layer_replaces_whatever_the_kind(tmp_path: Path) -> None:
    first = tarred(("m/a", b"1"), ("m/b/c", b"1"), ("m/link", "-> b"), ("m/shared", b"1"), ("m/twin", "= m/shared"))
    second = tarred(("m/a/now-a-folder", b"2"), ("m/b", b"2"), ("m/link/x", b"2"), ("m/shared", b"2"))
    found = unpacked(tmp_path, image(first, second, below="m"))
    assert found == {"a/now-a-folder": b"2", "b": b"2", "link/x": b"2", "shared": b"2", "twin": b"1"}


def test_whiteouts_delete_what_earlier_layers_had(tmp_path: Path) -> None:
    first = tarred(("m/gone", b"1"), ("m/stays", b"1"), ("m/folder/gone", b"1"), ("m/folder/sub/gone", b"1"))
    second = tarred(
        ("m/folder/new", b"2"), ("m/folder/.wh..wh..opq", b""), ("m/.wh.gone", b""), ("m/.wh..wh.plnk", b"")
    )
    assert unpacked(tmp_path, image(first, second, below="m")) == {"stays": b"1", "folder/new": b"2"}


def test_whiteout_spares_what_its_own_layer_has(tmp_path: Path) -> None:
    second = tarred(("m/a/new", b"2"), ("m/.wh.a", b""))
    assert unpacked(tmp_path, image(tarred(("m/a/old", b"1")), second, below="m")) == {"a/new": b"2"}


@pytest.mark.parametrize("name", [".wh.m", ".wh..wh..opq", "m/.wh.n", "m/.wh..wh..opq", "m/n/.wh..wh..opq"])
def test_whiteout_of_the_model_s_directory_or_above_hides_all(tmp_path: Path, name: str) -> None:
    layers = image(tarred(("m/n/old", b"1")), tarred((name, b""), ("m/n/new", b"2")), below="m/n")
    assert unpacked(tmp_path, layers) == {"new": b"2"}


@pytest.mark.parametrize("name", [".wh.other", "other/.wh..wh..opq", "m/.wh.o"])
def test_whiteout_elsewhere_hides_nothing(tmp_path: Path, name: str) -> None:
    assert unpacked(tmp_path, image(tarred(("m/n/a", b"1")), tarred((name, b"")), below="m/n")) == {"a": b"1"}


def test_names_that_look_like_whiteouts_are_files_of_an_archive_that_is_no_layer(tmp_path: Path) -> None:
    assert unpacked(tmp_path, [(tarred((".wh.a", b"1")), Unpack(order=0))]) == {".wh.a": b"1"}


def test_links_within_the_model_stay_links(tmp_path: Path) -> None:
    layer = tarred(
        ("models/blobs/x", b"1"),
        ("models/snapshots/main/a", "-> ../../blobs/x"),
        ("models/b", "-> /models/blobs/x"),
        ("models/c", "= models/blobs/x"),
        ("models/all", "-> /models"),
    )
    found = unpacked(tmp_path, image(layer))
    assert found == {
        "blobs/x": b"1",
        "snapshots/main/a": "-> ../../blobs/x",
        "b": "-> blobs/x",
        "c": b"1",
        "all": "-> .",
    }


@pytest.mark.parametrize(
    "members",
    [
        [("models/../../out", b"")],
        [("../out", b"")],
        [("models/l", "-> /etc/passwd")],
        [("models/l", "-> ../etc/passwd")],
        [("models/l", "= etc/passwd")],
        [("models/a", "-> ."), ("models/a/b", "-> ../../x")],
        [("models/l", "= models/nothing")],
    ],
    ids=["dots", "dots-first", "absolute", "relative", "hard", "through-a-link", "hard-to-nothing"],
)
def test_what_leads_out_of_the_model_is_refused(tmp_path: Path, members: Sequence[Member]) -> None:
    with pytest.raises(BadArchive):
        unpacked(tmp_path, image(tarred(*members)))
    assert tree(tmp_path / "target").keys() <= {"a"}


@pytest.mark.parametrize("below", ["", "models"])
@pytest.mark.parametrize("name", [".wh...", "models/.wh...", ".wh..", "models/.wh..", ".wh.", "models/.wh."])
def test_whiteout_of_what_is_no_name_deletes_nothing(tmp_path: Path, name: str, below: str) -> None:
    """``.wh.`` and then the folder above."""
    layers = image(tarred(("models/a", b"1")), tarred((name, b"")), below=below)
    with pytest.raises(BadArchive, match=r"1: '.*\.wh\.\.*' is a whiteout of no name"):
        unpacked(tmp_path, layers)
    assert tree(tmp_path / "target") == ({"a": b"1"} if below else {"models/a": b"1"})
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"0", "1"}


@pytest.mark.parametrize("name", ["link/.wh.x", "link/.wh..wh..opq"])
def test_whiteout_behind_a_link_deletes_nothing(tmp_path: Path, name: str) -> None:
    layers = image(tarred(("folder/x", b"1"), ("link", "-> folder")), tarred((name, b"")), below="")
    assert unpacked(tmp_path, layers) == {"folder/x": b"1", "link": "-> folder"}


async def test_file_beside_layers_is_not_written_through_their_links(tmp_path: Path) -> None:
    layer = tarred(("models/data/x", b"1"), ("models/config", "-> data"))
    provider = Image({"0.layer": layer, "config/x": b"2"})
    target = tmp_path / "model"
    await Engine({"image": provider}, Settings()).fetch("image://iris", target, JsonLines(io.StringIO()))
    found = {path: content for path, content in tree(target).items() if not path.startswith(".")}
    assert found == {"data/x": b"1", "config/x": b"2"}


def test_device_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("models/null")
        member.type = tarfile.CHRTYPE
        tar.addfile(member)
    with pytest.raises(BadArchive, match="special"):
        unpacked(tmp_path, image(buffer.getvalue()))


def test_bound_is_on_all_layers_together(tmp_path: Path) -> None:
    layers = image(gzip.compress(tarred(("models/a", bytes(600)))), gzip.compress(tarred(("models/b", bytes(600)))))
    with pytest.raises(BadArchive, match="1: more than 1000 bytes unpacked, at 'models/b'"):
        unpacked(tmp_path, layers, max_bytes=1000)


@pytest.mark.parametrize("compressed", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_archive_that_ends_too_early_is_said(tmp_path: Path, compressed: Callable[[bytes], bytes]) -> None:
    content = compressed(tarred(("models/a", os.urandom(5000))))
    with pytest.raises(BadArchive, match="0: failed to unpack: "):
        unpacked(tmp_path, image(content[:3000]))


def test_image_without_a_model_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="no model found: none of 1 layers has a wanted file models/"):
        unpacked(tmp_path, image(tarred(("model/a", b""))))


def test_patterns_speak_of_the_members(tmp_path: Path) -> None:
    layer = tarred(("models/a.bin", b"1"), ("models/b.txt", b"2"))
    assert unpacked(tmp_path, image(layer), wants=Patterns(ignore=("*.bin",)).wants) == {"b.txt": b"2"}


NAMES = st.lists(st.sampled_from(["a", "b", "c", ".wh.a", ".wh..wh..opq"]), min_size=1, max_size=3).map("/".join)
LAYERS = st.lists(st.dictionaries(NAMES, st.binary(max_size=3), max_size=5), min_size=1, max_size=4)


@given(LAYERS)
def test_tree_is_what_the_layers_say_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, layers: list[dict[str, bytes]]
) -> None:
    """Against the rules read over plain dictionaries, of layers whose whiteouts come first, as builders write them."""
    expected: dict[str, bytes] = {"keep": b""}
    ordered = [{"keep": b""}]
    for layer in layers:
        hiding = {name: b"" for name in layer if name.rpartition("/")[2].startswith(".wh.")}
        plain = {name: content for name, content in layer.items() if ".wh." not in name}
        # A path that is a file and a folder in one layer is in no image.
        plain = {name: content for name, content in plain.items() if not any(o.startswith(f"{name}/") for o in plain)}
        hiding = {name: b"" for name in hiding if ".wh." not in name.rpartition("/")[0]}
        for name in hiding:
            parent, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                hidden = f"{parent}/" if parent else ""
                expected = {path: data for path, data in expected.items() if not path.startswith(hidden)}
            else:
                victim = f"{parent}/a" if parent else "a"
                expected = {p: d for p, d in expected.items() if p != victim and not p.startswith(f"{victim}/")}
        for name, content in plain.items():
            above = {"/".join(name.split("/")[:count]) for count in range(1, name.count("/") + 1)}
            expected = {p: d for p, d in expected.items() if p not in above and not p.startswith(f"{name}/")}
            expected[name] = content
        ordered.append({**hiding, **plain})
    folder = tmp_path_factory.mktemp("layers")
    packed = image(*(tarred(*layer.items()) for layer in ordered), below="")
    if expected:
        assert unpacked(folder, packed) == expected
    else:
        with pytest.raises(Permanent):
            unpacked(folder, packed)


class Image:
    """A provider of two layers and a file."""

    name = "image"
    schemes = frozenset({"image"})

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        for order, path in enumerate(self._contents):
            unpack = Unpack(order=order, below="models") if path.endswith(".layer") else None
            yield StorageEntry(path=path, source=path, size_bytes=len(self._contents[path]), unpack=unpack)

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        sink.write(self._contents[entry.source][offset:])


async def test_engine_makes_one_tree_of_layers_and_files(tmp_path: Path) -> None:
    first, second = tarred(("models/a.bin", b"1"), ("models/b.md", b"1")), tarred(("models/a.bin", b"2"))
    provider = Image({"0.layer": first, "1.layer": gzip.compress(second), "config/c.json": b"{}"})
    patterns = Patterns(allow=("*.bin", "*.json"))
    engine = Engine({"image": provider}, Settings())
    target = tmp_path / "model"
    await engine.fetch("image://iris", target, JsonLines(io.StringIO()), patterns)
    found = {path: content for path, content in tree(target).items() if not path.startswith(".")}
    assert found == {"a.bin": b"2", "config/c.json": b"{}"}
