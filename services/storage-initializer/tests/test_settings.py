"""Its arguments are pairs, as KServe's are, so its settings are variables: before the defaults, nothing else."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import pytest
from servery_storage.cli import USAGE, main
from servery_storage.settings import Settings

FIELDS = sorted(Settings.model_fields)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(f"SERVERY_STORAGE_{name.upper()}", raising=False)


@pytest.mark.parametrize("name", FIELDS)
def test_variable_counts_before_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings.model_fields[name].default
    assert getattr(Settings(), name) == default
    other = str(list(type(default))[-1]) if isinstance(default, StrEnum) else "17"
    monkeypatch.setenv(f"SERVERY_STORAGE_{name.upper()}", other)
    found = getattr(Settings(), name)
    assert found == (Path if default is None else type(default))(other)
    assert found != default


def test_command_heeds_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setenv("SERVERY_STORAGE_TERMINATION_LOG", str(log))
    with pytest.raises(SystemExit) as ended:
        main([f"file://{tmp_path}/nothing", str(tmp_path / "target")])
    assert ended.value.code == 1
    assert "nothing" in log.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(["s3://b/m"], id="a source without its target"),
        pytest.param(["--max-attempts=3", "s3://b/m", "/mnt/models"], id="a flag before a pair"),
        pytest.param(["s3://b/m", "--help"], id="a question"),
    ],
)
def test_what_is_no_list_of_pairs_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert USAGE in capsys.readouterr().err
