"""Tokens per second through the server, beside transformers' own loop: the same tiny model and prompts, one core, one run.

Run: ``uv run --group torch python bench/generation.py [--texts 32] [--tokens 128] [--hidden 64] [--rounds 3]``. The peer is
``generate`` on all prompts as one left-padded batch, in a process of its own on the core that the server has; and the
library's continuous batching. The server is asked for all texts at once, whole and streamed, by a client on the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
from collections.abc import Iterator
from contextlib import contextmanager
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
directory, tokens, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
prompts = json.load(sys.stdin)
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(directory)
rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
width = max(map(len, rows))
ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
def whole():
    with torch.inference_mode():
        model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
def timed(work):
    work()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(len(rows) * tokens / (time.perf_counter() - started))
    return found
answer = {"generate": timed(whole)}
config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
manager = model.init_continuous_batching(
    generation_config=config,
    continuous_batching_config=ContinuousBatchingConfig(page_size=32, num_blocks=512, max_batch_tokens=1024),
)
manager.start()
def continuous():
    manager.add_requests(rows, max_new_tokens=tokens)
    left = len(rows)
    while left:
        found = manager.get_result(timeout=1)
        left -= found is not None and found.is_finished()
answer["generate_batch"] = timed(continuous)
manager.stop()
print(json.dumps(answer))
"""


def on_server_core() -> None:
    """Bind a new process, which has no threads yet."""
    os.sched_setaffinity(0, {SERVER_CORE})


def environment() -> dict[str, str]:
    """Return what both sides get: one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def peers(directory: str, prompts: list[str], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return transformers' own tokens per second, by its ways."""
    done = subprocess.run(
        [sys.executable, "-c", PEER, directory, str(options.tokens), str(options.rounds)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=on_server_core,
        env=environment(),
    )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def server(directory: str) -> Iterator[str]:
    """Run the server on one core; yields its address once it is ready."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "servery_predictor.cli", "--runtime=huggingface", "--model_name=tiny"),
            *(f"--model_dir={directory}", f"--http_port={port}", "--host=127.0.0.1", "--enable-grpc=false"),
        ],
        preexec_fn=on_server_core,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/v2/models/tiny/ready", timeout=5)
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}") from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


async def ask(url: str, prompts: list[str], options: argparse.Namespace, *, is_streamed: bool) -> list[float]:
    """Return the server's tokens per second, each round with every prompt at once."""
    common: dict[str, Any] = {"model": "tiny", "max_tokens": options.tokens, "temperature": 0, "ignore_eos": True}
    found = []
    async with Client() as client:

        async def one(prompt: str) -> None:
            body = json.dumps({**common, "prompt": prompt, "stream": is_streamed}).encode()
            answer = await client.request("POST", f"{url}/v1/completions", body=body)
            if answer.status != 200 or (is_streamed and not answer.body.endswith(b"[DONE]\n\n")):
                raise SystemExit(answer.body.decode())

        for _ in range(1 + options.rounds):
            started = time.perf_counter()
            await asyncio.gather(*map(one, prompts))
            found.append(len(prompts) * options.tokens / (time.perf_counter() - started))
    return found[1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    drawn = random.Random(0)
    prompts = [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 20))) for _ in range(options.texts)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{package} {version(package)}" for package in ("transformers", "torch", "uvloop")))
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
        rates = peers(directory, prompts, options)
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {SERVER_CORE} or {SERVER_CORE})
        with server(directory) as url:
            rates["servery"] = asyncio.run(ask(url, prompts, options, is_streamed=False))
            rates["servery, streamed"] = asyncio.run(ask(url, prompts, options, is_streamed=True))
    base = statistics.median(rates["generate"])
    print(f"{'tokens/s':<20}{'median':>10}{'least':>10}{'most':>10}{'ratio':>8}")
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"{name:<20}{median:>10.0f}{min(found):>10.0f}{max(found):>10.0f}{median / base:>7.2f}x")


if __name__ == "__main__":
    main()
