"""Which engine runs a repository, where NVIDIA's is found, and what is said when it cannot be used."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servery_runtime_triton.model import TritonModel
from servery_runtime_triton.model.engine import Engine, chosen
from servery_runtime_triton.model.tritonserver import installed
from servery_runtime_triton.model.tritonserver.installed import Installed
from servery_runtime_triton.model.tritonserver.process import GUARD
from servery_runtime_triton.model.tritonserver.server import delay_seconds
from servery_sdk.serving import LoadError

MODEL = "class TritonPythonModel:\n    def execute(self, requests): ...\n"
OUTPUT = 'output { name: "y" data_type: TYPE_FP32 dims: 1 }'
PYTHON_ONLY = Installed(binary=Path("/t/bin/tritonserver"), directory=Path("/t/backends"), backends=("python",))


def an_image(folder: Path, script: str = "", *, backends: tuple[str, ...] = ("python",)) -> Path:
    """Write what NVIDIA's image has; returns the program's folder."""
    for name in backends:
        (folder / "backends" / name).mkdir(parents=True)
    program = folder / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program.parent


def a_wheel(prefix: Path, *, numpy: str = "1.26.4", python: str = "3.11", wanted: str = "numpy<2.0.0,>=1.21") -> Path:
    """Write what ``pip install nvidia-pytriton`` does; returns the program's folder."""
    site = prefix / "lib" / f"python{python}" / "site-packages"
    root = site / "pytriton" / "tritonserver"
    folder = an_image(root)
    (root / "backends" / "python" / "libtriton_python.so").touch()
    stub = root / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.touch()
    for name, version, more in (
        ("nvidia_pytriton", "0.7.0", f"Requires-Dist: {wanted}\n"),
        *((("numpy", numpy, ""),) if numpy else ()),
    ):
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
    return folder


@pytest.mark.parametrize(
    ("wanted", "found", "backends", "engine"),
    [
        (Engine.AUTO, None, {"m": "python"}, Engine.SERVERY),
        (Engine.AUTO, PYTHON_ONLY, {"m": "python"}, Engine.TRITONSERVER),
        (Engine.AUTO, PYTHON_ONLY, {"m": "python", "e": "ensemble"}, Engine.TRITONSERVER),
        (Engine.AUTO, PYTHON_ONLY, {"m": "python", "o": "onnxruntime"}, Engine.SERVERY),
        (Engine.SERVERY, PYTHON_ONLY, {"m": "python"}, Engine.SERVERY),
        (Engine.TRITONSERVER, PYTHON_ONLY, {"m": "python"}, Engine.TRITONSERVER),
    ],
)
def test_tritonserver_runs_a_repository_where_it_has_all_backends(
    wanted: Engine, found: Installed | None, backends: dict[str, str], engine: Engine
) -> None:
    assert chosen(wanted, found, backends) is engine


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "no tritonserver on PATH, and no nvidia-pytriton beside the server"),
        (PYTHON_ONLY, "has the backends python, and not: onnxruntime (model 'm')"),
    ],
    ids=["not-installed", "backend-missing"],
)
def test_tritonserver_that_is_wanted_and_cannot_be_says_what_else_there_is(found: Installed | None, words: str) -> None:
    with pytest.raises(LoadError) as refused:
        chosen(Engine.TRITONSERVER, found, {"m": "onnxruntime"})
    assert words in str(refused.value)
    assert "--engine=servery" in str(refused.value)


def test_an_image_is_found_on_the_path_and_started_as_it_is(tmp_path: Path) -> None:
    found = installed.find(str(an_image(tmp_path, backends=("onnxruntime", "python"))))
    assert found is not None
    assert (found.backends, found.directory) == (("onnxruntime", "python"), tmp_path / "backends")
    assert found.environment({"PATH": "/bin"}) == {"PATH": "/bin"}


def test_a_wheel_runs_models_with_the_python_of_its_own_environment(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /opt/python/bin\nversion = 3.11\n")
    found = installed.find(str(a_wheel(tmp_path)))
    assert found is not None
    assert found.backends == ("python",)
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    assert found.environment({"PATH": "/bin", "HOME": "/h"}) == {
        "PATH": f"{tmp_path}/bin:/bin",
        "LD_LIBRARY_PATH": f"/opt/python/lib:{site}/nvidia_pytriton.libs",
        "HOME": "/h",
    }


@pytest.mark.parametrize(
    ("wheel", "words"),
    [
        ({"numpy": "2.4.6"}, r"needs numpy<2\.0\.0,>=1\.21, and \S+ has numpy 2\.4\.6"),
        ({"numpy": ""}, r"needs numpy in "),
        ({"python": "3.99"}, r"has no \S+3\.99/triton_python_backend_stub"),
    ],
    ids=["numpy-too-new", "no-numpy", "no-stub"],
)
def test_a_wheel_whose_python_backend_would_answer_nothing_is_not_used_for_it(
    tmp_path: Path, wheel: dict[str, str], words: str
) -> None:
    found = installed.find(str(a_wheel(tmp_path, **wheel)))
    assert found is not None
    assert found.backends == ()
    with pytest.raises(LoadError, match=words):
        chosen(Engine.TRITONSERVER, found, {"m": "python"})


def test_a_newer_wheel_may_take_a_newer_numpy(tmp_path: Path) -> None:
    found = installed.find(str(a_wheel(tmp_path, numpy="2.4.6", wanted="numpy>=2")))
    assert found is not None
    assert found.backends == ("python",)


@pytest.mark.local
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'tritonserver: error while loading shared libraries: libcudart.so.12: cannot open' >&2; exit 127",
            "it needs libcudart.so.12, which this machine does not have",
        ),
        ("echo 'E1121 14:58:27.7 21068 server.cc:1] \"such a day\"'; exit 1", "does not start: such a day; or choose"),
        ("exit 3", "exit code 3"),
    ],
    ids=["library", "its-own-words", "silent"],
)
def test_a_server_that_does_not_start_says_why_and_what_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    folder = an_image(tmp_path / "image", script)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    files = tmp_path / "models" / "m" / "1"
    files.mkdir(parents=True)
    (files / "model.py").write_text(MODEL)
    (files.parent / "config.pbtxt").write_text(f'backend: "python" {OUTPUT}')
    with pytest.raises(LoadError, match=re.escape(words)) as refused:
        TritonModel(engine="tritonserver").load(tmp_path / "models")
    assert str(folder / "tritonserver") in str(refused.value)
    assert "--engine=servery" in str(refused.value)


@pytest.mark.local
@pytest.mark.parametrize(
    ("program", "exit_code"),
    [
        ("import signal; print('up', flush=True); signal.pause()", 128 + signal.SIGTERM),
        (
            "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()",
            128 + signal.SIGKILL,
        ),
    ],
    ids=["ends", "does-not-listen"],
)
def test_a_guarded_program_ends_when_nobody_holds_the_guards_input(program: str, exit_code: int) -> None:
    command = [sys.executable, "-I", str(GUARD), "0.2", sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        assert guard.stdout.readline() == "up\n"
        guard.stdin.close()
        assert guard.wait(20) == exit_code


@pytest.mark.local
def test_a_guard_ends_with_its_program() -> None:
    command = [sys.executable, "-I", str(GUARD), "9", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as guard:
        assert guard.wait(20) == 7


def test_one_that_dies_again_and_again_is_started_less_and_less_often() -> None:
    assert [delay_seconds(deaths) for deaths in (0, 1, 2, 3, 4, 9)] == [0, 0, 1, 2, 4, 30]
