"""Flag before variable before default, in KServe's spelling and in kebab-case; what is wrong is a usage error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from servery_predictor import cli
from servery_predictor.settings import Settings
from servery_sdk.model import Option, OptionKind, Runtime

FIELDS = sorted(Settings.model_fields)

Run = Callable[..., Settings]


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command up to where it would serve."""
    for name in FIELDS:
        monkeypatch.delenv(f"SERVERY_PREDICTOR_{name.upper()}", raising=False)
    served: list[Settings] = []
    monkeypatch.setattr(cli, "serve", lambda settings, *_: served.append(settings))
    monkeypatch.setattr(cli, "_installed", lambda: dict.fromkeys(("sklearn", "r", "11", "/x"), Runtime(name="r")))
    monkeypatch.setattr(cli.uvloop, "run", lambda _: None)
    monkeypatch.setattr(cli.logs, "to_stderr", lambda: None)

    def run(*arguments: str) -> Settings:
        cli.main(arguments)
        return served.pop()

    return run


@pytest.mark.parametrize(
    ("flags", "variable", "expected"),
    [
        pytest.param(["--model-name=a"], "b", "a", id="a flag before a variable"),
        pytest.param(["--model_name=a"], "b", "a", id="a flag in KServe's spelling before a variable"),
        pytest.param([], "b", "b", id="a variable before the default"),
        pytest.param([], None, "model", id="the default where nothing is said"),
    ],
)
def test_precedence(
    settings_of: Run, monkeypatch: pytest.MonkeyPatch, flags: list[str], variable: str | None, expected: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("SERVERY_PREDICTOR_MODEL_NAME", variable)
    assert settings_of("--runtime=sklearn", *flags).model_name == expected


def test_kserves_name_of_the_threads_is_understood(settings_of: Run) -> None:
    assert settings_of("--runtime=sklearn", "--nthread=3").threads == 3


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_its_flag_in_both_spellings_and_its_variable(
    name: str, settings_of: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = Settings.model_fields[name].default
    value = {"grpc_front": "grpcio"}.get(name) or (
        str(not default).lower() if isinstance(default, bool) else "11" if isinstance(default, int | float) else "/x"
    )
    runtime = [] if name == "runtime" else ["--runtime=sklearn"]
    by_flag = getattr(settings_of(*runtime, f"--{name.replace('_', '-')}={value}"), name)
    assert by_flag != default
    assert getattr(settings_of(*runtime, f"--{name}={value}"), name) == by_flag
    monkeypatch.setenv(f"SERVERY_PREDICTOR_{name.upper()}", value)
    assert getattr(settings_of(*runtime), name) == by_flag


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--runtime=r", "--modelname=a"], "unrecognized arguments: --modelname=a", id="an unknown flag"),
        pytest.param(["--runtime=r", "--model=a"], "unrecognized arguments: --model=a", id="a flag cut short"),
        pytest.param(["--runtime=r", "--http-port=x"], "--http-port: Input should be", id="a value of another type"),
        pytest.param([], "--runtime: Field required", id="no runtime"),
        pytest.param(
            ["--runtime=r", "--workers=2", "--http-socket=/s"],
            "--workers: Value error, several",
            id="a path of several",
        ),
    ],
)
def test_what_is_wrong_is_a_usage_error(
    settings_of: Run, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        settings_of(*arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_what_the_predictor_does_not_know_goes_to_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Option(name="arguments", meaning="all others", kind=OptionKind.LEFTOVER)
    monkeypatch.setattr(cli, "_installed", lambda: {"r": Runtime(name="r", options=(rest,))})
    flags = ("--model_name=m", "--predictor_host", "there", "--by=3", "--protocol=v2")
    settings, options = cli.settings_from(["--runtime=r", *flags])
    assert settings.model_name == "m"
    assert options == {"arguments": ("--predictor_host", "there", "--by=3", "--protocol=v2")}
