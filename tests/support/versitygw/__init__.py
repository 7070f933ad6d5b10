"""A real S3 server: versitygw on a folder of this machine, built once with Go into the user's cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

HERE = Path(__file__).parent
TOOL = "github.com/versity/versitygw/cmd/versitygw"
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "key", "secret"
REGION = "us-east-1"


class Unavailable(Exception):
    """It is not here and cannot be built; says why."""


def program() -> Path:
    """Return the program, building it if need be, which takes minutes.

    Raises:
        Unavailable: No Go.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    sources = hashlib.sha256((HERE / "go.sum").read_bytes()).hexdigest()[:16]
    target = cache / "servery" / "versitygw" / sources / "versitygw"
    target.parent.mkdir(parents=True, exist_ok=True)
    # Test workers start together; one builds and the others wait.
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            if shutil.which("go") is None:
                raise Unavailable("no Go to build versitygw with")
            partial = target.with_suffix(".partial")
            subprocess.run(
                ["go", "build", "-trimpath", "-buildvcs=false", "-o", str(partial), TOOL],
                cwd=HERE,
                env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
                check=True,
            )
            partial.rename(target)
    return target


@contextmanager
def s3_served(folder: Path, *flags: str, has_metadata: bool = True) -> Iterator[str]:
    """Yield the URL of a server of the buckets that are folders of ``folder/buckets``.

    Args:
        flags: The server's own, as ``--virtual-domain=…``; ``--cert`` and ``--key`` make the URL ``https``.
        has_metadata: Keep ETags and checksums beside the objects. Without, the server sends files that nobody put by
            S3, and no ETag.
    """
    buckets, metadata, log = folder / "buckets", folder / "metadata", folder / "versitygw.log"
    for made in (buckets, metadata):
        made.mkdir(parents=True, exist_ok=True)
    store = ["--sidecar", str(metadata)] if has_metadata else ["--nometa"]
    port = free_port()
    command = [str(program()), "--quiet", "--keep-alive", "--port", f"127.0.0.1:{port}"]
    command += ["--access", ACCESS_KEY_ID, "--secret", SECRET_ACCESS_KEY, "--region", REGION, *flags]
    command += ["posix", *store, str(buckets)]
    with log.open("ab") as kept:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=kept, stderr=kept)
    try:
        _wait_for(port, running, log)
        yield f"{'https' if '--cert' in flags else 'http'}://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(15)


def _wait_for(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline and running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        time.sleep(0.02)
    running.kill()
    raise RuntimeError(f"versitygw does not answer: {log.read_text()[-2000:]}")
