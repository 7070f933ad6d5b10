"""The ``tritonserver`` of this machine, found by its files: nothing of it is imported.

Two layouts are known. NVIDIA's image has ``bin/tritonserver`` beside ``backends``, ready to run. The wheel
``nvidia-pytriton`` has the same, and a stub of the Python backend for each version of Python, which belongs into the
backend's folder; the libraries that both need lie beside the package, and so does what models import.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_STUB = "triton_python_backend_stub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """What the program of a wheel needs beside it.

    Attributes:
        site: The folder that the wheel is installed in; models import from it.
        stub: Of the Python backend, for the Python of that folder; there may be none.
    """

    site: Path
    stub: Path

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Return the variables to start the program with, given our own."""
        prefix = self.site.parents[2]
        # The stub reads no PYTHONPATH: it takes the packages of the first python3 that it finds. And it is linked to a
        # libpython, which is where the Python of a virtual environment comes from.
        folders = {
            "PATH": (str(prefix / "bin"), ours.get("PATH", "")),
            "LD_LIBRARY_PATH": (
                str(_home(prefix) / "lib"),
                str(self.site / "nvidia_pytriton.libs"),
                ours.get("LD_LIBRARY_PATH", ""),
            ),
        }
        return {**ours, **{name: ":".join(filter(None, paths)) for name, paths in folders.items()}}

    @property
    def why_not(self) -> str:
        """Why its Python backend cannot run models; empty where it can."""
        if not self.stub.is_file():
            return f"its Python backend has no {self.stub}"
        found = {
            name: next(iter(importlib.metadata.distributions(name=name, path=[str(self.site)])), None)
            for name in ("nvidia-pytriton", "numpy")
        }
        wheel, numpy = found["nvidia-pytriton"], found["numpy"]
        if numpy is None:
            return f"its Python backend needs numpy in {self.site}"
        wanted = next((need for need in (wheel and wheel.requires) or () if need.startswith("numpy")), "")
        # Beside one that is too new, models run and every output is empty.
        if "<2" in wanted and int(numpy.version.partition(".")[0]) > 1:
            return f"its Python backend needs {wanted}, and {self.site} has numpy {numpy.version}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A ``tritonserver``.

    Attributes:
        binary: The program.
        directory: Of its backends, a folder for each.
        backends: Names of those that can be used.
        wheel: That it is of; None where it is installed as in NVIDIA's image.
        why_not: Why backends that are there cannot be used.
    """

    binary: Path
    directory: Path
    backends: tuple[str, ...]
    wheel: Wheel | None = None
    why_not: str = ""

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Return the variables to start it with, given our own."""
        return dict(ours) if self.wheel is None else self.wheel.environment(ours)


def find(path: str) -> Installed | None:
    """Return the ``tritonserver`` of the folders of ``path``, else that of an installed ``nvidia-pytriton``."""
    binary = shutil.which("tritonserver", path=path)
    if binary is not None:
        return at(Path(binary).resolve())
    try:
        wheel = importlib.metadata.distribution("nvidia-pytriton")
    except importlib.metadata.PackageNotFoundError:
        return None
    inside = Path(str(wheel.locate_file("pytriton/tritonserver/bin/tritonserver")))
    return at(inside) if inside.is_file() else None


def at(binary: Path) -> Installed:
    """Return what belongs to a program, from the files around it."""
    root = binary.parent.parent
    directory = root / "backends"
    names = sorted(path.name for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    stubs = root / "python_backend_stubs"
    if not stubs.is_dir():
        return Installed(binary=binary, directory=directory, backends=tuple(names))
    site = root.parent.parent
    wheel = Wheel(site=site, stub=stubs / site.parent.name.removeprefix("python") / _STUB)
    if wheel.why_not:
        names.remove("python")
    return Installed(binary=binary, directory=directory, backends=tuple(names), wheel=wheel, why_not=wheel.why_not)


def _home(prefix: Path) -> Path:
    """Return where the Python of ``prefix`` is installed: there, or elsewhere for a virtual environment."""
    file = prefix / "pyvenv.cfg"
    lines = file.read_text().splitlines() if file.is_file() else []
    homes = [value.strip() for name, _, value in (line.partition("=") for line in lines) if name.strip() == "home"]
    return Path(homes[0]).parent if homes else prefix
