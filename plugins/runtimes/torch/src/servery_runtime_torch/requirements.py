"""What an archive wants installed: found to be there, installed where that is allowed, or refused in words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from servery_sdk.serving import LoadError

ALLOWED = "SERVERY_TORCH_INSTALL_REQUIREMENTS"
"""Variable: ``true`` lets an archive's requirements be installed when it is loaded."""


def missing(text: str) -> list[str]:
    """Return the lines of a requirements file that this environment does not fulfil, options among them."""
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#") and not _is_fulfilled(line)]


def _is_fulfilled(line: str) -> bool:
    try:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate():
            return True
        return wanted.url is None and wanted.specifier.contains(version(wanted.name), prereleases=True)
    except (InvalidRequirement, PackageNotFoundError):
        # Options such as --index-url, and paths: only an installer understands them.
        return False


def satisfy(file: Path, target: Path, *, is_allowed: bool, archive: Path) -> bool:
    """Return whether something was installed into ``target``, which then belongs on the path.

    Raises:
        LoadError: Something is missing and must not, or cannot, be installed.
    """
    wanted = missing(file.read_text())
    if not wanted:
        return False
    if not is_allowed:
        raise LoadError(
            f"{archive}: {file.name} wants {', '.join(wanted)}, not installed here; "
            f"install it in the image, or allow installations while loading by {ALLOWED}=true"
        )
    uv = shutil.which("uv")
    installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    python = ["--python", sys.executable] if uv else []
    done = subprocess.run(  # noqa: S603  # what the owner has allowed
        [*installer, "install", "--quiet", *python, "--target", str(target), "-r", str(file)],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LoadError(f"{archive}: {file.name} cannot be installed: {done.stderr.strip()[-1000:]}")
    return True
