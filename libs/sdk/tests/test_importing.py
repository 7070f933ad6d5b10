from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from servery_sdk.importing import make_importable


@pytest.fixture
def importing_meanwhile() -> Iterator[None]:
    """Modules come and go whenever the collector runs, which is after each few objects: as with another thread."""
    numbers = itertools.count()

    def change(_phase: str, _info: object) -> None:
        name = f"come_{next(numbers)}"
        sys.modules[name] = ModuleType(name)

    before = gc.get_threshold()
    gc.callbacks.append(change)
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(change)
    for number in range(next(numbers)):
        sys.modules.pop(f"come_{number}", None)


def test_others_may_import_meanwhile(
    importing_meanwhile: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_importable(tmp_path)
    assert sys.path[0] == str(tmp_path)
