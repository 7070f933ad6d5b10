"""The Java virtual machine of this process, in which JPMML evaluates. It starts once, and stays until the process ends."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import jpmml_evaluator
import jpype

OLDEST = 11
"""The oldest Java that runs JPMML 1.7."""
_ASKS_FOR_NATIVE_ACCESS = 22
"""From this Java on, a library such as JPype needs leave to call native code, or every start warns."""

_VERSION = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.MULTILINE)
_starting = threading.Lock()


class NoJava(Exception):
    """There is no Java here that runs JPMML. Says what was found and how to get one."""


def start() -> None:
    """Start the machine if none runs.

    Raises:
        NoJava: There is none, or it does not start.
    """
    with _starting:
        if jpype.isJVMStarted():
            return
        library = found()
        try:
            jpype.startJVM(str(library), *options(library), classpath=jars())
        except (OSError, RuntimeError, jpype.JException) as error:
            raise NoJava(_taught(f"{library} does not start: {error}")) from error


def found() -> Path:
    """Return the library of the Java to run: that of ``JAVA_HOME``, else of the extra ``jvm``, else the machine's own.

    Raises:
        NoJava: There is none.
    """
    if "JAVA_HOME" not in os.environ and (own := _own()) is not None:
        return own
    try:
        return Path(jpype.getDefaultJVMPath())
    except (jpype.JVMNotFoundException, jpype.JVMNotSupportedException) as error:
        raise NoJava(_taught(f"none was found ({error})")) from error


def options(library: Path) -> Sequence[str]:
    """Return the flags that ``library`` starts with.

    Raises:
        NoJava: It is too old.
    """
    # Java would take SIGTERM and SIGINT for itself and end the process under the server's hands.
    flags = ["-Xrs"]
    # <home>/lib/server/libjvm.so; a Java without this file is taken as it is.
    release = library.parents[2] / "release"
    version = _VERSION.search(release.read_text()) if release.is_file() else None
    if version is None:
        return flags
    if int(version[1]) < OLDEST:
        raise NoJava(_taught(f"{library} is Java {version[1]}"))
    if int(version[1]) >= _ASKS_FOR_NATIVE_ACCESS:
        flags.append("--enable-native-access=ALL-UNNAMED")
    return flags


def jars() -> list[str]:
    """Return the paths of JPMML's own classes and of what they need."""
    return sorted(str(jar) for jar in Path(jpmml_evaluator.__file__).parent.glob("*/*.jar"))


def _own() -> Path | None:
    try:
        from servery_runtime_pmml import jvm
    except ModuleNotFoundError:
        return None
    return next(iter(sorted(jvm.HOME.glob("lib/server/libjvm.*"))), None)


def _taught(what: str) -> str:
    return (
        f"PMML is evaluated by JPMML, which needs Java {OLDEST} or newer: {what}; "
        "pip install 'servery-runtime-pmml[jvm]', or install the system's (Debian: openjdk-17-jre-headless), "
        "or set JAVA_HOME"
    )
