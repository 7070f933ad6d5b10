from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import servery

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[4] / "examples" / "tensorflow-flowers"
PUBLISHED = Path(__file__).parents[5] / "shared" / "corpus"
FLOWERS = "gs://kfserving-examples/models/tensorflow/flowers"


def asked(*manifests: Path) -> list[tuple[str, int]]:
    """Return the key and the kind that the service says of each of the example's flowers."""
    files = [word for path in manifests for word in ("-f", str(path))]
    done = servery("predict", *files, "-d", f"@{EXAMPLE / 'request.json'}")
    assert done.returncode == 0, done.stderr
    return [(row["key"], row["prediction"]) for row in json.loads(done.stdout)["predictions"]]


def test_the_example_names_the_kinds_of_two_flowers() -> None:
    assert asked(EXAMPLE / "service.yaml") == [("   1", 0), ("   2", 3)]


@pytest.mark.parametrize(
    "page",
    [
        "kserve/docs__samples__v1beta1__tensorflow__tensorflow.yaml",
        "pages/kserve-scale-to-zero.yaml",
    ],
)
def test_kserves_flowers_run_by_kserves_own_runtime(page: str, tmp_path: Path) -> None:
    if not PUBLISHED.exists():
        pytest.skip("the published manifests are not beside the checkout (../shared)")
    text = (PUBLISHED / page).read_text()
    assert FLOWERS in text
    service = tmp_path / "service.yaml"
    service.write_text(text.replace(FLOWERS, f"file://{EXAMPLE / 'model'}"))
    # With its flags of tensorflow_model_server; as it stands but for the place of the model.
    runtime = PUBLISHED / "kserve-runtimes" / "config__runtimes__kserve-tensorflow-serving.yaml"
    assert asked(runtime, service) == [("   1", 0), ("   2", 3)]
