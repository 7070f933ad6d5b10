"""Seconds from an S3 server on this machine to the disk: Servery's storage initializer beside KServe's, boto3's transfer
and ``cp``, one run.

Run: ``uv run python bench/storage.py [--cases large small mix] [--to /dev/shm /tmp] [--scale 1.0]``. Needs Go (it builds
the server, versitygw, once) and ``uv``.

The server keeps its objects on tmpfs, put there by boto3, so they have the ETags and sums that a user's have. Each
subject is a process that imports its library and then times one call; its CPU seconds are of that call, children
included, its memory the process's peak. Subjects take turns in each repetition; figures are medians, ratios medians of
the repetitions' ratios. Every tree that came is compared with what was put. ``cp`` is the disk's own limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import versitygw

CACHE = Path.home() / ".cache" / "servery-bench"
PACKAGES = ("kserve-storage==0.21.0",)
REPETITIONS = 3
MIB = 1024**2

TIMED = """
import json, os, resource, sys, time
source, target = sys.argv[1:3]
def spent():
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
{prepare}
began, cpu = time.perf_counter(), spent()
{call}
seconds = time.perf_counter() - began
print(json.dumps({{"seconds": seconds, "cpu": spent() - cpu, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}}))
"""

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
with TransferManager(client) as manager:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for found in page["Contents"]:
            path = os.path.join(target, found["Key"].removeprefix(prefix + "/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            manager.download(bucket, found["Key"], path)
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
    shards = {f"model-{number:05}-of-00008.safetensors": int(505 * MIB * scale) for number in range(1, 9)}
    rest = {f"tokenizer/{number:03}.json": 256 * 1024 for number in range(int(200 * scale))}
    return {**shards, **rest, "config.json": 700, "empty.txt": 0}


def put(client: object, case: str, scale: float, scratch: Path) -> int:
    """Put a case's objects, and return their bytes."""
    some = random.Random(1)
    total = 0
    for name, size in contents(case, scale).items():
        path = scratch / "object"
        with path.open("wb") as file:
            left = size
            while left:
                chunk = some.randbytes(min(left, 16 * MIB))
                file.write(chunk)
                left -= len(chunk)
        client.upload_file(str(path), "models", f"{case}/{name}")  # type: ignore[attr-defined]  # boto3 has no types
        path.unlink()
        total += size
    return total


def kserve() -> Path:
    """Return the interpreter of KServe's environment, made if it is not there."""
    folder = CACHE / "storage"
    if not (folder / "ready").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        subprocess.run(["uv", "venv", "-q", "--clear", "--python", version, folder], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", folder, *PACKAGES], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def turn(subject: str, source: str, stored: Path, target: Path, environment: Mapping[str, str]) -> Took:
    """Let one subject fetch ``source`` into ``target``, look at what came, and take it away."""
    if subject == "cp":
        command = [sys.executable, "-c", TIMED.format(prepare="import shutil", call="shutil.copytree(source, target)")]
        source = str(stored)
    else:
        prepare, call = SUBJECTS[subject]
        python = kserve() if subject == "kserve" else Path(sys.executable)
        command = [str(python), "-c", TIMED.format(prepare=prepare, call=call)]
    if subject == "boto3":
        target.mkdir()
    try:
        ran = subprocess.run(
            [*command, source, str(target)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(f"{subject}: {ran.stderr[-2000:]}")
        # Object storage has no folders: of KServe's tree an empty object may be missing, which is its own fault.
        missing = dict(differences(stored, target))
        if missing and subject != "kserve":
            raise SystemExit(f"{subject}: differs from its source: {missing}")
        return Took(*json.loads(ran.stdout.splitlines()[-1]).values())
    finally:
        shutil.rmtree(target, ignore_errors=True)


def differences(stored: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Yield the files that are not as they were put."""
    for path in stored.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(stored))
            found = target / name
            if not found.is_file():
                yield name, "missing"
            elif subprocess.run(["cmp", "-s", path, found], check=False).returncode:
                yield name, "different"


def table(title: str, size: int, turns: Mapping[str, Sequence[Took]]) -> None:
    """Print one case."""
    print(f"\n{title}, {size / MIB:,.0f} MiB\n")
    print("| | seconds | MB/s | times as fast as KServe | CPU seconds per GiB | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, took in turns.items():
        seconds = statistics.median(one.seconds for one in took)
        ratio = statistics.median(
            theirs.seconds / ours.seconds for ours, theirs in zip(took, turns["kserve"], strict=True)
        )
        cpu = statistics.median(one.cpu for one in took) / (size / MIB / 1024)
        peak = max(one.mib for one in took)
        print(f"| {name} | {seconds:.2f} | {size / seconds / 1e6:,.0f} | {ratio:.1f} | {cpu:.2f} | {peak:.0f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=["large", "small", "mix"], default=["large", "small", "mix"])
    parser.add_argument("--to", nargs="+", type=Path, default=[Path("/dev/shm"), Path(tempfile.gettempdir())])
    parser.add_argument("--scale", type=float, default=1.0, help="of the cases' sizes and numbers")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, load {load:.1f}"
    )
    print(f"boto3 {boto3.__version__}, {', '.join(PACKAGES)}, {versitygw.TOOL}")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as kept, versitygw.s3_served(Path(kept)) as url:
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": versitygw.ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": versitygw.SECRET_ACCESS_KEY,
            "AWS_DEFAULT_REGION": versitygw.REGION,
        }
        os.environ.update(environment)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for case in given.cases:
            size = put(client, case, given.scale, Path(kept))
            stored = Path(kept) / "buckets" / "models" / case
            for place in given.to:
                turns: dict[str, list[Took]] = {name: [] for name in ("servery", "boto3", "kserve", "cp")}
                for _ in range(given.repetitions):
                    for name, took in turns.items():
                        with tempfile.TemporaryDirectory(dir=place) as scratch:
                            took.append(turn(name, f"s3://models/{case}", stored, Path(scratch) / "model", environment))
                table(f"{case}, to {place}", size, turns)
            shutil.rmtree(stored)


if __name__ == "__main__":
    main()
