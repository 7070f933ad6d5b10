"""``servery-storage-initializer SRC DST [SRC DST …]``: KServe's arguments."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.fetches import FetchReport

from servery_storage.engine import Engine
from servery_storage.patterns import Patterns
from servery_storage.progress import JsonLines, TerminalBars
from servery_storage.settings import Settings
from servery_storage.trust import trust_mounted_bundle

TEMPORARY = ".servery-temporary"
USAGE = "usage: servery-storage-initializer SRC DST [SRC DST …]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch every pair; exits 0 done (what it took is in the termination log), 1 failed (the reason, and on stderr), 2 usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or len(given) % 2 or any(argument in {"-h", "--help"} for argument in given):
        print(USAGE, file=sys.stderr)  # noqa: T201  # a command's usage
        raise SystemExit(2)
    settings = Settings()
    pairs = [(given[index], Path(given[index + 1])) for index in range(0, len(given), 2)]
    try:
        with _temporary_files(pairs[0][1]):
            trust_mounted_bundle(os.environ)
            engine = Engine(plugins.load().storage_providers, settings)
            report = asyncio.run(_run(engine, pairs, Patterns.of(os.environ)))
    except ServeryError as error:
        print(error, file=sys.stderr)  # noqa: T201  # the last line of the log is what kubectl shows
        _leave(str(error), settings.termination_log)
        raise SystemExit(1) from error
    _leave(report.text(), settings.termination_log)


def _leave(last_words: str, termination_log: Path) -> None:
    """Nobody can ask a container that has ended: its last words stay in the pod's status."""
    if termination_log.exists():
        with contextlib.suppress(OSError):
            termination_log.write_text(last_words)


@contextlib.contextmanager
def _temporary_files(target: Path) -> Iterator[None]:
    """See that there is a directory of temporary files: in a pod whose root is read-only, only the model's volume can be
    written, and some sources need one, as a repository of git.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        directory = target / TEMPORARY
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(directory)
        try:
            yield
        finally:
            tempfile.tempdir = None
            shutil.rmtree(directory, ignore_errors=True)
    else:
        yield


async def _run(engine: Engine, pairs: Sequence[tuple[str, Path]], patterns: Patterns) -> FetchReport:
    console, report = Console(stderr=True), FetchReport()
    for source, target in pairs:
        with contextlib.ExitStack() as stack:
            told = stack.enter_context(TerminalBars(console)) if console.is_terminal else JsonLines()
            await engine.fetch(source, target, told, patterns)
        report += told.report()
    return report
