from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import servery

EXAMPLE = Path(__file__).parents[4] / "examples" / "paddle-iris"


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_example_gives_the_probabilities_of_three_species_for_two_irises() -> None:
    done = servery("predict", "-f", str(EXAMPLE / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["predictions"]
    assert [row.index(max(row)) for row in rows] == [1, 1]
    assert [sum(row) for row in rows] == pytest.approx([1.0, 1.0])
