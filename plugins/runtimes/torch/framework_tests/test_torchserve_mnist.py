"""KServe's TorchServe walk-through, as it is printed: ``examples/torchserve-mnist`` through ``servery up``."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import runpy
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[4] / "examples" / "torchserve-mnist"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the ingress, with the example's service ready behind it."""
    servery = Path(sys.executable).with_name("servery")
    process = subprocess.Popen(
        [servery, "up", "-f", EXAMPLE / "service.yaml", "--port", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield _way_in(process)
        finally:
            process.terminate()


def _way_in(process: subprocess.Popen[str]) -> str:
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if found := re.search(r"(http://127\.0\.0\.1:\d+)/v", line):
            return found[1]
    raise AssertionError("".join(printed))


def post(url: str, verb: str, body: bytes) -> Any:
    # The page's own: curl -H "Host: $HOST" http://$INGRESS:$PORT/v1/models/mnist:predict -d @./mnist.json
    headers = {"Host": "torchserve-default.example.com", "Content-Type": "application/x-www-form-urlencoded"}
    request = urllib.request.Request(f"{url}/v1/models/mnist:{verb}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.mark.timeout(300)
def test_image_of_a_two_is_a_two_and_explained_by_its_pixels(url: str) -> None:
    body = (EXAMPLE / "request.json").read_bytes()
    assert post(url, "predict", body) == {"predictions": [2]}
    explained = post(url, "explain", body)
    assert list(explained) == ["explanations"]
    pixels = np.array(explained["explanations"])
    assert pixels.shape == (1, 1, 28, 28)
    assert np.abs(pixels).max() > 0.01


@pytest.mark.timeout(300)
def test_digits_that_were_not_trained_on_are_known_together_as_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    drawn = runpy.run_path(str(EXAMPLE / "train.py"))["drawn"]
    chance = random.Random(7)
    instances = []
    for digit in range(10):
        buffer = io.BytesIO()
        drawn(digit, chance).save(buffer, "png")
        instances.append({"data": base64.b64encode(buffer.getvalue()).decode()})
    together = post(url, "predict", json.dumps({"instances": instances}).encode())["predictions"]
    assert sum(said == digit for digit, said in enumerate(together)) >= 8
    alone = [post(url, "predict", json.dumps({"instances": [one]}).encode())["predictions"] for one in instances]
    assert alone == [[digit] for digit in together]
