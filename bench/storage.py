"""Seconds from an S3 server on this machine to the disk: Servery's storage initializer beside KServe's, boto3's transfer,
``cp``, and what the server can send, one run; and what a runtime would gain from loading while the rest still comes.

Run: ``uv run python bench/storage.py [--cases large small mix] [--to /dev/shm /tmp] [--scale 1.0]``, and ``uv run --group
torch python bench/storage.py --cases load``. Needs Go (it builds the server, versitygw, once), ``uv``, and of the
server's tmpfs twice the largest case. All three cases to both places take some minutes, and nothing is left behind.

The server keeps its objects on tmpfs, put there by boto3, so they have the ETags and sums that a user's have. Each
subject is a process that imports its library and then times one call; its CPU seconds are of that call, children
included, its memory the process's peak. Subjects take turns in each repetition; figures are medians, ratios medians of
the repetitions' ratios. The trees that came in the first repetition are compared with what was put.

Before each timed call the same is done once by a forked child, and taken away: where a machine's free memory goes back to
its host, who comes first writes to pages that the host has to find again, which costs up to 2.5 seconds a GiB. ``cp``,
whose process is up the soonest, would have what the one before it left.

``cp`` is the disk's own limit, as far as the page cache: nobody waits for the device. ``sent`` is the server's: eight
processes ask for the same pieces by requests signed ahead, and throw away what comes. The limit of the machine is the
slower of the two in each repetition.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import versitygw

LOAD = Path(__file__).with_name("storage_load.py")
CACHE = Path.home() / ".cache" / "servery-bench"
SENDERS = 8
PACKAGES = ("kserve-storage==0.21.0",)
REPETITIONS = 3
MIB = 1024**2

TIMED = """
import json, os, resource, shutil, sys, time
source, target = sys.argv[1:3]
def spent():
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
def peak():  # Of this program alone: ru_maxrss begins at what the process was that started it.
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
{prepare}
def run():
{call}
rehearsing = os.fork()
if not rehearsing:
    run()
    os._exit(0)
assert not os.waitpid(rehearsing, 0)[1]
shutil.rmtree(target, ignore_errors=True)
began, cpu = time.perf_counter(), spent()
run()
seconds = time.perf_counter() - began
print(json.dumps({{"seconds": seconds, "cpu": spent() - cpu, "mib": peak()}}))
"""

CONSTANTS = f"SENDERS, PIECE_BYTES = {SENDERS}, {32 * MIB}"

SUBJECTS = {
    "servery": (
        """
import asyncio, io
from pathlib import Path
from servery_storage.engine import Engine
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from servery_storage_s3.plugin import S3Provider
import boto3, botocore.auth
engine = Engine({"s3": S3Provider()}, Settings())
""",
        "asyncio.run(engine.fetch(source, Path(target), JsonLines(io.StringIO())))",
    ),
    "kserve": (
        "from kserve_storage import Storage; import boto3",
        "Storage.download(source, target)",
    ),
    "boto3": (
        """
import boto3
from boto3.s3.transfer import TransferConfig
from s3transfer.manager import TransferManager
bucket, _, prefix = source.removeprefix("s3://").partition("/")
client = boto3.client("s3")
""",
        """
