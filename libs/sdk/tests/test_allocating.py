"""Memory that a model's call frees is there for the next call."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from servery_sdk.allocating import keep_freed_memory

CALLS = """
import resource, sys, threading
import numpy as np
from servery_sdk.allocating import keep_freed_memory


def call():
    # As the layers of a network: each writes a new block, and the one before the last is freed.
    block = np.ones(900_000, np.float32)
    for _ in range(4):
        block = block + 1


def calls():
    for _ in range(3):
        call()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(20):
        call()
    print((resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before) // 20)


if sys.argv[1] == "kept":
    assert keep_freed_memory()
thread = threading.Thread(target=calls)
thread.start()
thread.join()
"""


def faults(which: str) -> int:
    """Return the page faults of a call."""
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    run = [sys.executable, "-c", CALLS, which]
    return int(subprocess.run(run, env=environment, capture_output=True, check=True, text=True).stdout)


def test_kept_memory_is_not_asked_for_again() -> None:
    # 3.6 MB are 879 pages.
    assert faults("given back") > 800
    assert faults("kept") < 80


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_what_the_environment_says_stays(name: str) -> None:
    assert not keep_freed_memory({name: "1"})
