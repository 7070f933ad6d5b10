"""``servery-agent``: our settings as flags, and those of KServe's agent as it spells them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import uvloop
from pydantic import ValidationError
from servery_sdk import logs
from servery_sdk.errors import ErrorCode, ServeryError

from servery_agent import telling
from servery_agent.asking import is_ready_within
from servery_agent.durations import seconds_of
from servery_agent.server import Agent
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

IDLE: Mapping[str, str] = {
    "log_marshaller_port": "a server that KServe's agent asks itself at",
}
"""Flags of KServe that change nothing here, and why."""

_ALSO: Mapping[str, tuple[str, ...]] = {"batch_timeout_seconds": ("--timeout",), "max_batchsize": ("--max-batch-size",)}
"""Other words for settings: KServe's, and the usual ones."""


class WrongFlags(ServeryError):
    """The command line says something that cannot be."""

    code = ErrorCode.INVALID_ARGUMENT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave it to the caller."""
        raise WrongFlags(message)


def parser() -> argparse.ArgumentParser:
    """Return the parser of every setting, and of KServe's flags beside."""
    made = _Parser("servery-agent", description="Stand in front of a predictor.", allow_abbrev=False)
    for name, field in Settings.model_fields.items():
        is_switch: Mapping[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        spellings = (*_spellings(name), *_ALSO.get(name, ()))
        made.add_argument(*spellings, dest=name, default=argparse.SUPPRESS, metavar=name.upper(), **is_switch)
    for name in (*IDLE, "probe_period"):
        # A switch of KServe's may stand without its value.
        made.add_argument(
            *_spellings(name), dest=name, nargs="?", const="true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return made


def _spellings(name: str) -> list[str]:
    return [f"--{name.replace('_', '-')}"] + ([f"--{name}"] if "_" in name else [])


def settings_from(arguments: Sequence[str] | None) -> tuple[Settings, float | None]:
    """Return what flags and environment say together, and how long ``--probe-period`` would have somebody ask.

    Raises:
        WrongFlags: One is unknown, or has a wrong value.
    """
    given = vars(parser().parse_args(arguments))
    try:
        settings = Settings(**{name: value for name, value in given.items() if name in Settings.model_fields})
    except ValidationError as error:
        raise WrongFlags(
            "; ".join(
                f"--{str(e['loc'][0]).removeprefix('servery_agent_').replace('_', '-')}: {e['msg']}"
                for e in error.errors()
            )
        ) from error
    return settings, _seconds(given.get("probe_period", "-1"))


def _seconds(duration: str) -> float | None:
    """Return what a duration in Go's words says, None where it is negative: nobody asks."""
    if duration.startswith("-") and (duration[1:].isdigit() or seconds_of(duration[1:]) is not None):
        return None
    # A bare number counts nanoseconds in Go; only zero is allowed there.
    seconds = float(duration) * 1e-9 if duration.isdigit() else seconds_of(duration)
    if seconds is None:
        raise WrongFlags(f"--probe-period: {duration!r} is no duration, such as 10s or 500ms")
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; exits 0 after a drain, 1 when it cannot start or is not ready in time, 2 on wrong flags."""
    logs.to_stderr()
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in telling.COMMANDS:
        raise SystemExit(telling.main(words))
    try:
        settings, probe_seconds = settings_from(arguments)
    except WrongFlags as error:
        made = parser()
        made.exit(2, f"{made.format_usage()}{made.prog}: error: {error}\n")
    if probe_seconds is not None:
        raise SystemExit(0 if uvloop.run(is_ready_within(probe_seconds, settings.port)) else 1)
    try:
        uvloop.run(_serve(settings))
    except (ServeryError, OSError) as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201  # the last line of the log is what kubectl shows
        raise SystemExit(1) from error


async def _serve(settings: Settings) -> None:
    await Agent(settings).run()


if __name__ == "__main__":
    main()
