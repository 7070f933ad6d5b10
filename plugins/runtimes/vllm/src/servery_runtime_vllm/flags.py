"""vLLM's command line, of the predictor's options. Pure.

Source: KServe, python/huggingfaceserver, ``__main__.py``; vLLM, "Server Arguments".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

TASKS: Mapping[str, tuple[str, ...]] = {
    "text_generation": ("--runner=generate",),
    "text_embedding": ("--runner=pooling", "--convert=embed"),
    "sequence_classification": ("--runner=pooling", "--convert=classify"),
    "rerank": ("--runner=pooling", "--convert=classify"),
    "token_classification": ("--runner=pooling",),
}
"""KServe's tasks, in vLLM's words."""

NAMES = "--served-model-name"


def command_line(
    artifact: Path,
    name: str,
    *,
    arguments: Sequence[str] = (),
    task: str | None = None,
    backend: str = "auto",
    model_id: str | None = None,
    model_revision: str | None = None,
    max_length: int | None = None,
) -> list[str]:
    """Return vLLM's arguments; the user's own come last, so they win.

    Args:
        artifact: Served where neither ``model_id`` nor the user's ``--model`` or positional argument names another.
        name: That the server was given; a name of the model unless the user's flags say ``--served-model-name``.
        arguments: vLLM's, as the user wrote them.
        backend: KServe's; whoever is asked has been chosen already.
    """
    del backend
    return [
        f"--model={model_id or artifact}",
        *(() if any(_is(argument, NAMES) for argument in arguments) else (f"{NAMES}={name}",)),
        *(() if model_revision is None else (f"--revision={model_revision}",)),
        *(() if max_length is None else (f"--max-model-len={max_length}",)),
        *(() if task is None else TASKS[task]),
        *arguments,
    ]


def _is(argument: str, flag: str) -> bool:
    # vLLM takes underscores for dashes.
    return argument.partition("=")[0].replace("_", "-") == flag
