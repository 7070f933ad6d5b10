"""Flag before variable before default; KServe's flags as its agent spells them; what is wrong is a usage error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args, get_origin

import pytest
from servery_agent import cli
from servery_agent.cli import IDLE, settings_from
from servery_agent.settings import Settings

FIELDS = sorted(Settings.model_fields)

Run = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(f"SERVERY_AGENT_{name.upper()}", raising=False)


def values(name: str) -> tuple[str, str]:
    """Return two values of a field, the first of which is not its default."""
    kind = Settings.model_fields[name].annotation
    if kind is bool:
        return "true", "false"
    if get_origin(kind) is Literal:
        return get_args(kind)[1], get_args(kind)[0]
    return "11", "12"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_its_flag_in_both_spellings_and_its_variable(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = Settings.model_fields[name].default
    value, other = values(name)
    by_flag = getattr(settings_from([f"--{name.replace('_', '-')}", value])[0], name)
    assert by_flag != default
    assert getattr(settings_from([f"--{name}={value}"])[0], name) == by_flag
    monkeypatch.setenv(f"SERVERY_AGENT_{name.upper()}", value)
    assert getattr(settings_from([])[0], name) == by_flag
    monkeypatch.setenv(f"SERVERY_AGENT_{name.upper()}", other)
    assert getattr(settings_from([f"--{name}={value}"])[0], name) == by_flag


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


def test_command_line_of_kserves_injector_is_understood() -> None:
    # Source: KServe pkg/webhook/admission/pod/agent_injector.go, its order.
    line = "--enable-puller=false --max-batchsize 32 --max-latency 5000 --log-url s3://bucket/logs --source-uri pod-1 "
    line += "--log-mode all --inference-service sklearn --namespace default --endpoint default --component predictor "
    line += "--log-store-path p --log-store-format parquet --log-marshaller-url http://localhost:9083/marshal "
    line += "--log-batch-size 10 --log-batch-interval 1m30s --metadata-headers Foo,Bar --metadata-annotations a=b "
    line += "--logger-ca-cert-file ca.crt --logger-tls-skip-verify false --workers 5 --component-port 8085 --port 9081"
    settings, probes = settings_from(line.split())
    assert (settings.component_port, settings.port, probes) == (8085, 9081, None)
    assert (settings.log_url, settings.source_uri, settings.log_store_format) == (
        "s3://bucket/logs",
        "pod-1",
        "parquet",
    )
    assert (settings.log_batch_size, settings.log_batch_interval) == (10, 90.0)
    assert settings.logger_tls_skip_verify is False
    assert settings_from(["--logger-tls-skip-verify", "--log-url=x"])[0].logger_tls_skip_verify is True


def test_flags_of_kserves_that_change_nothing_are_accepted() -> None:
    settings, _ = settings_from([f"--{name.replace('_', '-')}=1" for name in IDLE])
    assert settings == Settings()


def test_flags_of_kserves_batcher_are_heeded() -> None:
    settings, _ = settings_from(["--enable-batcher", "--max-batchsize", "8", "--max-latency", "50", "--timeout", "60"])
    assert (settings.enable_batcher, settings.max_batchsize, settings.max_latency) == (True, 8, 50)
    assert settings.batch_timeout_seconds == 60
    assert settings_from(["--enable_batcher=true", "--max-batch-size=8"])[0].max_batchsize == 8


def test_no_flag_is_both_a_setting_and_idle() -> None:
    assert not IDLE.keys() & Settings.model_fields.keys()


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
        pytest.param(["--log-mode=none"], "--log-mode: Input should be 'all', 'request' or 'response'", id="no mode"),
        pytest.param(["--log-batch-interval=soon"], "--log-batch-interval: Input should be", id="no interval"),
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
