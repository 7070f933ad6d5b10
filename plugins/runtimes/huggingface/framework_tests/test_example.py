"""The example runs as its page says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import servery

EXAMPLE = Path(__file__).parents[4] / "examples" / "tiny-chat"


@pytest.mark.timeout(300)
def test_the_tiny_model_is_made_and_answers(tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLE, tmp_path / "tiny-chat", ignore=shutil.ignore_patterns("model"))
    subprocess.run([sys.executable, folder / "make_model.py"], check=True, capture_output=True)  # ours
    assert sum(path.stat().st_size for path in (folder / "model").iterdir()) < 1_000_000
    done = servery("predict", "-f", str(folder / "service.yaml"), "-d", f"@{folder / 'request.json'}")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["predictions"]
    assert [type(answer) for answer in answers] == [str, str]
