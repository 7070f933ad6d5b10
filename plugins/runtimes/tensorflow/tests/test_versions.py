from __future__ import annotations

from pathlib import Path

import pytest
from servery_runtime_tensorflow.versions import found
from servery_sdk.serving import LoadError


def write(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(
    ("files", "path", "version"),
    [
        (["saved_model.pb", "2/saved_model.pb"], ".", "1"),
        (["saved_model.pbtxt"], ".", "1"),
        (["2/saved_model.pb", "010/saved_model.pb", "notes/saved_model.pb"], "010", "10"),
        (["1/model.keras", "0/saved_model.pb"], "1/model.keras", "1"),
        (["model.h5"], "model.h5", "1"),
    ],
)
def test_the_highest_number_is_served(files: list[str], path: str, version: str, tmp_path: Path) -> None:
    write(*(tmp_path / file for file in files))
    model = found(tmp_path)
    assert (model.path, model.version, model.is_keras) == (tmp_path / path, version, "." in path[1:])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["model.onnx"],
            r"holds no saved_model\.pb, no version's directory such as 1/ and not one Keras file; .*found 0",
        ),
        (["a.keras", "b.h5"], "found 2 of them among: a.keras, b.h5"),
        (["1/saved_model.pb", "2/variables/variables.index"], r"2: holds no saved_model\.pb"),
    ],
)
def test_what_is_there_is_said_where_no_model_is(files: list[str], words: str, tmp_path: Path) -> None:
    write(*(tmp_path / file for file in files))
    with pytest.raises(LoadError, match=words):
        found(tmp_path)
