"""Time to Ready, and what an idle platform costs, beside ``python -c "import sklearn"``: ``python bench/up.py``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MANIFEST = Path(__file__).parents[1] / "examples" / "sklearn-iris" / "service.yaml"
IDLE_SECONDS = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def import_seconds() -> float:
    """Return the best of three imports of scikit-learn in a fresh interpreter."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import sklearn"], check=True)
        best = min(best, time.perf_counter() - began)
    return best


def family(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """Return what a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    """Return what a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Print the numbers."""
    imported = import_seconds()
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "servery.main",
            "up",
            "-f",
            str(MANIFEST),
            "--port=0",
            "--state-dir",
            directory,
        ]
        began = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as platform:
            assert platform.stderr is not None
            for line in platform.stderr:
                if line.strip().endswith(": Ready"):
                    break
            ready = time.perf_counter() - began
            time.sleep(1.0)
            processes = list(family(platform.pid))
            before = {pid: cpu_seconds(pid) for pid in processes}
            time.sleep(IDLE_SECONDS)
            share = {pid: (cpu_seconds(pid) - before[pid]) / IDLE_SECONDS for pid in processes}
            memory = {pid: resident_mib(pid) for pid in processes}
            platform.send_signal(signal.SIGTERM)
            platform.communicate()
    print(f"import sklearn          {imported:6.2f} s")
    print(f"servery up to Ready     {ready:6.2f} s   {ready / imported:.1f} times the import")
    print(f"idle platform           {share[platform.pid]:6.2%} of a core, {memory[platform.pid]:.0f} MiB")
    print(f"idle with its predictor {sum(share.values()):6.2%} of a core, {sum(memory.values()):.0f} MiB")


if __name__ == "__main__":
    main()
