"""``servery-predictor``: KServe's flags, in its spelling and in kebab-case."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import uvloop
from pydantic import TypeAdapter, ValidationError
from servery_sdk import logs, plugins
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import Option, OptionKind, Runtime

from servery_predictor.crew.supervisor import Supervisor
from servery_predictor.factory import Options
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


_UNSPELLED = frozenset({OptionKind.LEFTOVER, OptionKind.UNKNOWN})
"""Options that are no flag of their own."""

_KSERVES = {"threads": ["--nthread"]}
"""Other names that KServe's servers have for a setting."""


class WrongFlags(ServeryError):
    """The command line says something that cannot be."""

    code = ErrorCode.INVALID_ARGUMENT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave it to the caller: not every one is a process of its own."""
        raise WrongFlags(message)


def parser(options: Sequence[Option] = ()) -> argparse.ArgumentParser:
    """Return the parser of every setting as a flag, and of a runtime's own."""
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
    own = made.add_argument_group("of the runtime")
    for option in options:
        if option.kind in _UNSPELLED:
            continue
        own.add_argument(
            *(spelling for name in (option.name, *option.aliases) for spelling in _spellings(name)),
            dest=option.name,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS if option.is_ignored else option.meaning.replace("%", "%%"),
            metavar=option.name.upper(),
            **({"nargs": "?", "const": "true"} if option.kind is OptionKind.SWITCH else {}),  # type: ignore[arg-type]  # by name
        )
    return made


def _spellings(name: str) -> list[str]:
    # KServe writes underscores, everybody else dashes.
    return [f"--{name.replace('_', '-')}"] + ([f"--{name}"] if "_" in name else []) + _KSERVES.get(name, [])


def settings_from(arguments: Sequence[str] | None) -> tuple[Settings, Options]:
    """Return what flags and environment say together, and what of it is the runtime's own; None takes the process's flags.

    Raises:
        WrongFlags: One is unknown or has a wrong value.
    """
    name = vars(parser().parse_known_args(arguments)[0]).get("runtime") or os.environ.get(_variable("runtime"), "")
    asked = _installed().get(name)
    runtime = _standing_in(asked, arguments)
    options = runtime.options if runtime is not None else ()
    made = parser(options)
    known, unknown = made.parse_known_args(arguments)
    given = vars(known)
    ignored = {**IGNORED, **{option.name: option.meaning for option in options if option.is_ignored}}
    rest = next((option for option in options if option.kind in _UNSPELLED), None)
    passed: tuple[str, ...] = tuple(unknown)
    if rest is not None and rest.kind is OptionKind.LEFTOVER:
        # What means nothing here may mean something to the program, which has KServe's own parser.
        passed = (*unknown, *(f"--{flag}={given[flag]}" for flag in sorted(ignored.keys() & given)))
        ignored = {}
    elif unknown and rest is None and runtime is not None:
        # Of a runtime that is not here nobody knows the flags; that it is missing is the better complaint.
        made.error(f"unrecognized arguments: {' '.join(unknown)}")
    for flag in sorted(ignored.keys() & given):
        logger.warning("flag changes nothing", extra={"flag": f"--{flag}", "reason": ignored[flag]})
    try:
        told = {name: value for name, value in given.items() if name in Settings.model_fields}
        if runtime is not None and runtime is not asked:
            told["runtime"] = runtime.name
        settings = Settings(**told)
    except ValidationError as error:
        raise WrongFlags(
            "; ".join(f"--{'.'.join(map(str, e['loc'])).replace('_', '-')}: {e['msg']}" for e in error.errors())
        ) from error
    values = _values([option for option in options if option.kind in _READERS and not option.is_ignored], given)
    return settings, values if rest is None else {**values, rest.name: passed}


def _standing_in(runtime: Runtime | None, arguments: Sequence[str] | None) -> Runtime | None:
    """Return the runtime that serves in the place of ``runtime``: mostly itself."""
    if runtime is None or runtime.stand_in is None:
        return runtime
    module, _, attribute = runtime.stand_in.partition(":")
    given = vars(parser(runtime.options).parse_known_args(arguments)[0])
    names = (*(option.name for option in runtime.options), "model_dir")
    told = {name: given.get(name, os.environ.get(_variable(name))) for name in names}
    flags = {name: text for name, text in told.items() if text is not None}
    artifact = Path(flags.pop("model_dir", Settings.model_fields["model_dir"].default))
    name = getattr(import_module(module), attribute)(flags, artifact)
    return runtime if name is None else find_runtime(name)


def _values(options: Sequence[Option], given: Mapping[str, str]) -> Mapping[str, str | int | bool]:
    """Return the options that somebody set, flags before variables."""
    found: dict[str, str | int | bool] = {}
    for option in options:
        text = given.get(option.name, os.environ.get(_variable(option.name)))
        if text is None:
            continue
        try:
            found[option.name] = _READERS[option.kind](text)
        except ValidationError as error:
            raise WrongFlags(
                f"--{option.name.replace('_', '-')}: {error.errors()[0]['msg']}, found {text!r}"
            ) from error
        if option.choices and text not in option.choices:
            choices = ", ".join(sorted(option.choices))
            raise WrongFlags(f"--{option.name.replace('_', '-')}: {text!r} is none of: {choices}")
    return found


_READERS: Mapping[OptionKind, Callable[[str], str | int | bool]] = {
    OptionKind.TEXT: str,
    OptionKind.INTEGER: TypeAdapter(int).validate_python,
    OptionKind.SWITCH: TypeAdapter(bool).validate_python,
}


def _variable(name: str) -> str:
    return f"{Settings.model_config['env_prefix']}{name.upper()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; exits 0 after a drain, 1 when the model does not load, 2 on wrong flags."""
    logs.to_stderr()
    try:
        settings, options = settings_from(arguments)
    except WrongFlags as error:
        made = parser()
        made.exit(2, f"{made.format_usage()}{made.prog}: error: {error}\n")
    try:
        runtime = find_runtime(settings.runtime)
        serve(settings, runtime, options)
    except ServeryError as error:
        _leave_word(settings.termination_log, reason(error))
        raise SystemExit(1) from error


def serve(settings: Settings, runtime: Runtime, options: Options) -> None:
    """Serve until a signal comes, here or in processes of our own.

    Raises:
        ServeryError: The model cannot be served.
    """
    if settings.workers > 1:
        Supervisor(settings, runtime, options).run()
    else:
        uvloop.run(_alone(settings, runtime, options))


async def _alone(settings: Settings, runtime: Runtime, options: Options) -> None:
    await Predictor(settings, runtime, options=options).run()


def find_runtime(name: str) -> Runtime:
    """Return the descriptor of an installed runtime plugin.

    Raises:
        ServeryError: Not installed; says what is.
    """
    found = _installed().get(name)
    if found is None:
        present = ", ".join(sorted({runtime.name for runtime in _installed().values()}))
        raise ServeryError(f"--runtime {name}: not installed; installed are: {present or 'none'}")
    return found


@functools.cache
def _installed() -> Mapping[str, Runtime]:
    """Return the runtimes by their names, those of Servery's own also without ``servery-``."""
    runtimes = plugins.load().runtimes
    return {**runtimes, **{name.removeprefix("servery-"): runtime for name, runtime in runtimes.items()}}


def _leave_word(termination_log: Path, message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201  # the last line of the log is what kubectl shows
    if termination_log.exists():
        with contextlib.suppress(OSError):
            termination_log.write_text(message)


if __name__ == "__main__":
    main()
