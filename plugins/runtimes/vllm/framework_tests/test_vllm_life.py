"""How an engine begins and ends: files, flags, backends, drains and deaths."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from vllm_servers import ENVIRONMENT, EXAMPLES, serving

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def load() -> Any:
    """Loads in this process, which what is refused never gets far in."""
    from servery_runtime_vllm.model import VLLMModel

    def load(directory: Path, *flags: str, **options: Any) -> None:
        VLLMModel(arguments=flags, **options).load(directory)

    return load


@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_without_a_model_is_refused_by_its_path(load: Any, tmp_path: Path, exists: bool) -> None:
    directory = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(Exception, match=f"{directory}: a model for vLLM has a config.json; found: nothing"):
        load(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_broken_file_is_refused_by_its_place(load: Any, tiny: Path, tmp_path: Path, name: str) -> None:
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / name).write_bytes((broken / name).read_bytes()[:100])
    with pytest.raises(Exception, match=str(broken)):
        load(broken)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-model-len", "many"], "max-model-len"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--enable-auto-tool-choice"], "requires --tool-call-parser"),
        (["--chat-template", "/no/file.jinja"], "file.jinja"),
        (["--port=80"], "--port: the predictor listens; say --http_port"),
        (["--max-model-len=100000"], "100000"),
    ],
    ids=["value", "unknown", "pair", "template", "ours", "too-long"],
)
def test_a_wrong_flag_is_refused_in_vllms_words(load: Any, tiny: Path, flags: list[str], words: str) -> None:
    with pytest.raises(Exception, match=words) as refused:
        load(tiny, *flags)
    assert type(refused.value).__name__ == "LoadError"


def test_backend_auto_is_vllm_and_drains_what_it_has_begun(tiny: Path, tmp_path: Path) -> None:
    flags = ["--runtime=huggingface", "--backend=auto", "--model_name=m", f"--model_dir={tiny}", "--dtype=float32"]
    with serving(tmp_path, [*flags, "--enforce-eager"]) as server:
        assert server.get("/v2/models/m")["platform"].startswith("vllm-")
        body = {"model": "m", "prompt": "x", "max_tokens": 300, "ignore_eos": True, "stream": True}
        with server.client.stream("POST", "/openai/v1/completions", json=body) as answer:
            lines = (line for line in answer.iter_lines() if line)
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            events = list(lines)
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert server.process.wait(60) == 0


def test_an_embedding_model_and_the_death_of_its_engine(tiny: Path, tmp_path: Path) -> None:
    flags = ["--runtime=vllm", "--task=text_embedding", "--model_name=m", f"--model_dir={tiny}", "--dtype=float32"]
    with serving(tmp_path, [*flags, "--enforce-eager", "--api-key=secret"]) as server:
        asked = {"model": "m", "input": ["The cat", "Rivers"]}
        assert server.client.post("/v1/embeddings", json=asked).status_code == 401
        server.client.headers["authorization"] = "Bearer secret"
        first = server.post("/v1/embeddings", asked)["data"]
        assert [len(each["embedding"]) for each in first] == [128, 128]
        assert "embed" in server.post("/v1/models/m:predict", {"instances": ["x"]}, status=501)["error"]
        (core,) = children(server.process.pid, "VLLM::EngineCore")
        os.kill(core, signal.SIGKILL)
        server.until(lambda: server.client.get("/v2/health/live").status_code == 503, "its death is not noticed")
        assert server.get("/v2/health/ready", status=503) == {"ready": False}
        server.client.timeout = 300
        server.post("/v2/repository/models/m/load", {})
        assert server.get("/v2/health/live") == {"live": True}
        assert server.post("/v1/embeddings", asked)["data"] == first


def children(parent: int, name: str) -> list[int]:
    """Return the processes below ``parent`` whose title begins with ``name``."""
    found = subprocess.run(
        ["ps", "--ppid", str(parent), "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 1) for line in found.stdout.splitlines()]
    return [int(pid) for pid, title in rows if title.startswith(name)]


CORPUS = Path(__file__).parents[5] / "shared" / "corpus"
KSERVE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: tiny
spec:
  predictor:
    model:
      modelFormat:
        name: vLLM
      runtime: kserve-vllmserver
      args: [--max-model-len=256, --dtype=float32, --enforce-eager]
      storageUri: file://./model
"""
OME = """
apiVersion: ome.io/v1beta1
kind: ClusterBaseModel
metadata:
  name: tiny
spec:
  modelFormat: {name: safetensors, version: "1.0.0"}
  modelFramework: {name: transformers, version: "4.45.0.dev0"}
  modelArchitecture: LlamaForCausalLM
  modelParameterSize: 1B
  storage: {storageUri: "file://./model", path: /mnt/data/models/tiny}
---
apiVersion: ome.io/v1beta1
kind: InferenceService
metadata:
  name: tiny
spec:
  model: {name: tiny}
  runtime: {name: vllm-llama-3-2-1b-instruct}
  engine: {minReplicas: 1, maxReplicas: 1}
"""


@pytest.mark.parametrize(
    ("runtime", "other", "service", "name"),
    [
        # What the tiny model or this machine has otherwise: an image's name that is filled in, and the context.
        (
            "kserve-runtimes/config__runtimes__kserve-vllmserver.yaml",
            ("vllmserver:replace", "vllm/vllm-openai:v0.9.2"),
            KSERVE,
            "tiny",
        ),
        (
            "ome-catalogue/config__runtimes__vllm__llama-3-2-1b-instruct-rt.yaml",
            ('"131072"', '"8192"'),
            OME,
            "vllm-model",
        ),
    ],
    ids=["kserve", "ome"],
)
def test_a_published_runtime_is_started_and_answers(
    tiny: Path, tmp_path: Path, runtime: str, other: tuple[str, str], service: str, name: str
) -> None:
    if not CORPUS.exists():
        pytest.skip("the published manifests are not beside the checkout (../shared)")
    from servery.state import State

    published = (CORPUS / runtime).read_text()
    assert other[0] in published
    shutil.copytree(tiny, tmp_path / "model")
    manifest, state = tmp_path / "service.yaml", tmp_path / "state"
    manifest.write_text(f"{published.replace(*other)}\n---{service}")
    up = command("up", "-f", manifest, "--detach", "--port", "0", "--state-dir", state)
    try:
        assert up.returncode == 0, up.stderr
        told = {"model": name, "prompt": "The cat sat", "max_tokens": 8, "temperature": 0}
        url = State(state).platform().url
        answer = httpx.post(f"{url}/v1/completions", json=told, headers={"Host": "tiny.default.localhost"}, timeout=120)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 8
        found = httpx.get(f"{url}/v2/models/{name}", headers={"Host": "tiny.default.localhost"})
        assert found.json()["name"] == name
    finally:
        command("down", "--state-dir", state)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servery.main", *map(str, arguments)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_the_example_answers(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / "tiny-vllm", tmp_path / "tiny-vllm", ignore=shutil.ignore_patterns("model"))
    shutil.copytree(tiny, folder / "model")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "servery.main",
            "predict",
            "-f",
            folder / "service.yaml",
            "-d",
            f"@{folder}/request.json",
        ],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [type(text) for text in json.loads(done.stdout)["predictions"]] == [str, str]
