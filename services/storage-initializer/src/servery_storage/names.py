"""Which names of objects can be files below a model's directory: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageEntry

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3072
"""Linux takes 4,096, the directory's own path among them."""
MAX_DEPTH = 128
_DRIVE = re.compile(r"[A-Za-z]:")


class WrongName(Permanent):
    """An object cannot be a file of the model; says which, and why."""


def check(entries: Iterable[StorageEntry], *, folds_case: bool) -> None:
    """Raise ``WrongName`` for the first name that leads out of the directory, that no file may have, or that would take
    another's place.

    Args:
        folds_case: Whether the volume takes ``A`` and ``a`` for one name.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for entry in entries:
        reason = wrong(entry.path)
        if reason is not None:
            raise WrongName(f"object {entry.source!r}: {reason}")
        path = entry.path.casefold() if folds_case else entry.path
        if path in files:
            raise WrongName(f"objects {files[path]!r} and {entry.source!r} would be one file{_of_case(folds_case)}")
        files[path] = entry.source
        for folder in _folders(path):
            folders.setdefault(folder, entry.source)
    for path in files.keys() & folders.keys():
        raise WrongName(f"object {files[path]!r} would be a file, and {folders[path]!r} lies in a folder of that name")


def wrong(path: str) -> str | None:
    """Return what is wrong with a relative path, or None."""
    parts = path.split("/")
    if "\0" in path or any(part in {"", ".", ".."} for part in parts) or _DRIVE.match(path):
        return f"{path!r} would be written outside the model's directory, or is no file's name"
    if not path.isascii() and not _is_utf8(path):
        return f"{path!r} is not UTF-8"
    if "\\" in path:
        return f"{path!r} has a backslash, which some readers take for a folder's end"
    if len(parts) > MAX_DEPTH:
        return f"it lies {len(parts)} folders deep; {MAX_DEPTH} are allowed"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"a part of {path[:80]!r}… is longer than {MAX_NAME_BYTES} bytes"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"{path[:80]!r}… is longer than {MAX_PATH_BYTES} bytes"
    if any(ord(letter) < 32 for letter in path):
        return f"{path!r} has a control character"
    return None


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _folders(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _of_case(folds_case: bool) -> str:
    return ", on a volume that takes upper and lower case for the same" if folds_case else ""
