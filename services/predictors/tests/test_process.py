"""The command as a process: signals, probes, exit codes."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path

import orjson
from ports import free_port
from servery_http.client import Client, ConnectFailed

PATIENCE_SECONDS = 60


async def until_ready(client: Client, url: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                if (await client.request("GET", f"{url}/v2/health/ready")).status == 200:
                    return
            except ConnectFailed:
                pass
            await asyncio.sleep(0.05)


async def test_sigterm_loses_no_request_and_exits_0(iris: Path, client: Client) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servery_predictor.cli", "--runtime=sklearn", "--model_name=iris", "--max_threads=1"),
        *(f"--model_dir={iris}", f"--http_port={port}", "--grpc-port", "0", "--host=127.0.0.1"),
        stderr=asyncio.subprocess.PIPE,
    )
    await until_ready(client, url)
    answers: list[int] = []
    refused = asyncio.Event()

    async def ask() -> None:
        # Each on a connection of its own, until the server takes no more: what it accepted it must answer.
        async with Client() as own:
            while not refused.is_set():
                try:
                    answer = await own.request(
                        "POST", f"{url}/v1/models/iris:predict", body=b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'
                    )
                except ConnectFailed:
                    refused.set()
                    return
                answers.append(answer.status)
                if len(answers) == 50:
                    process.send_signal(signal.SIGTERM)

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(ask())
    _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    assert len(answers) >= 50
    assert set(answers) == {200}
    lines = [orjson.loads(line) for line in log.splitlines()]
    assert {"level": "WARNING", "message": "flag changes nothing", "flag": "--max_threads"}.items() <= lines[0].items()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z", line["time"]) for line in lines)
