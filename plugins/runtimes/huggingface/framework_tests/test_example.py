"""The example runs as its page says."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import servery

EXAMPLES = Path(__file__).parents[4] / "examples"


def predictions(name: str, directory: Path) -> Any:
    """Make the model of an example, and return what it answers to the example's request."""
    folder = shutil.copytree(EXAMPLES / name, directory / name, ignore=shutil.ignore_patterns("model"))
    subprocess.run([sys.executable, folder / "make_model.py"], check=True, capture_output=True)  # ours
    assert sum(path.stat().st_size for path in (folder / "model").iterdir()) < 1_000_000
    done = servery("predict", "-f", str(folder / "service.yaml"), "-d", f"@{folder / 'request.json'}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["predictions"]


@pytest.mark.timeout(300)
def test_the_tiny_model_is_made_and_answers(tmp_path: Path) -> None:
    assert [type(answer) for answer in predictions("tiny-chat", tmp_path)] == [str, str]


@pytest.mark.timeout(300)
def test_the_tiny_model_that_sees_names_two_classes(tmp_path: Path) -> None:
    (found,) = predictions("tiny-vision", tmp_path)
    assert set(found["label"]) < {"cat", "dog", "river"}
    assert found["score"] == sorted(found["score"], reverse=True)


@pytest.mark.timeout(300)
def test_the_tiny_model_that_hears_writes_something_down(tmp_path: Path) -> None:
    (found,) = predictions("tiny-speech", tmp_path)
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz <>unk/s")
    assert found


@pytest.mark.timeout(300)
def test_the_tiny_model_that_speaks_answers_a_sound(tmp_path: Path) -> None:
    (found,) = predictions("tiny-voice", tmp_path)
    file = base64.b64decode(found)
    assert (file[:4], file[8:12]) == (b"RIFF", b"WAVE")
