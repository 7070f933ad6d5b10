"""The command as people run it, and packages from outside installed beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def servery(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Return the command's end, however it ends; ``environment`` comes on top of our own."""
    return subprocess.run(
        [sys.executable, "-m", "servery.main", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def installed(*packages: Path, into: Path) -> Mapping[str, str]:
    """Install ``packages`` without what they need, which is here; return the environment in which they are found."""
    target = ["--target", str(into), "--python", sys.executable]
    # uv keeps what it has built of a folder until its pyproject.toml changes; the module may have.
    fresh = [word for package in packages for word in ("--refresh-package", package.name)]
    subprocess.run(["uv", "pip", "install", "-q", "--no-deps", *fresh, *target, *map(str, packages)], check=True)
    return {"PYTHONPATH": str(into)}
