"""NVIDIA's ``tritonserver``, in an environment of its own in the user's cache, made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).with_name("tritonserver.txt")


@pytest.fixture(scope="session")
def tritonserver() -> Path:
    """The folder of the program, for PATH."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "servery"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    target = cache / f"tritonserver-{version}-{digest}"
    target.mkdir(parents=True, exist_ok=True)
    # Test workers start together; one installs and the others wait.
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "ready").exists():
            install = ("pip", "install", "-q", "--no-deps", "--require-hashes", "-r", REQUIREMENTS)
            for command in (
                ("venv", "-q", "--clear", "--python", version, target / "env"),
                (*install, "--python", target / "env"),
            ):
                # Elsewhere: here, uv would add the constraints of this workspace.
                subprocess.run(["uv", *command], check=True, cwd=target)
            (target / "ready").touch()
    return target / "env" / "lib" / f"python{version}" / "site-packages" / "pytriton" / "tritonserver" / "bin"


@pytest.fixture
def tritonserver_on_path(tritonserver: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, on PATH."""
    monkeypatch.setenv("PATH", f"{tritonserver}{os.pathsep}{os.environ['PATH']}")
    return tritonserver
