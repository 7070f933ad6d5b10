"""``servery-agent``: our settings as flags, and those of KServe's agent as it spells them."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import uvloop
from pydantic import ValidationError
from servery_sdk import logs
from servery_sdk.errors import ErrorCode, ServeryError

from servery_agent.asking import is_ready_within
from servery_agent.server import Agent
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

_LOGGING, _BATCHING = "payload logging", "batching"
NOT_YET: Mapping[str, tuple[str, str]] = {
    "enable_batcher": (_BATCHING, "false"),
    "log_url": (_LOGGING, ""),
}
"""Flags of KServe that ask for what this agent has not: what that is, and the value that does not ask for it."""

IDLE: Mapping[str, str] = {
    **dict.fromkeys(("max_batchsize", "max_latency", "timeout"), _BATCHING),
    **dict.fromkeys(
        (
            "component",
            "endpoint",
            "inference_service",
            "log_batch_interval",
            "log_batch_size",
            "log_marshaller_port",
            "log_marshaller_url",
            "log_mode",
            "log_store_format",
            "log_store_path",
            "logger_ca_cert_file",
            "logger_tls_skip_verify",
            "metadata_annotations",
            "metadata_headers",
            "namespace",
            "source_uri",
            "workers",
        ),
        _LOGGING,
    ),
}
"""Flags of KServe that say more about those, and change nothing as long as nobody asks for them."""

_DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+|-?\d+")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


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
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
        made.add_argument(*_spellings(name), dest=name, default=argparse.SUPPRESS, metavar=name.upper(), **switch)
    for name in (*NOT_YET, *IDLE, "probe_period"):
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
        WrongFlags: One is unknown, has a wrong value, or asks for what is not here.
    """
    given = vars(parser().parse_args(arguments))
    for name, (what, harmless) in NOT_YET.items():
        if given.get(name, harmless).lower() != harmless:
            raise WrongFlags(f"--{name.replace('_', '-')}: this agent does no {what} yet")
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
    if not _DURATION.fullmatch(duration):
        raise WrongFlags(f"--probe-period: {duration!r} is no duration, such as 10s or 500ms")
    if duration.startswith("-"):
        return None
    if duration.isdigit():
        # A bare number counts nanoseconds in Go; only zero is allowed there.
        return float(duration) * _UNIT_SECONDS["ns"]
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([a-zµ]+)", duration))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; exits 0 after a drain, 1 when it cannot start or is not ready in time, 2 on wrong flags."""
    logs.to_stderr()
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
