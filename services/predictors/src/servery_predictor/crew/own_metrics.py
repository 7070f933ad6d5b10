"""What models' own code counts with ``prometheus_client``, in all workers together.

``prometheus_client`` has a mode for several processes: it keeps its numbers in files of a folder that a variable names,
which it reads when it is imported. Whoever starts us sets it; we add the files up, and tell which processes are gone.

Source: prometheus_client, "Multiprocess Mode".
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def wipe() -> None:
    """Forget what an earlier server left in the folder: a container that starts anew has the pod's old one."""
    if folder := os.environ.get(VARIABLE):
        for file in Path(folder).glob("*.db"):
            if not file.stem.endswith(f"_{os.getpid()}"):
                file.unlink()


def registry() -> CollectorRegistry:
    """Return a registry that shows them, where the variable is set."""
    made = CollectorRegistry()
    if os.environ.get(VARIABLE):
        MultiProcessCollector(made)  # type: ignore[no-untyped-call]  # theirs has no types
    return made


def forget_gauges(pid: int) -> None:
    """Show no more what a process that is gone said of its state; what it counted stays."""
    if os.environ.get(VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]  # theirs has no types
