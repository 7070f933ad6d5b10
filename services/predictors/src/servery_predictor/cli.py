"""``servery-predictor``: KServe's flags, in its spelling and in kebab-case."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import uvloop
from pydantic import ValidationError
from servery_sdk import logs, plugins
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import Runtime

from servery_predictor.crew.supervisor import Supervisor
from servery_predictor.repository import reason
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings

logger = logging.getLogger(__name__)

IGNORED = {
    "access_log_format": "requests are counted in /metrics, not logged",
    "configure_logging": "logs are JSON lines",
    "enable_docs_url": "the documentation is always at /docs",
    "enable_latency_logging": "latencies are in /metrics",
    "event_loop": "always uvloop",
    "grpc_max_receive_message_length": "--max-body-bytes bounds REST and gRPC",
    "grpc_max_send_message_length": "--max-body-bytes bounds REST and gRPC",
    "log_config_file": "logs are JSON lines",
    "max_asyncio_workers": "a model has one thread; requests gather to batches",
    "max_threads": "a model has one thread; requests gather to batches",
    "protocol": "every protocol is served",
    "timeout_keep_alive": "the front decides",
}
"""Flags of KServe that change nothing here, and why: manifests that set them go on working."""


_KSERVES = {"threads": ["--nthread"]}
"""Other names that KServe's servers have for a setting."""


class WrongFlags(ServeryError):
    """The command line says something that cannot be."""

    code = ErrorCode.INVALID_ARGUMENT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave it to the caller: not every one is a process of its own."""
        raise WrongFlags(message)


def parser() -> argparse.ArgumentParser:
    """Return the parser of every setting as a flag."""
    made = _Parser(
        "servery-predictor",
        description="Serve one model.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Flags of KServe that are accepted and change nothing:\n"
        + "\n".join(f"  --{name}: {why}" for name, why in sorted(IGNORED.items())),
    )
    for name in Settings.model_fields:
        made.add_argument(*_spellings(name), dest=name, default=argparse.SUPPRESS, metavar=name.upper())
    for name in IGNORED:
        made.add_argument(*_spellings(name), dest=name, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def _spellings(name: str) -> list[str]:
    # KServe writes underscores, everybody else dashes.
    return [f"--{name.replace('_', '-')}"] + ([f"--{name}"] if "_" in name else []) + _KSERVES.get(name, [])


def settings_from(arguments: Sequence[str] | None) -> Settings:
    """Return what flags and environment say together; None takes the process's own flags.

    Raises:
        WrongFlags: One is unknown or has a wrong value.
    """
    given = vars(parser().parse_args(arguments))
    for name in sorted(IGNORED.keys() & given):
        logger.warning("flag changes nothing", extra={"flag": f"--{name}", "reason": IGNORED[name]})
    try:
        return Settings(**{name: value for name, value in given.items() if name not in IGNORED})
    except ValidationError as error:
        raise WrongFlags(
            "; ".join(f"--{'.'.join(map(str, e['loc'])).replace('_', '-')}: {e['msg']}" for e in error.errors())
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; exits 0 after a drain, 1 when the model does not load, 2 on wrong flags."""
    logs.to_stderr()
    try:
        settings = settings_from(arguments)
    except WrongFlags as error:
        made = parser()
        made.exit(2, f"{made.format_usage()}{made.prog}: error: {error}\n")
    try:
        runtime = find_runtime(settings.runtime)
        serve(settings, runtime)
    except ServeryError as error:
        _leave_word(settings.termination_log, reason(error))
        raise SystemExit(1) from error


def serve(settings: Settings, runtime: Runtime) -> None:
    """Serve until a signal comes, here or in processes of our own.

    Raises:
        ServeryError: The model cannot be served.
    """
    if settings.workers > 1:
        Supervisor(settings, runtime).run()
    else:
        uvloop.run(_alone(settings, runtime))


async def _alone(settings: Settings, runtime: Runtime) -> None:
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
