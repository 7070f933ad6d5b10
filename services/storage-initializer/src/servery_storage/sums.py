"""``SHA256SUMS``: what a model's files must be, said by who made it, in the form that coreutils write and read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from servery_storage import names
from servery_storage.place import RECORD_PREFIX
from servery_storage.policies import Refused

NAME = "SHA256SUMS"
_BACKSLASH = "\\"
_MAX_BYTES = 64 * 1024**2
_LINE = re.compile(r"(?P<escaped>\\?)(?P<sum>[0-9a-fA-F]{64}) [ *](?P<name>.+)")
_TAGGED = re.compile(r"(?P<escaped>\\?)SHA256 \((?P<name>.+)\) = (?P<sum>[0-9a-fA-F]{64})")


def read(path: Path) -> Mapping[str, str]:
    """Return each file's sum in hexadecimal, by its relative path.

    Raises:
        Refused: A line is none of a sum, or names what no file of a model may be.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise Refused(f"{path.name} has {path.stat().st_size} bytes; {_MAX_BYTES} are allowed")
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_bytes().decode("utf-8", "surrogateescape").split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip() or line.startswith("#"):
            continue
        said = _LINE.fullmatch(line) or _TAGGED.fullmatch(line)
        if said is None:
            raise Refused(f"{path.name}, line {number}: no SHA-256 and name: {line[:80]!r}")
        name = (_unescaped(said["name"]) if said["escaped"] else said["name"]).removeprefix("./")
        reason = names.wrong(name)
        if reason is not None:
            raise Refused(f"{path.name}, line {number}: {reason}")
        if found.setdefault(name, said["sum"].lower()) != said["sum"].lower():
            raise Refused(f"{path.name}, line {number}: {name!r} has another sum further up")
    return found


def check(root: Path, *, but: Collection[str], wants: Callable[[str], bool]) -> None:
    """See that every file that the model's own ``SHA256SUMS`` names is there and has its sum, if it has one.

    Args:
        but: Those that are known to be what their source says.
        wants: Whether a file was to be fetched at all.

    Raises:
        Refused: One is not.
    """
    if not (root / NAME).is_file():
        return
    for name, told in read(root / NAME).items():
        if name in but or not wants(name):
            continue
        path = root / name
        if not path.is_file():
            raise Refused(f"{NAME} names {name!r}, which is not there")
        found = of(path)
        if found != told:
            raise Refused(f"{name!r} has the SHA-256 {found}, and {NAME} says {told}")


def of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(root: Path) -> Path:
    """Write the sums of all files below ``root``, and return where; the file itself, what signs it, and what a fetch left
    are not among them.
    """
    lines = []
    for name in sorted(_files(root)):
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        # As coreutils do: a line that begins with a backslash has a name with some.
        lines.append(f"{'' if escaped == name else _BACKSLASH}{of(root / name)}  {escaped}\n")
    new = root / f".{NAME}.new"
    new.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    return new.replace(root / NAME)


def _files(root: Path) -> Iterator[str]:
    for folder, _, files in os.walk(root):
        for file in files:
            name = Path(folder, file).relative_to(root).as_posix()
            if not name.startswith((NAME, f".{NAME}", RECORD_PREFIX)):
                yield name


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), name)
