from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_ins.registry import Registry, Unavailable, registry_program, registry_served

TOOLS = Path(__file__).parent / "registry"


@pytest.fixture(scope="session")
def program() -> Path:
    """The registry's program."""
    try:
        return registry_program(TOOLS)
    except Unavailable as reason:
        pytest.skip(f"{reason}: oci:// is NOT tested against a registry")


@pytest.fixture(scope="module")
def registry(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One that knows no passwords, and no TLS."""
    with registry_served(program, tmp_path_factory.mktemp("registry")) as registry:
        yield registry
