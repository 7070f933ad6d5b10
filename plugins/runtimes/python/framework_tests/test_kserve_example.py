from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import servery

EXAMPLE = Path(__file__).parents[4] / "examples" / "kserve-model"


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_example_tells_the_mood_of_three_texts() -> None:
    done = servery("predict", "-f", str(EXAMPLE / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"] == [1, -2, 0]


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_transformer_of_the_example_stands_before_the_predictor() -> None:
    example = EXAMPLE.parent / "kserve-transformer"
    done = servery("predict", "-f", str(example / "service.yaml"), "-d", f"@{example / 'request.json'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"] == ["versicolor", "setosa"]
