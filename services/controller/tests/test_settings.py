"""Flag before variable before file before default; whatever is wrong is a usage error that names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servery_controller.cli import main
from servery_controller.settings import Settings, load
from servery_sdk.plugins import Plugins

FIELDS = sorted(Settings.model_fields)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(f"SERVERY_CONTROLLER_{name.upper()}", raising=False)
    for name in ("POD_NAME", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "expected"),
    [
        pytest.param("a", "b", "c", "a", id="a flag before all"),
        pytest.param(None, "b", "c", "b", id="a variable before the file"),
        pytest.param(None, None, "c", "c", id="the file before the default"),
        pytest.param(None, None, None, "example.com", id="the default where nothing is said"),
        pytest.param("a", None, "c", "a", id="a flag before the file"),
        pytest.param("a", "b", None, "a", id="a flag before a variable"),
    ],
)
def test_precedence(
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[str], Path],
    flag: str | None,
    variable: str | None,
    in_file: str | None,
    expected: str,
) -> None:
    if variable is not None:
        monkeypatch.setenv("SERVERY_CONTROLLER_INGRESS_DOMAIN", variable)
    path = write("workers: 9" if in_file is None else f"workers: 9\ningress_domain: {in_file}")
    found = load([f"--config={path}", *(["--ingress-domain", flag] if flag is not None else [])])
    # What the file alone says holds beside what others say.
    assert (found.ingress_domain, found.workers) == (expected, 9)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_its_flag_variable_and_key(
    name: str, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], Path]
) -> None:
    given: dict[str, Any] = {
        "workers": 11,
        "http_port": 11,
        "assignments_port": 11,
        "lease_seconds": 11.0,
        "storage_cache_bytes": 11,
    }
    given |= {"storage_settings": "SERVERY_STORAGE_FORMATS=any"}
    value = given.get(name, write("{}") if name == "config" else "x")
    expected = Path(value) if name.startswith(("config", "tls_")) else value
    assert getattr(load([f"--{name.replace('_', '-')}={value}"]), name) == expected
    if name != "config":
        assert getattr(load([f"--config={write(f'{name}: {value}')}"]), name) == expected
    monkeypatch.setenv(f"SERVERY_CONTROLLER_{name.upper()}", str(value))
    assert getattr(load([]), name) == expected


def test_file_can_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, write: Callable[[str], Path]) -> None:
    monkeypatch.setenv("SERVERY_CONTROLLER_CONFIG", str(write("workers: 9")))
    assert load([]).workers == 9


def test_pod_says_who_leads_and_where_unless_somebody_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load([]).lease_namespace == "servery-system"
    monkeypatch.setenv("POD_NAMESPACE", "here")
    monkeypatch.setenv("POD_NAME", "controller-0")
    assert (load([]).lease_namespace, load([]).identity) == ("here", "controller-0")
    assert load(["--lease-namespace=there"]).lease_namespace == "there"


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        pytest.param(["--threads=4"], None, "unrecognized arguments: --threads=4", id="an unknown flag"),
        pytest.param(["--work=4"], None, "unrecognized arguments: --work=4", id="a flag cut short"),
        pytest.param(["--default_mode=raw"], None, "unrecognized arguments", id="a flag with underscores"),
        pytest.param(["extra"], None, "unrecognized arguments: extra", id="an argument that is no flag"),
        pytest.param(["--workers=x"], None, r"workers: .*valid integer.*; found 'x'", id="a value of another type"),
        pytest.param(["--config=/nowhere.yaml"], None, "config: .*not point to a file", id="a file that is not there"),
        pytest.param([], "threads: 4", "threads: .*not permitted; found 4", id="an unknown key in the file"),
        pytest.param([], "workers: x", "workers: .*valid integer", id="a value of another type in the file"),
        pytest.param([], "a: [", "not a YAML mapping of settings", id="a file that is not YAML"),
        pytest.param([], "[1]", "not a YAML mapping of settings", id="a file that is a list"),
        pytest.param([], "word", "not a YAML mapping of settings", id="a file that is one word"),
    ],
)
def test_what_is_wrong_is_a_usage_error(
    arguments: list[str],
    text: str | None,
    words: str,
    write: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *([f"--config={write(text)}"] if text is not None else [])])
    assert ended.value.code == 2
    assert re.search(f"servery-controller: error: .*{words}", capsys.readouterr().err)


def test_wrong_variable_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SERVERY_CONTROLLER_WORKERS", "many")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "workers: " in capsys.readouterr().err


def test_help_lists_every_flag_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert [name for name in FIELDS if f"--{name.replace('_', '-')} " not in printed] == []
    assert "Services worked on at once." in printed


def test_settings_alone_read_no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pytest", "--workers=77", "--no-such-flag"])
    assert Settings().workers == 4


def test_planning_gets_what_it_reads(installed: Plugins) -> None:
    found = load(["--gateway=infra/main", "--storage-image=acme/fetch:1", "--ingress-domain=acme.dev"]).planning(
        installed
    )
    assert (found.route_parent.gateway_namespace, found.route_parent.gateway_name) == ("infra", "main")
    assert (found.storage_image, found.ingress_domain) == ("acme/fetch:1", "acme.dev")
    assert {"s3", "file"} <= found.storage_schemes
