from __future__ import annotations

import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def _import_state(monkeypatch: pytest.MonkeyPatch) -> None:
    # Loading puts the artifact on the path and its modules in the table: a server's business, not a test's.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # The machine has other tests to run, and small modules gain nothing by more.
    torch.set_num_threads(1)
