from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import servery

EXAMPLE = Path(__file__).parents[4] / "examples" / "pmml-iris"


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_example_names_the_species_of_two_irises_and_how_sure_it_is() -> None:
    done = servery("predict", "-f", str(EXAMPLE / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["predictions"]
    assert (first["species"], first["probability_setosa"]) == ("setosa", 1.0)
    assert (second["species"], second["probability_versicolor"]) == ("versicolor", 47 / 48)
    assert (
        second.keys()
        == first.keys()
        == {
            "species",
            "probability_setosa",
            "probability_versicolor",
            "probability_virginica",
            "node",
        }
    )
