"""Tokens per second through the server, beside transformers' own loop: the same tiny model and prompts, one core, one run.

Run: ``uv run --group torch python bench/generation.py [--texts 32] [--tokens 128] [--hidden 64] [--rounds 3]``, or with
``--backend vllm`` in the environment of ``tox -e vllm``: then the peer is vLLM's own server. Else the peer is
``generate`` on all prompts as one left-padded batch, in a process of its own on the core that the server has; and the
library's continuous batching. The server is asked for all texts at once, whole and streamed, by a client on the others.
All take turns, and every text of the server is compared with that of ``generate``. On a machine that has other things
to do, tokens for each second of the core's own time say more than tokens for each second of the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from servery_http.client import Client

ROOT = Path(__file__).parents[1]
SERVER_CORE = min(os.sched_getaffinity(0))
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "what",
    "is",
    "weather",
    "like",
    "today",
    "rivers",
    "run",
    "to",
    "sea",
]

PEER = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig
directory, tokens, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
prompts = json.loads(sys.stdin.readline())
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(directory)
rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
width = max(map(len, rows))
ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
def generate():
    with torch.inference_mode():
        found = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return found[:, width:].tolist()
def generate_batch():
    wanted = manager.add_requests(rows, max_new_tokens=tokens)
    found = {}
    while len(found) < len(rows):
        one = manager.get_result(timeout=1)
        if one is not None and one.is_finished():
            found[one.request_id] = one.generated_tokens
    return list(found.values())
work = {"generate": generate, "generate_batch": generate_batch}[way]
if way == "generate_batch":
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(page_size=32, num_blocks=512, max_batch_tokens=1024),
    )
    manager.start()
# A text goes on from its prompt: a first token that begins with a space has it.
def text(ids):
    return tokenizer.decode(ids, skip_special_tokens=True)
texts = [text(row + new)[len(text(row)) :] for row, new in zip(rows, work())]
print(json.dumps(texts), flush=True)
for _ in sys.stdin:
    started, busy = time.perf_counter(), time.process_time()
    work()
    print(json.dumps([time.perf_counter() - started, time.process_time() - busy]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Took:
    """What one round of all texts took, in seconds."""

    by_clock: float
    by_core: float


def on_server_core() -> None:
    """Bind a new process, which has no threads yet."""
    os.sched_setaffinity(0, {SERVER_CORE})


def environment() -> dict[str, str]:
    """Return what both sides get: one thread."""
    of_vllm = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    return {**os.environ, "OMP_NUM_THREADS": "1", **of_vllm}


class Peer:
    """transformers in a process of its own, which works when it is told to."""

    def __init__(self, way: str, directory: str, prompts: list[str], tokens: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PEER, directory, str(tokens), way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=on_server_core,
            env=environment(),
        )
        self.texts: list[str] = self._ask(json.dumps(prompts))

    def round(self) -> Took:
        """Generate all texts once."""
        return Took(*self._ask(""))

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        for answer in self._process.stdout:
            # The library prints to the same place.
            if answer.startswith("["):
                return json.loads(answer)
        raise SystemExit(f"transformers ended with {self._process.wait()}")

    def close(self) -> None:
        """End it: one that only waits would still take some of the core."""
        self._process.kill()
        self._process.communicate()


def servery(directory: str, port: int, *flags: str) -> list[str]:
    """Return the command of our server."""
    return [
        *(sys.executable, "-m", "servery_predictor.cli", "--model_name=tiny", f"--model_dir={directory}"),
        *(f"--http_port={port}", "--host=127.0.0.1", "--enable-grpc=false", *flags),
    ]


VLLM = ("--dtype=float32", "--enforce-eager", "--max-model-len=1024", "--no-enable-prefix-caching")
"""What both servers tell vLLM. A prompt that is asked again shall be read again."""


def vllm(directory: str, port: int) -> list[str]:
    """Return the command of vLLM's own server."""
    return [
        # Its command of that name asks for the distribution "vllm", which the build for the CPU is not.
        *(sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", f"--model={directory}"),
        "--served-model-name=tiny",
        *(f"--port={port}", "--host=127.0.0.1", *VLLM),
    ]


@contextmanager
def server(command: Callable[[int], list[str]]) -> Iterator[tuple[str, int]]:
    """Run a server on one core; yields its address and process id once it is ready."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    process = subprocess.Popen(
        command(port),
        preexec_fn=on_server_core,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(6000):
            try:
                urllib.request.urlopen(f"{url}/v1/models", timeout=5)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}") from None
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def busy_seconds(pid: int) -> float:
    """Return the processor seconds that a process has used, and those below it that live: vLLM's engine is one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(busy_seconds(int(one)) for one in below)


async def ask(url: str, prompts: list[str], tokens: int, *, is_streamed: bool) -> list[str]:
    """Ask for every text at once; return the bodies."""
    told = {"stream": True, "stream_options": {"include_usage": True}} if is_streamed else {}
    common = {"model": "tiny", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **told}
    async with Client() as client:

        async def one(prompt: str) -> str:
            body = json.dumps({**common, "prompt": prompt}).encode()
            answer = await client.request("POST", f"{url}/v1/completions", headers=_JSON, body=body)
            if answer.status != 200:
                raise SystemExit(answer.body.decode())
            return answer.body.decode()

        return await asyncio.gather(*map(one, prompts))


def text_of(body: str, tokens: int, *, is_streamed: bool) -> str:
    """Return the text that a body holds, which must be of ``tokens`` tokens."""
    if is_streamed:
        events = [event.removeprefix("data: ") for event in body.split("\n\n") if event]
        if events.pop() != "[DONE]":
            raise SystemExit(f"a stream that does not end: {body[-200:]}")
        answers = [json.loads(event) for event in events]
    else:
        answers = [json.loads(body)]
    told = [answer.get("usage") for answer in answers][-1]
    if told is None or told["completion_tokens"] != tokens:
        raise SystemExit(f"not {tokens} tokens: {body[-300:]}")
    return "".join(choice["text"] for answer in answers for choice in answer["choices"])


def served(url: str, pid: int, prompts: list[str], tokens: int, *, is_streamed: bool) -> tuple[Took, list[str]]:
    """Return what a round of the server took, and its texts."""
    started, busy = time.perf_counter(), busy_seconds(pid)
    bodies = asyncio.run(ask(url, prompts, tokens, is_streamed=is_streamed))
    took = Took(time.perf_counter() - started, busy_seconds(pid) - busy)
    return took, [text_of(body, tokens, is_streamed=is_streamed) for body in bodies]


Taken = dict[str, list[Took]]
Equal = dict[str, list[float]]
_JSON = ((b"content-type", b"application/json"),)
WAYS = ((False, ""), (True, ", streamed"))


def beside_transformers(directory: str, prompts: list[str], tokens: int, rounds: int) -> tuple[Taken, Equal]:
    """Return the rounds of the library and of our server over it, and which of our texts are the library's."""
    took: Taken = {"generate": []}
    equal: Equal = {}
    alone = Peer("generate_batch", directory, prompts, tokens)
    took["generate_batch"] = [alone.round() for _ in range(rounds)]
    alone.close()
    peer = Peer("generate", directory, prompts, tokens)
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {SERVER_CORE} or {SERVER_CORE})
    with server(lambda port: servery(directory, port, "--runtime=huggingface", "--backend=huggingface")) as (url, pid):
        for number in range(-1, rounds):
            # In turns: what else the machine does changes in time. The first round warms.
            found = {"generate": peer.round()}
            for is_streamed, streamed in WAYS:
                way = f"servery{streamed}"
                found[way], texts = served(url, pid, prompts, tokens, is_streamed=is_streamed)
                equal.setdefault(way, []).append(sum(map(operator.eq, texts, peer.texts)) / len(prompts))
            if number >= 0:
                for way, one in found.items():
                    took.setdefault(way, []).append(one)
    peer.close()
    return took, equal


