"""The ``servery`` command. Each subcommand is a module of ``servery.commands``, imported only when it runs."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from servery_sdk.errors import ServeryError
from typer.core import TyperGroup

COMMANDS = ("up", "down", "predict", "get", "logs", "render", "explain", "validate", "convert", "runtimes", "plugins")


class Commands(TyperGroup):
    """Finds a subcommand by the name of its module."""

    def list_commands(self, ctx: Any) -> list[str]:  # click's signature
        """Return all names, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the subcommand, its module imported now."""
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"servery.commands.{cmd_name}")
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name)(module.command)
        return typer.main.get_command(single)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serve machine-learning models from the manifest that you already have.",
)


@app.callback()
def _servery() -> None:
    """Serve machine-learning models from the manifest that you already have."""


def main() -> None:
    """Run; exits 0 ok, 1 failed, 2 usage."""
    try:
        app()
    except ServeryError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
