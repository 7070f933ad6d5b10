"""A service whose requests and answers are logged, as KServe's page on the inference logger has it."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from subprocess import PIPE, Popen
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "sklearn-logger"
PORT = "8898"


@pytest.fixture
def lines() -> Iterator[Queue[str]]:
    """What the example's sink prints."""
    found: Queue[str] = Queue()
    with Popen([sys.executable, EXAMPLE / "sink.py"], stdout=PIPE, text=True) as sink:
        assert sink.stdout is not None
        reading = Thread(target=lambda: [found.put(line) for line in sink.stdout or ()])
        reading.start()
        yield found
        sink.kill()
        reading.join()


def test_requests_and_answers_reach_the_sink(local: Local, lines: Queue[str]) -> None:
    local.up(EXAMPLE / "service.yaml")
    body = (EXAMPLE / "request.json").read_bytes()
    headers = {"Host": "sklearn-logger.default.localhost", "X-Caller": "me", "Content-Type": "application/json"}
    url = f"{local.url}/v1/models/sklearn-logger:predict"
    with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers)) as answer:
        identified, said = answer.headers["ce-id"], answer.read()
    got = sorted(lines.get(timeout=60) for _ in range(2))
    for line, part, payload in zip(got, ("request", "response"), (body, said), strict=True):
        kind, one, service, logged = line.split(" ", 3)
        assert (kind, one, service) == (f"org.kubeflow.serving.inference.{part}", identified, "sklearn-logger")
        decoder = json.JSONDecoder()
        values: list[Any] = []
        while logged := logged.strip():
            value, end = decoder.raw_decode(logged)
            values.append(value)
            logged = logged[end:]
        assert values == [{"X-Caller": ["me"]}, {"example.com/team": "flowers"}, json.loads(payload)]
