"""The policy for pickles: which of a model's files would run what they should not."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from servery_storage import opcodes, streams
from servery_storage.archive import BROKEN
from servery_storage.opcodes import Named, Unreadable
from servery_storage.policies import Refused
from servery_storage.settings import PicklePolicy

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".npy", ".npz"})
_ALWAYS = frozenset({".pkl", ".pickle", ".joblib"})
"""Of the others, some hold arrays, and some hold something else altogether."""
_NUMPY, _ZIP, _PROTOCOL, _LZ4 = b"\x93NUMPY", b"PK\x03\x04", re.compile(rb"\x80[\x00-\x05]"), b"\x04\x22\x4d\x18"
_OF_OBJECTS = re.compile(rb"'[|<>=]?O\d*'")
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_SAID, _MAX_PARTS = 5, 16


@dataclass(frozen=True, slots=True)
class Pickle:
    """One pickle, or more in a row.

    Attributes:
        where: The file, with the member in it.
        names: What it imports.
        problem: Why not all of it can be told.
    """

    where: str
    names: frozenset[Named]
    problem: str | None = None

    @property
    def harm(self) -> str | None:
        """What is wrong with it, or None."""
        wrong = sorted(str(name) for name in self.names if is_dangerous(name))
        if wrong:
            more = f" and {len(wrong) - _SAID} more" if len(wrong) > _SAID else ""
            return f"{self.where} would run {', '.join(wrong[:_SAID])}{more} when it is loaded"
        return f"{self.where} cannot be looked into: it {self.problem}" if self.problem else None


class Pickles:
    """Looks into every file that may be a pickle. It finds what is known to do harm, which is less than what can."""

    def __init__(self, policy: PicklePolicy) -> None:
        self._policy = policy
        self.terms = f"pickles {policy}"

    def check(self, root: Path) -> None:
        """Refuse, or warn of, a model with a pickle that would do harm or that cannot be read."""
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            for found in pickles_in(path, path.relative_to(root).as_posix()):
                harm = found.harm
                if harm is None:
                    continue
                if self._policy is PicklePolicy.REFUSE:
                    raise Refused(f"{harm}; if that is right, set SERVERY_STORAGE_PICKLE_POLICY to warn")
                logger.warning("pickle may do harm", extra={"reason": harm})


def pickles_in(path: Path, where: str) -> Iterator[Pickle]:
    """Yield a file's pickles: its own, or those of its members; none where it holds something else."""
    with path.open("rb") as file:
        # Some loaders look at a file's first bytes, and zip's own at its last: one that is both is looked at as both.
        begins_as_zip = file.read(len(_ZIP)) == _ZIP
        if begins_as_zip or zipfile.is_zipfile(file):
            yield from _members(file, where)
        if not begins_as_zip:
            file.seek(0)
            yield from _stream(file, path.suffix.lower(), where)


def is_dangerous(name: Named) -> bool:
    """Whether picklescan knows it for harmful, by any of the ways that dots can be read."""
    if name.module is None:
        return True
    parts = name.name.split(".")
    if len(parts) > _MAX_PARTS:
        return True
    # From protocol 4 on a name may lead through what its module imports: "os.system" of "genericpath" is that of "os".
    spans = [(at, end) for at in range(len(parts)) for end in range(at + 1, len(parts))]
    ways = {(name.module, name.name)} | {(".".join(parts[at:end]), ".".join(parts[end:])) for at, end in spans}
    return any(_is_known(module, attribute) for module, attribute in ways)


@cache
def _is_known(module: str, attribute: str) -> bool:
    if "\n" in module or "\n" in attribute or not module.isprintable() or not attribute.isprintable():
        return True  # no name that somebody would give
    plain = f"c{module}\n{attribute}\n.".encode(errors="surrogatepass")
    with _quiet():
        found = scan_pickle_bytes(io.BytesIO(plain), module).globals
    return any(one.safety is SafetyLevel.Dangerous for one in found)


def _members(file: BinaryIO, where: str) -> Iterator[Pickle]:
    try:
        with zipfile.ZipFile(file) as zipped:
            for member in zipped.infolist():
                suffix = Path(member.filename).suffix.lower()
                with zipped.open(member) as stream:
                    begins = stream.read(8)
                if suffix in _ALWAYS or suffix == ".npy" or _PROTOCOL.match(begins) or begins.startswith(_NUMPY):
                    with zipped.open(member) as stream:
                        yield from _stream(cast("BinaryIO", stream), suffix, f"{where}:{member.filename}")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        yield Pickle(where, frozenset(), f"is a zip file that cannot be read: {error}")


def _stream(file: BinaryIO, suffix: str, where: str) -> Iterator[Pickle]:
    begins = file.read(8)
    file.seek(0)
    if begins.startswith(_NUMPY):
        if not _has_objects(file):
            return
    elif begins.startswith(_LZ4):
        yield Pickle(where, frozenset(), "is compressed by LZ4")
        return
    must_be = suffix in _ALWAYS or _PROTOCOL.match(begins) is not None or begins.startswith(_NUMPY)
    found: set[Named] = set()
    problem = None
    try:
        stream = streams.inflated(file) if begins.startswith(_ZLIB) else _from_here(file)
        found.update(opcodes.names(stream))
    except Unreadable as error:
        problem = str(error)
    except BROKEN as error:
        problem = f"cannot be decompressed: {error}"
    if must_be or (found and problem is None):
        yield Pickle(where, frozenset(found), problem)
    elif any(name.module is not None and is_dangerous(name) for name in found):
        # Whatever it is, a reader of pickles runs this before giving it up.
        yield Pickle(where, frozenset(name for name in found if name.module is not None))


def _from_here(file: BinaryIO) -> BinaryIO:
    """Return what is in ``file``, decompressed; where it is read already, that is a ``.npy`` file's header."""
    if file.tell():
        return file
    stream = streams.decompressed(file)
    return stream if stream is file else cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", stream)))


def _has_objects(file: BinaryIO) -> bool:
    """Whether a ``.npy`` file's array is of objects, which lie in a pickle behind its header, where this leaves ``file``."""
    start = file.read(8)
    version = start[6] if len(start) > 6 else 0
    header = file.read(int.from_bytes(file.read(2 if version == 1 else 4), "little"))
    return _OF_OBJECTS.search(header) is not None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep picklescan from saying what is said here."""
    said = logging.getLogger("picklescan")
    was, said.disabled = said.disabled, True
    try:
        yield
    finally:
        said.disabled = was
