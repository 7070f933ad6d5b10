from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # The machine has other tests to run, and tiny models gain nothing by more: beside others they lose seconds a call.
    torch.set_num_threads(1)
