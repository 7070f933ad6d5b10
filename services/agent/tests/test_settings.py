"""Flag before variable before default; KServe's flags as its agent spells them; what is wrong is a usage error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from servery_agent import cli
from servery_agent.cli import IDLE, NOT_YET, WrongFlags, settings_from
from servery_agent.settings import Settings

FIELDS = sorted(Settings.model_fields)
OTHER_VALUES = {"component_models": ("v2", "servery")}

Run = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(f"SERVERY_AGENT_{name.upper()}", raising=False)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_its_flag_in_both_spellings_and_its_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = Settings.model_fields[name]
    one, other = OTHER_VALUES.get(name, ("true", "false") if field.annotation is bool else ("11", "12"))
    by_flag = getattr(settings_from([f"--{name.replace('_', '-')}", one])[0], name)
    assert by_flag != field.default
    assert getattr(settings_from([f"--{name}={one}"])[0], name) == by_flag
    monkeypatch.setenv(f"SERVERY_AGENT_{name.upper()}", one)
    assert getattr(settings_from([])[0], name) == by_flag
    monkeypatch.setenv(f"SERVERY_AGENT_{name.upper()}", other)
    assert getattr(settings_from([f"--{name}={one}"])[0], name) == by_flag


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("CONTAINER_CONCURRENCY", "container_concurrency"),
        ("REVISION_TIMEOUT_SECONDS", "answer_timeout_seconds"),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "idle_timeout_seconds"),
    ],
)
def test_variable_of_knative_is_heeded(variable: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "7")
    assert getattr(settings_from([])[0], field) == 7
    assert getattr(settings_from([f"--{field}=8"])[0], field) == 8


def test_command_lines_of_kserves_injector_that_ask_for_nothing_more_are_accepted() -> None:
    # Source: KServe pkg/webhook/admission/pod/agent_injector.go, its order.
    more = ["--enable-puller=false", "--max-batchsize", "32", "--max-latency", "5000", "--log-mode", "all"]
    more += [f"--{name.replace('_', '-')}=1" for name in IDLE] + ["--logger-tls-skip-verify"]
    settings, probes = settings_from([*more, "--component-port", "8085", "--port", "9081"])
    assert (settings.component_port, settings.port, probes) == (8085, 9081, None)


@pytest.mark.parametrize("flag", ["--enable-batcher=true", "--log-url=http://sink"])
def test_flag_that_asks_for_what_is_not_here_is_an_error(flag: str) -> None:
    with pytest.raises(WrongFlags, match=f"{flag.partition('=')[0]}: this agent does no .* yet"):
        settings_from([flag])


def test_no_flag_is_both_a_setting_and_idle() -> None:
    assert not (IDLE.keys() | NOT_YET.keys()) & Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("period", "seconds"),
    [("-1", None), ("-1s", None), ("0", 0.0), ("10s", 10.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0)],
)
def test_probe_period_is_a_duration_of_gos(period: str, seconds: float | None) -> None:
    assert settings_from([f"--probe-period={period}"])[1] == seconds


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param(["--ports=1"], "unrecognized arguments: --ports=1", id="an unknown flag"),
        pytest.param(["--port=x"], "--port: Input should be", id="a value of another type"),
        pytest.param(["--container-concurrency=-1"], "--container-concurrency: Input should be", id="too little"),
        pytest.param(["--probe-period=soon"], "'soon' is no duration", id="no duration"),
    ],
)
def test_what_is_wrong_is_a_usage_error(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.logs, "to_stderr", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main(flags)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
