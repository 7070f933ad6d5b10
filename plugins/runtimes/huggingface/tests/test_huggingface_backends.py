"""Which runtime answers ``--backend``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servery_predictor.cli import WrongFlags, settings_from
from servery_runtime_huggingface import backends


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    return tmp_path


@pytest.fixture(params=[True, False], ids=["with-vllm", "without-vllm"])
def has_vllm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(backends, "has_vllm", lambda: request.param)
    found: bool = request.param
    return found


def test_vllm_is_its_own_runtime_with_flags_of_its_own(llama: Path) -> None:
    told = ["--runtime=huggingface", "--backend=vllm", f"--model_dir={llama}", "--tensor-parallel-size=2"]
    settings, options = settings_from(told)
    assert settings.runtime == "servery-vllm"
    assert options == {"backend": "vllm", "arguments": ("--tensor-parallel-size=2",)}


def test_the_backend_may_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVERY_PREDICTOR_BACKEND", "vllm")
    assert settings_from(["--runtime=huggingface"])[0].runtime == "servery-vllm"


def test_auto_is_vllm_where_it_is_installed(llama: Path, has_vllm: bool) -> None:
    settings, _ = settings_from(["--runtime=huggingface", "--backend=auto", f"--model_dir={llama}"])
    assert settings.runtime == ("servery-vllm" if has_vllm else "huggingface")


def test_transformers_stay_where_they_are_asked_for(llama: Path, has_vllm: bool) -> None:
    told = ["--runtime=huggingface", "--backend=huggingface", f"--model_dir={llama}"]
    assert settings_from(told)[0].runtime == "huggingface"
    with pytest.raises(WrongFlags, match="unrecognized arguments: --tensor-parallel-size=2"):
        settings_from([*told, "--tensor-parallel-size=2"])


@pytest.mark.parametrize(
    ("config", "flags", "is_for_vllm"),
    [
        ('{"architectures": ["LlamaForCausalLM"]}', {}, True),
        ('{"architectures": ["BertForMaskedLM"]}', {}, False),
        ('{"architectures": ["LlamaForCausalLM"]}', {"task": "text_embedding"}, False),
        ("{}", {}, False),
        ("no config", {}, False),
        (None, {}, False),
        (None, {"task": "text_generation"}, True),
    ],
)
def test_auto_is_vllm_for_models_that_write(
    tmp_path: Path, config: str | None, flags: dict[str, str], is_for_vllm: bool
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert backends.is_for_vllm(flags, tmp_path) is is_for_vllm