os.makedirs(target, exist_ok=True)
with TransferManager(client) as manager:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for found in page["Contents"]:
            path = os.path.join(target, found["Key"].removeprefix(prefix + "/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            manager.download(bucket, found["Key"], path)
""",
    ),
    "cp": ("import shutil", "shutil.copytree(source, target)"),
    "sent": (
        """
import socket, boto3
from urllib.parse import urlsplit
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
bucket, _, prefix = source.removeprefix("s3://").partition("/")
client, keys = boto3.client("s3"), boto3.Session().get_credentials()
where, requests = urlsplit(os.environ["AWS_ENDPOINT_URL"]), []
for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
    for found in page["Contents"]:
        asked = AWSRequest("GET", f"{where.geturl()}/{bucket}/{found['Key']}", {"host": where.netloc})
        S3SigV4Auth(keys, "s3", os.environ["AWS_DEFAULT_REGION"]).add_auth(asked)
        lines = "".join(f"{name}: {value}\\r\\n" for name, value in asked.headers.items())
        for start in range(0, found["Size"], PIECE_BYTES):
            size = min(PIECE_BYTES, found["Size"] - start)
            end = f"range: bytes={start}-{start + size - 1}\\r\\n\\r\\n"
            requests.append((f"GET /{bucket}/{found['Key']} HTTP/1.1\\r\\n{lines}{end}".encode(), size))
def read(mine):
    with socket.create_connection((where.hostname, where.port)) as wire:
        buffer = bytearray(1024**2)
        view = memoryview(buffer)
        for request, left in mine:
            wire.sendall(request)
            got = 0
            while (end := buffer.find(b"\\r\\n\\r\\n", 0, got)) < 0:
                got += wire.recv_into(view[got:])
            assert buffer.startswith(b"HTTP/1.1 206"), bytes(buffer[:got])
            left -= got - end - 4
            while left:
                left -= wire.recv_into(view)
""",
        """
children = []
for number in range(SENDERS):
    child = os.fork()
    if not child:
        read(requests[number::SENDERS])
        os._exit(0)
    children.append(child)
assert not any(os.waitpid(child, 0)[1] for child in children)
""",
    ),
}


@dataclass(frozen=True, slots=True)
class Took:
    """One turn: wall seconds, CPU seconds, peak MiB."""

    seconds: float
    cpu: float
    mib: float


def contents(case: str, scale: float) -> Mapping[str, int]:
    """Return the objects of a case: name to bytes."""
    if case == "large":
        return {"weights.bin": int(1024 * MIB * scale)}
    if case == "small":
        return {f"part-{number:04}.bin": 64 * 1024 for number in range(int(2000 * scale))}
    count = 4 if case == "load" else 8
    shards = {f"model-{number:05}-of-{count:05}.safetensors": int(505 * MIB * scale) for number in range(1, count + 1)}
    if case == "load":
        return shards
    rest = {f"tokenizer/{number:03}.json": 256 * 1024 for number in range(int(200 * scale))}
    return {**shards, **rest, "config.json": 700, "empty.txt": 0}


def put(client: object, case: str, scale: float, scratch: Path) -> int:
    """Put a case's objects, and return their bytes."""
    some = random.Random(1)
    total = 0
    for name, size in contents(case, scale).items():
        path = scratch / "object"
        begin = header(size) if name.endswith(".safetensors") else b""
        with path.open("wb") as file:
            file.write(begin)
            left = size - len(begin)
            while left:
                chunk = some.randbytes(min(left, 16 * MIB))
                file.write(chunk)
                left -= len(chunk)
        client.upload_file(str(path), "models", f"{case}/{name}")  # type: ignore[attr-defined]  # boto3 has no types
        path.unlink()
        total += size
    return total


def header(size: int) -> bytes:
    """Return what a file of safetensors of ``size`` bytes begins with, whose tensors are of 32 MiB."""
    room = 8192
    ends = [*range(32 * MIB, size - room, 32 * MIB), size - room]
    tensors = {
        f"layers.{number}": {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for number, (begin, end) in enumerate(zip([0, *ends], ends, strict=False))
    }
    return (room - 8).to_bytes(8, "little") + json.dumps(tensors).encode().ljust(room - 8)


def kserve() -> Path:
    """Return the interpreter of KServe's environment, made if it is not there."""
    folder = CACHE / "storage"
    if not (folder / "ready").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", version, folder], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", folder, *PACKAGES], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def turn(subject: str, source: str, stored: Path, target: Path, *, is_compared: bool) -> Took:
    """Let one subject fetch ``source`` into ``target``, look at what came, and take it away."""
    prepare, call = SUBJECTS[subject]
    python = kserve() if subject == "kserve" else Path(sys.executable)
    try:
        ran = timed(python, prepare, call, str(stored) if subject == "cp" else source, target)
        if is_compared and subject != "sent":
            # Object storage has no folders: of KServe's tree an empty object may be missing, which is its own fault.
            different = dict(differences(stored, target))
            if different and subject != "kserve":
                raise SystemExit(f"{subject}: differs from its source: {different}")
        return Took(**ran)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def timed(python: Path, prepare: str, call: str, source: str, target: Path) -> Mapping[str, float]:
    """Run one process, and return what it measured of itself."""
    script = TIMED.format(prepare=f"{CONSTANTS}\n{prepare}", call=textwrap.indent(call.strip(), "    "))
    ran = subprocess.run([python, "-c", script, source, target], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{ran.args[2]}\n{ran.stderr[-2000:]}")
    found: Mapping[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def differences(stored: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Yield the files that are not as they were put."""
    for path in stored.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(stored))
            if not (target / name).is_file():
                yield name, "missing"
            elif not filecmp.cmp(path, target / name, shallow=False):
                yield name, "different"


def ratio(turns: Sequence[Took], others: Sequence[Took]) -> float:
    """Return how many times as fast ``turns`` were as the ``others`` beside them."""
    return statistics.median(theirs.seconds / ours.seconds for ours, theirs in zip(turns, others, strict=True))


def table(title: str, size: int, turns: Mapping[str, Sequence[Took]]) -> None:
    """Print one case."""
    limit = [max(pair, key=lambda one: one.seconds) for pair in zip(turns["cp"], turns["sent"], strict=True)]
    print(f"\n{title}, {size / MIB:,.0f} MiB\n")
    print("| | seconds | MB/s | times as fast as KServe | of the limit | CPU seconds per GiB | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, took in turns.items():
        seconds = statistics.median(one.seconds for one in took)
        cpu = statistics.median(one.cpu for one in took) / (size / MIB / 1024)
        peak = max(one.mib for one in took)
        print(
            f"| {name} | {seconds:.2f} | {size / seconds / 1e6:,.0f} | {ratio(took, turns['kserve']):.1f} "
            f"| {ratio(took, limit):.0%} | {cpu:.2f} | {peak:.0f} |",
            flush=True,
        )


def fetches(case: str, place: Path, size: int, stored: Path, repetitions: int) -> None:
    """Measure and print one case in one place."""
    turns: dict[str, list[Took]] = {name: [] for name in SUBJECTS}
    for number in range(repetitions):
        for name, took in turns.items():
            with tempfile.TemporaryDirectory(dir=place) as scratch:
                target = Path(scratch) / "model"
                took.append(turn(name, f"s3://models/{case}", stored, target, is_compared=number == 0))
    table(f"{case}, to {place}", size, turns)


def loads(case: str, place: Path, size: int, stored: Path, repetitions: int) -> None:
    """Measure and print what a runtime waits for from the first request to the last tensor in its memory."""
    modes = ("then", "while", "in-turn", *(() if is_tmpfs(place) else ("cold",)))
    turns: dict[str, list[Mapping[str, float]]] = {mode: [] for mode in modes}
    for _ in range(repetitions):
        for mode, took in turns.items():
            with tempfile.TemporaryDirectory(dir=place) as scratch:
                command = [sys.executable, str(LOAD), mode, f"s3://models/{case}", f"{scratch}/model"]
                ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise SystemExit(ran.stderr[-2000:])
            took.append(json.loads(ran.stdout.splitlines()[-1]))
    print(f"\nload, from {place}, {size / MIB:,.0f} MiB in {len(list(stored.iterdir()))} shards\n")
    print("| | fetched after | mapped in | loaded in | in all | of then |\n| --- | --- | --- | --- | --- | --- |")
    for mode, took in turns.items():
        parts = (statistics.median(one[part] for one in took) for part in ("fetch", "map", "load"))
        whole = statistics.median(sum(one.values()) for one in took)
        of_then = statistics.median(
            sum(one.values()) / sum(then.values()) for one, then in zip(took, turns["then"], strict=True)
        )
        print(f"| {mode} | {' | '.join(f'{part:.2f}' for part in parts)} | {whole:.2f} | {of_then:.0%} |", flush=True)


def is_tmpfs(place: Path) -> bool:
    """Whether files there are memory only."""
    return "tmpfs" in subprocess.check_output(["stat", "-f", "-c", "%T", place], text=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measured: dict[str, Callable[[str, Path, int, Path, int], None]] = {
        "large": fetches,
        "small": fetches,
        "mix": fetches,
        "load": loads,
    }
    parser.add_argument("--cases", nargs="+", choices=list(measured), default=["large", "small", "mix"])
    parser.add_argument("--to", nargs="+", type=Path, default=[Path("/dev/shm"), Path(tempfile.gettempdir())])
    parser.add_argument("--scale", type=float, default=1.0, help="of the cases' sizes and numbers")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which leaves every directory and the server by its own door
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, load {load:.1f}"
    )
    print(f"boto3 {boto3.__version__}, {', '.join(PACKAGES)}, {versitygw.TOOL}")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as kept, versitygw.s3_served(Path(kept)) as url:
        os.environ.update(
            AWS_ENDPOINT_URL=url,
            AWS_ACCESS_KEY_ID=versitygw.ACCESS_KEY_ID,
            AWS_SECRET_ACCESS_KEY=versitygw.SECRET_ACCESS_KEY,
            AWS_DEFAULT_REGION=versitygw.REGION,
        )
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for case in given.cases:
            size = put(client, case, given.scale, Path(kept))
            stored = Path(kept) / "buckets" / "models" / case
            for place in given.to:
                measured[case](case, place, size, stored, given.repetitions)
            shutil.rmtree(stored)


if __name__ == "__main__":
    main()
