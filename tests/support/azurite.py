"""Azurite, Microsoft's own stand-in of blob storage, installed once with npm into the user's cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

VERSION = "3.37.0"
ACCOUNT = "servery"
KEY = "c2VydmVyeQ=="
"""Of an account that lives for one test session on loopback."""


class Unavailable(Exception):
    """It is not here and cannot be installed; says why."""


def program() -> Path:
    """Return Azurite's blob service, for Node to run, installing it if need be.

    Raises:
        Unavailable: No Node, or no registry to install from.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("no Node to run Azurite with")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "servery" / f"azurite-{VERSION}"
    target.mkdir(parents=True, exist_ok=True)
    found = target / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    # Test workers start together; one installs and the others wait.
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "installed").exists():
            install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(target)]
            done = subprocess.run([*install, f"azurite@{VERSION}"], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Unavailable(f"npm cannot install Azurite: {done.stderr[-500:]}")
            (target / "installed").touch()
    return found


@contextmanager
def azurite_served(folder: Path) -> Iterator[str]:
    """Yield the endpoint of ``ACCOUNT``'s blobs, which last until the block ends; its log is in ``folder``."""
    port = free_port()
    flags = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    command = ["node", str(program()), *flags, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    log = folder / "azurite.log"
    with log.open("ab") as kept:
        environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=kept, stderr=kept, env=environment, cwd=folder
        )
    try:
        _wait_for(port, running, log)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        running.terminate()
        running.wait(15)


def _wait_for(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.05)
    running.kill()
    raise RuntimeError(f"Azurite does not answer: {log.read_text()[-2000:]}")
