from __future__ import annotations

from collections.abc import Iterator

import pytest
from stand_ins.gcs import Buckets, buckets_served


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    with buckets_served() as buckets:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", buckets.url)
        yield buckets
