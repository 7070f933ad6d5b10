"""A tiny model, its adapter, and a server: an engine takes most of a minute to start, so tests share it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from vllm_servers import EXAMPLES, Served, serving

LAYERS, WIDTH, RANK = 2, 128, 8


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's model, wide enough for vLLM's attention on a CPU."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    make = EXAMPLES / "tiny-chat" / "make_model.py"
    command = [sys.executable, make, directory, "--hidden", str(WIDTH), "--context", "8192"]
    subprocess.run(command, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that turns the model's head: large, so that its texts are others."""
    directory = tmp_path_factory.mktemp("adapters") / "loud"
    directory.mkdir()
    torch.manual_seed(0)
    weights = {}
    for layer in range(LAYERS):
        for name in ("q_proj", "v_proj"):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(RANK, WIDTH)
            weights[f"{prefix}.lora_B.weight"] = torch.randn(WIDTH, RANK)
    save_file(weights, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes conversations in a way of its own."""
    path = tmp_path_factory.mktemp("templates") / "plain.jinja"
    path.write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] ")
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, tiny: Path, adapter: Path, template: Path) -> Iterator[Served]:
    """What most tests ask: names, an adapter, a template and tools, as flags of vLLM's own."""
    flags = [
        *("--runtime=vllm", "--model_name=tiny", f"--model_dir={tiny}", "--dtype", "float32", "--enforce_eager"),
        *("--served-model-name", "tiny", "other", "--enable-lora", "--lora-modules", f"loud={adapter}"),
        *("--chat-template", str(template), "--enable-auto-tool-choice", "--tool-call-parser=hermes"),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        # Of KServe's server; they change nothing, or are vLLM's in other words.
        *("--disable_log_requests", "--max_length=8192", "--enable_latency_logging=false", "--max_threads=4"),
    ]
    with serving(tmp_path_factory.mktemp("server"), flags) as served:
        yield served
