"""One platform for each state folder, whatever happened to the one before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.local, pytest.mark.timeout(120)]


STOPPED = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: a, annotations: {serving.kserve.io/stop: "true"}}
spec: {predictor: {sklearn: {storageUri: file:///model}}}
"""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts platforms on one folder; of a manifest that starts no model."""
    manifest = tmp_path / "stopped.yaml"
    manifest.write_text(STOPPED)
    started: list[subprocess.Popen[str]] = []

    def up() -> subprocess.Popen[str]:
        arguments = ("up", "-f", str(manifest), "--port", "0", "--state-dir", str(tmp_path / "state"))
        command = [sys.executable, "-m", "servery.main", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield up
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def running(tmp_path: Path, until: Callable[..., Any]) -> Callable[[subprocess.Popen[str]], None]:
    """Waits until the folder says that a process runs."""
    said = tmp_path / "state" / "platform.json"

    def wait(process: subprocess.Popen[str]) -> None:
        until(lambda: said.exists() and json.loads(said.read_text())["pid"] == process.pid)

    return wait


def servery(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "servery.main", command, "--state-dir", str(folder / "state")]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_of_two_at_once_one_runs_and_the_other_says_who_does(
    up: Callable[[], subprocess.Popen[str]], running: Callable[..., None], until: Callable[..., Any], tmp_path: Path
) -> None:
    both = [up(), up()]
    until(lambda: any(process.poll() is not None for process in both))
    (refused,) = (process for process in both if process.poll() is not None)
    (first,) = (process for process in both if process is not refused)
    words = refused.communicate()[1]
    assert refused.returncode == 1
    assert f"a platform runs already in {tmp_path / 'state'} (process {first.pid}" in words
    assert f"servery down --state-dir {tmp_path / 'state'}" in words
    running(first)
    assert servery("get", tmp_path).returncode == 0


def test_platform_that_was_killed_stands_in_nobodys_way(
    up: Callable[[], subprocess.Popen[str]], running: Callable[..., None], tmp_path: Path
) -> None:
    first = up()
    running(first)
    first.kill()
    first.wait()
    # Its number may be anybody's by now; here it is one that surely is.
    said = tmp_path / "state" / "platform.json"
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    said.write_text(json.dumps({**json.loads(said.read_text()), "pid": stranger.pid}))
    assert "no platform runs" in servery("get", tmp_path).stderr
    assert "nothing runs" in servery("down", tmp_path).stderr
    assert stranger.poll() is None
    stranger.communicate()
    second = up()
    running(second)
    assert servery("down", tmp_path).returncode == 0
    assert second.wait(60) == 0
