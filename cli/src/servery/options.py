"""Options that several commands share, and how data is printed."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml
from servery_sdk.manifests import Json

from servery.state import State, default_directory


class Output(enum.StrEnum):
    """Formats of data."""

    YAML = "yaml"
    JSON = "json"


Files = Annotated[
    list[str], typer.Option("--filename", "-f", help="Manifests: a file, a folder, or - for standard input.")
]
Catalogs = Annotated[
    list[str] | None, typer.Option("--catalog", help="More runtimes: a file or folder of ServingRuntime manifests.")
]
StateDirectory = Annotated[
    Path | None, typer.Option("--state-dir", help="Of the platform. Default: $XDG_STATE_HOME/servery.")
]
Mode = Annotated[str | None, typer.Option("--mode", help="For services that ask for none; servery plugins lists them.")]
InNamespace = Annotated[str, typer.Option("--namespace", "-n", help="Of the service.")]


def state(directory: Path | None) -> State:
    """Return the state folder that a command works on."""
    return State((directory or default_directory()).resolve())


def print_data(documents: Sequence[Json], output: Output) -> None:
    """Print ``documents`` on stdout; several as a stream of YAML documents, or a JSON array."""
    if output is Output.JSON:
        value = documents[0] if len(documents) == 1 else list(documents)
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    else:
        sys.stdout.write(yaml.dump_all(documents, sort_keys=False))


def say(words: str) -> None:
    """Print prose on stderr."""
    sys.stderr.write(words + "\n")
    sys.stderr.flush()
