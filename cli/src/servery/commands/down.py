"""``servery down``: end the platform that ``up --detach`` started."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from servery_sdk.errors import ServeryError

from servery.options import StateDirectory, say, state
from servery.state import NotRunning

_PATIENCE_SECONDS = 40.0
"""A little more than a pod's own grace period."""


def command(*, state_dir: StateDirectory = None) -> None:
    """End the platform of this machine, its services and their processes."""
    here = state(state_dir)
    try:
        running = here.platform()
    except NotRunning:
        say("nothing runs")
        return
    os.kill(running.pid, signal.SIGTERM)
    until = time.monotonic() + _PATIENCE_SECONDS
    with contextlib.suppress(NotRunning):
        while time.monotonic() < until:
            here.platform()
            time.sleep(0.05)
        raise ServeryError(f"process {running.pid} did not end within {_PATIENCE_SECONDS:g} s")
    say("down")
