"""An archive that does not fit: said before it is unpacked where it says what it holds, else when the volume is full."""

from __future__ import annotations

import errno
import gzip
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from servery_sdk.storage import StorageEntry, Unpack
from servery_storage import streams
from servery_storage.archive import unpack
from servery_storage.engine import Engine, FetchFailed
from servery_storage.layers import unpack_layers
from servery_storage.progress import Tally
from servery_storage.providers import FileProvider
from servery_storage.settings import Settings
from servery_storage.tree import Bounds, NoRoom

BOUNDS = Bounds(max_bytes=10**9)
LARGE = {"config.json": b"{}", "model.bin": b"\0" * 500_000}
Free = Callable[[int], None]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Let the volume have so many bytes free."""

    def have(free_bytes: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free_bytes})())

    return have


def full_after(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """Let the volume be full when so many bytes are written, whatever it says."""
    left = size_bytes

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal left
        if left < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(data)
        return os.write(descriptor, data)

    monkeypatch.setattr(streams, "os", type("Os", (), {"write": staticmethod(write)}))


def zipped(folder: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return folder / "m.zip"


def tarred(folder: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(folder / "m.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "m.tar.gz"


def test_zip_is_refused_before_anything_is_written(tmp_path: Path, target: Path, free: Free) -> None:
    archive = zipped(tmp_path, LARGE)
    free(400_000)
    with pytest.raises(NoRoom, match=r"m\.zip: it unpacks to 500002 bytes, and the volume has 400000 free"):
        unpack(archive, target, BOUNDS)
    assert list(target.iterdir()) == []


def test_member_of_a_tar_is_refused_before_it_is_written(tmp_path: Path, target: Path, free: Free) -> None:
    archive = tarred(tmp_path, LARGE)
    free(400_000)
    with pytest.raises(NoRoom, match=r"m\.tar\.gz: 'model\.bin' unpacks to 500000 bytes, .* 400000 free; .*larger"):
        unpack(archive, target, BOUNDS)
    assert [path.name for path in target.iterdir()] == ["config.json"]


@pytest.mark.parametrize("packed", [zipped, tarred])
def test_archive_that_just_fits_is_unpacked(
    tmp_path: Path, target: Path, free: Free, packed: Callable[[Path, Mapping[str, bytes]], Path]
) -> None:
    archive = packed(tmp_path, LARGE)
    free(500_002)
    unpack(archive, target, BOUNDS)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == LARGE


def test_holes_of_a_sparse_file_need_no_room(tmp_path: Path, target: Path, free: Free) -> None:
    sparse = tmp_path / "model.bin"
    with sparse.open("wb") as file:
        file.truncate(10**6)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    archive = tmp_path / "m.tar"
    subprocess.run(["tar", "-C", tmp_path, "-Scf", archive, sparse.name], check=True)
    free(100_000)
    unpack(archive, target, BOUNDS)
    assert (target / "model.bin").read_bytes() == sparse.read_bytes()


def test_file_in_gzip_says_nothing_and_the_full_volume_does(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "model.bin.gz"
    archive.write_bytes(gzip.compress(b"\0" * 10**6))
    full_after(monkeypatch, 600_000)
    with pytest.raises(NoRoom, match=r"model\.bin\.gz: the volume is full at 'model\.bin', with 786432 bytes unpacked"):
        unpack(archive, target, BOUNDS)


def test_layer_that_replaces_another_needs_room_once(tmp_path: Path, target: Path, free: Free) -> None:
    layers = [tarred(tmp_path, LARGE).rename(tmp_path / name) for name in ("one", "two")]
    entries = [
        StorageEntry(path=path.name, source=path.name, unpack=Unpack(order=order)) for order, path in enumerate(layers)
    ]
    free(600_000)
    unpack_layers(entries, tmp_path, target, BOUNDS, wants=lambda path: True)
    assert {path.name for path in target.iterdir()} == set(LARGE)


async def test_model_that_does_not_fit_unpacked_is_absent_and_says_what_to_do(tmp_path: Path, free: Free) -> None:
    archive = zipped(tmp_path, LARGE)
    free(archive.stat().st_size + 100)
    engine = Engine({"file": FileProvider()}, Settings())
    with pytest.raises(FetchFailed, match=r"m\.zip: it unpacks to 500002 bytes, .* or keep the model unpacked"):
        await engine.fetch(f"file://{archive}", tmp_path / "model", Tally())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.zip"]
