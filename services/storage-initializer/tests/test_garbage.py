from __future__ import annotations

import gc

import pytest
from servery_storage.garbage import SELDOM, seldom_collected


def test_collector_waits_until_the_last_fetch_has_ended() -> None:
    usual = gc.get_threshold()
    with seldom_collected():
        with seldom_collected():
            assert gc.get_threshold() == SELDOM
        assert gc.get_threshold() == SELDOM
    assert gc.get_threshold() == usual


def test_fetch_that_fails_leaves_the_collector_as_it_was() -> None:
    usual = gc.get_threshold()
    with pytest.raises(OSError, match="no disk"), seldom_collected():
        raise OSError("no disk")
    assert gc.get_threshold() == usual
