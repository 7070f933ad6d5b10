"""``servery-predictor``: KServe's flags, in its spelling and in kebab-case."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from pydantic import ValidationError
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.model import Runtime

from servery_predictor.repository import reason
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings

_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what ``extra`` holds becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _RECORD},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def parser() -> argparse.ArgumentParser:
    """Return the parser of every setting as a flag."""
    made = argparse.ArgumentParser("servery-predictor", description="Serve one model.", allow_abbrev=False)
    for name in Settings.model_fields:
        # KServe writes underscores, everybody else dashes.
        flags = [f"--{name.replace('_', '-')}"] + ([f"--{name}"] if "_" in name else [])
        made.add_argument(*flags, dest=name, default=argparse.SUPPRESS, metavar=name.upper(), required=False)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; exits 0 after a drain, 1 when the model does not load, 2 on wrong flags."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    made = parser()
    try:
        settings = Settings(**vars(made.parse_args(arguments)))
    except ValidationError as error:
        made.error("; ".join(f"--{'.'.join(map(str, e['loc'])).replace('_', '-')}: {e['msg']}" for e in error.errors()))
    try:
        runtime = find_runtime(settings.runtime)
        uvloop.run(serve(settings, runtime))
    except ServeryError as error:
        _leave_word(settings.termination_log, reason(error))
        raise SystemExit(1) from error


async def serve(settings: Settings, runtime: Runtime) -> None:
    """Serve until a signal comes."""
    await Predictor(settings, runtime).run()


def find_runtime(name: str) -> Runtime:
    """Return the descriptor of an installed runtime plugin.

    Raises:
        ServeryError: Not installed; says what is.
    """
    runtimes = plugins.load().runtimes
    found = runtimes.get(f"servery-{name}") or runtimes.get(name)
    if found is None:
        raise ServeryError(f"--runtime {name}: not installed; installed are: {', '.join(sorted(runtimes)) or 'none'}")
    return found


def _leave_word(termination_log: Path, message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201  # the last line of the log is what kubectl shows
    if termination_log.exists():
        with contextlib.suppress(OSError):
            termination_log.write_text(message)


if __name__ == "__main__":
    main()
