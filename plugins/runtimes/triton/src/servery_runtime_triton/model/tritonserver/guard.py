"""Runs a program until it ends, or until whoever started this lets go of our standard input; then ends the program.

Run by its path, ``python -I guard.py GRACE_SECONDS PROGRAM ARGUMENTS…``: a process that is killed closes its files but
can do nothing else, and the kernel's own signal for that (PR_SET_PDEATHSIG) comes when the *thread* ends that started
the child.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main(grace_seconds: float, command: list[str]) -> int:
    """Return the program's exit code; 128 + n for signal n."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  # what our own server asks for
    ended = threading.Event()

    def end_it() -> None:
        # Not by sys.stdin, whose lock a thread that reads would hold when this process ends.
        while os.read(0, 1024):
            pass
        process.terminate()
        if not ended.wait(grace_seconds):
            process.kill()

    threading.Thread(target=end_it, daemon=True).start()
    code = process.wait()
    ended.set()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
