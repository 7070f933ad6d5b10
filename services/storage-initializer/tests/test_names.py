from __future__ import annotations

import pytest
from servery_sdk.storage import StorageEntry
from servery_storage import names
from servery_storage.names import WrongName

HOSTILE = {
    "parent": "../model.bin",
    "parent-inside": "a/../../model.bin",
    "parent-alone": "..",
    "absolute": "/etc/passwd",
    "twice-absolute": "//etc/passwd",
    "this": "./model.bin",
    "empty": "",
    "empty-part": "a//b",
    "folder": "a/",
    "drive": "C:/Windows/model.bin",
    "drive-relative": "c:model.bin",
    "backslash": "a\\b",
    "backslash-parent": "..\\..\\model.bin",
    "share": "\\\\host\\share",
    "nul": "model\0.bin",
    "newline": "model\n.bin",
    "escape": "\x1b[2Jmodel.bin",
    "deep": "a/" * 200 + "b",
    "long-part": "a" * 256,
    "long-part-of-two-bytes": "ä" * 128,
    "long": "/".join(["a" * 200] * 20),
}


def entries(*paths: str) -> list[StorageEntry]:
    return [StorageEntry(path=path, source=f"bucket/{number}") for number, path in enumerate(paths)]


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE)
def test_hostile_name_is_refused_and_says_of_which_object(path: str) -> None:
    with pytest.raises(WrongName, match="object 'bucket/1'"):
        names.check(entries("model.bin", path), folds_case=False)


@pytest.mark.parametrize(
    "path",
    ["a", ".gitattributes", "a/b/c", "..a", "a..", "…/ä", "a" * 255, "CON", "model (1).bin", "model:v1", "~", "-rf"],
)
def test_odd_name_that_a_file_may_have_is_taken(path: str) -> None:
    names.check(entries(path), folds_case=True)


def test_names_that_differ_by_case_are_one_file_only_where_the_volume_says_so() -> None:
    both = entries("Config.json", "config.json")
    names.check(both, folds_case=False)
    with pytest.raises(WrongName, match="'bucket/0' and 'bucket/1' would be one file, on a volume that takes upper"):
        names.check(both, folds_case=True)


def test_two_objects_of_one_name_are_refused() -> None:
    with pytest.raises(WrongName, match="would be one file"):
        names.check(entries("a", "a"), folds_case=False)


def test_file_is_no_folder_as_well() -> None:
    """Object stores allow both."""
    with pytest.raises(WrongName, match="'bucket/0' would be a file, and 'bucket/1' lies in a folder of that name"):
        names.check(entries("a", "a/b"), folds_case=False)