def beside_vllm(directory: str, prompts: list[str], tokens: int, rounds: int) -> tuple[Taken, Equal]:
    """Return the rounds of vLLM's own server and of ours over its engine, and which of our texts are its.

    One after the other, twice: an engine that only waits takes some of the core from the other.
    """
    commands = {
        "vllm": lambda port: vllm(directory, port),
        "servery": lambda port: servery(directory, port, "--runtime=vllm", *VLLM),
    }
    took: Taken = {name + streamed: [] for name in commands for _, streamed in WAYS}
    equal: Equal = {}
    wanted: list[str] = []
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {SERVER_CORE} or {SERVER_CORE})
    for _ in range(2):
        for name, command in commands.items():
            with server(command) as (url, pid):
                for number in range(-1, rounds):
                    for is_streamed, streamed in WAYS:
                        one, texts = served(url, pid, prompts, tokens, is_streamed=is_streamed)
                        wanted = wanted or texts
                        share = sum(map(operator.eq, texts, wanted)) / len(prompts)
                        equal.setdefault(name + streamed, []).append(share)
                        if number >= 0:
                            took[name + streamed].append(one)
    return took, equal


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", choices=("huggingface", "vllm"), default="huggingface")
    options = parser.parse_args()
    drawn = random.Random(0)
    prompts = [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 20))) for _ in range(options.texts)]
    packages = ("transformers", "torch", "uvloop", *(("vllm-cpu",) if options.backend == "vllm" else ()))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{package} {version(package)}" for package in packages))
    print(
        f"Llama of 2 layers, width {options.hidden}; {options.texts} texts of {options.tokens} tokens at once, one core\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        make = ROOT / "examples" / "tiny-chat" / "make_model.py"
        subprocess.run(
            [sys.executable, make, directory, "--hidden", str(options.hidden), "--context", "1024"],
            check=True,
            capture_output=True,
        )
        compare = beside_vllm if options.backend == "vllm" else beside_transformers
        took, equal = compare(directory, prompts, options.tokens, options.rounds)
    base, *_ = took
    for way, found in took.items():
        for of in ("by_clock", "by_core"):
            rates = [options.texts * options.tokens / getattr(one, of) for one in found]
            ours, theirs = ([getattr(one, of) for one in each] for each in (found, took[base]))
            if options.backend == "vllm":
                # Not taken in turns: the n-th of one has nothing to do with the n-th of the other.
                ratio = statistics.median(theirs) / statistics.median(ours)
            else:
                ratio = statistics.median(first / one for one, first in zip(ours, theirs, strict=True))
            each = ", ".join(f"{rate:,.0f}" for rate in rates)
            print(f"{way:18} {ratio:5.0%} of {base}; tokens for each second {of.replace('_', ' the ')}: {each}")
    for way, shares in equal.items():
        print(f"{way:18} {min(shares):5.0%} of its texts are those of {base}, in the worst round")


if __name__ == "__main__":
    main()
