"""The commands that the README and the how-to pages print are run, and what they print is compared."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]

# Run elsewhere: the tests themselves, and what needs a cluster (tests/cluster applies the same folders).
ELSEWHERE = re.compile(r"uv run tox|kubectl")


@dataclass(frozen=True, slots=True)
class Command:
    """A line after ``$``, and the lines that it is said to print."""

    line: str
    printed: str


def commands(page: Path) -> Iterator[Command]:
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, printed = part.partition("\n")
            if not ELSEWHERE.search(line):
                yield Command(line, printed.strip())


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    # A reader has no virtual environment; the test runner's must not answer for theirs.
    outside = [p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p).parent / "pyvenv.cfg").exists()]
    environment = {**os.environ, "PATH": os.pathsep.join(outside), "XDG_STATE_HOME": str(tmp_path / "state")}
    environment.pop("VIRTUAL_ENV", None)
    yield environment
    subprocess.run(["uv", "run", "servery", "down"], cwd=ROOT, env=environment, capture_output=True, check=False)


def pages() -> Iterator[Path]:
    yield from (page for page in PAGES if any(commands(page)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", list(pages()), ids=lambda path: path.name)
def test_page_prints_what_its_commands_print(page: Path, environment: Mapping[str, str]) -> None:
    for command in commands(page):
        done = subprocess.run(
            command.line, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command.line}\n{done.stdout}{done.stderr}"
        if command.printed:
            assert done.stdout.strip().endswith(command.printed), f"{command.line}\n{done.stdout}{done.stderr}"


def markdown() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    yield from (ROOT / name for name in listed.stdout.splitlines())


@pytest.mark.parametrize("page", list(markdown()), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
