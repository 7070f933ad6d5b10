"""A soak of the gRPC port: well-behaved, impatient and hostile clients at once; every answer is checked.

Run: ``uv run python bench/grpc_soak.py [minutes] [--grpc-front fast]``, on loopback only. The predictor is a process of
its own, whose memory and open files are read while it serves. Ends with 1 where an answer is wrong or lost, where the
server takes what it should refuse, where it keeps a file open that it had not open before, or where its memory grows by
more than a megabyte a minute, if there are four of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import multiprocessing
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import joblib
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray
from servery_http.http2 import frames
from servery_http.http2.frames import ErrorCode, Setting
from servery_http.http2.headers import encode
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub as Stub
from sklearn.datasets import load_iris
from sklearn.svm import SVC

METHOD = b"/inference.GRPCInferenceService/ModelInfer"
PATIENCE_SECONDS = 60.0
MEBIBYTE = 1024 * 1024
WARM_SHARE = 0.25
"""Of the time, at its start, whose memory does not count: caches fill, and the allocator's arenas."""
MAX_SLOPE_MIB = 1.0
"""A minute."""
SPANS_A_MINUTE = 6
SETTLE_SECONDS = 20.0
MIN_MINUTES = 4.0
"""Of a soak whose slope means anything."""
MAX_ANSWER_BYTES = 2**31 - 1
BOMB = gzip.compress(bytes(100 * MEBIBYTE))


class Lost(Exception):
    """An answer that should have come did not; or the server took what it should have refused."""


class Wrong(Exception):
    """An answer is not the model's."""


class Questions:
    """Random requests and the model's own answers to them."""

    def __init__(self, model: SVC, seed: int) -> None:
        self._model = model
        self._random = np.random.default_rng(seed)

    def __call__(self, rows: int = 2, *, raw: bool = True) -> tuple[pb.ModelInferRequest, NDArray[np.int64]]:
        data = self._random.uniform(0.1, 7.0, (rows, 4))
        request = pb.ModelInferRequest(model_name="iris", id=str(self._random.integers(2**40)))
        tensor = request.inputs.add(name="x", datatype="FP64", shape=data.shape)
        if raw:
            request.raw_input_contents.append(data.tobytes())
        else:
            tensor.contents.fp64_contents.extend(data.ravel().tolist())
        return request, self._model.predict(data)


def check(request: pb.ModelInferRequest, expected: NDArray[np.int64], answer: pb.ModelInferResponse) -> None:
    """Compare an answer with the model's.

    Raises:
        Wrong: They differ.
    """
    raw = answer.raw_output_contents
    found = np.frombuffer(raw[0], np.int64) if raw else np.array(answer.outputs[0].contents.int64_contents)
    if answer.id != request.id or found.tolist() != expected.tolist():
        raise Wrong(f"request {request.id}: {expected.tolist()[:8]} expected, {answer.id}: {found.tolist()[:8]} found")


class Wire:
    """A connection whose frames are written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.last = -1
        large = frames.settings({Setting.INITIAL_WINDOW_SIZE: MAX_ANSWER_BYTES})
        room = frames.window_update(0, MAX_ANSWER_BYTES - frames.DEFAULT_WINDOW_BYTES)
        writer.write(frames.PREFACE + large + room)

    def call(self, request: pb.ModelInferRequest, *, is_whole: bool = True) -> bytes:
        """Return the frames of the next call; in part, its body does not end."""
        self.last += 2
        message = request.SerializeToString()
        end = frames.END_STREAM if is_whole else 0
        body = struct.pack(">BI", 0, len(message)) + message[: None if is_whole else -1]
        return frames.headers(self.last, HEAD, end=False) + frames.frame(frames.DATA, end, self.last, body)

    async def frame(self) -> tuple[int, int, int, bytes]:
        """Return the next frame's type, flags, stream and payload."""
        header = await asyncio.wait_for(self.reader.readexactly(frames.HEADER_BYTES), PATIENCE_SECONDS)
        high, low, kind, flags, stream = frames.HEADER.unpack(header)
        payload = await asyncio.wait_for(self.reader.readexactly(high << 16 | low), PATIENCE_SECONDS)
        return kind, flags, stream, payload

    async def answers(self, streams: set[int]) -> dict[int, pb.ModelInferResponse]:
        """Return the answers of calls; what comes of other streams is passed over."""
        bodies, open_streams = dict.fromkeys(streams, b""), set(streams)
        while open_streams:
            kind, flags, stream, payload = await self.frame()
            if stream in open_streams and kind == frames.DATA:
                bodies[stream] += payload
            elif stream in open_streams and kind == frames.HEADERS and flags & frames.END_STREAM:
                open_streams.remove(stream)
            elif (stream in open_streams and kind == frames.RST_STREAM) or kind == frames.GOAWAY:
                raise Lost(f"the server ends stream {stream}: {payload!r}")
        return {stream: pb.ModelInferResponse.FromString(body[5:]) for stream, body in bodies.items()}

    async def ended(self) -> None:
        """Return once the server has hung up."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(65_536), PATIENCE_SECONDS):
                pass


HEAD = encode(
    (
        *((b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD), (b":authority", b"soak")),
        *((b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"user-agent", b"soak")),
    )
)


@contextlib.asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    """Connect; at the end cut the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


class Client:
    """What the kinds of clients do; each turn ends well or raises ``Lost`` or ``Wrong``."""

    def __init__(self, port: int, questions: Questions, seed: int) -> None:
        self._port = port
        self._ask = questions
        self._random = random.Random(seed)

    def _channel(self) -> grpc.aio.Channel:
        # A pool of its own makes a channel a connection.
        return grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=[("grpc.use_local_subchannel_pool", 1)])

    async def _answered(self, stub: Stub, *, rows: int = 2, raw: bool = True, **options: object) -> None:
        request, expected = self._ask(rows, raw=raw)
        check(request, expected, await stub.ModelInfer(request, timeout=PATIENCE_SECONDS, **options))

    async def steady(self) -> None:
        """Many calls over one connection, raw, typed and compressed, some of them long."""
        async with self._channel() as channel:
            stub = Stub(channel)
            for _ in range(50):
                more = {"compression": self._random.choice([grpc.Compression.Gzip, grpc.Compression.Deflate, None])}
                rows = self._random.choice([1, 2, 50, 5000]) if self._random.random() < 0.2 else 2
                await self._answered(stub, rows=rows, raw=self._random.random() < 0.5, **more)

    async def crowd(self) -> None:
        """Many calls at once over one connection."""
        async with self._channel() as channel:
            stub = Stub(channel)
            await asyncio.gather(*(self._answered(stub, rows=1 + number % 3) for number in range(100)))

    async def visitor(self) -> None:
        """Connects, asks once, goes; half of them say goodbye."""
        async with wire(self._port) as mine:
            request, expected = self._ask()
            mine.writer.write(mine.call(request))
            check(request, expected, (await mine.answers({1}))[1])
            if self._random.random() < 0.5:
                mine.writer.write(frames.goaway(0, ErrorCode.NO_ERROR))
                mine.writer.write_eof()
                await mine.ended()

    async def relayed(self) -> None:
        """Calls that are passed on: health, a watch that is given up, reflection, what is unknown."""
        async with self._channel() as channel:
            health = health_pb2_grpc.HealthStub(channel)
            serving = health_pb2.HealthCheckResponse.SERVING
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
            watching = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
            if answer.status != serving or (await watching.read()).status != serving:
                raise Wrong("not serving")
            watching.cancel()
            asking = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=PATIENCE_SECONDS)
            await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            if not (await asking.read()).list_services_response.service:
                raise Wrong("reflection lists nothing")
            await asking.done_writing()
            await self._refused(channel.unary_unary("/no.Service/Method")(b""), grpc.StatusCode.UNIMPLEMENTED)
            await self._answered(Stub(channel))

    async def mistaken(self) -> None:
        """Requests that are wrong in themselves, each with its own code."""
        async with self._channel() as channel:
            stub = Stub(channel)
            request, _ = self._ask()
            request.inputs[0].shape[:] = [4, 2]
            await self._refused(stub.ModelInfer(request), grpc.StatusCode.INVALID_ARGUMENT)
            request.model_name = "other"
            await self._refused(stub.ModelInfer(request), grpc.StatusCode.NOT_FOUND)
            await self._answered(stub)

    async def _refused(self, calling: Awaitable[object], code: grpc.StatusCode) -> None:
        try:
            await asyncio.wait_for(calling, PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as refused:
            if refused.code() is not code:
                raise Wrong(f"{code} expected, {refused.code()} found: {refused.details()}") from refused
            return
        raise Wrong(f"{code} expected, but it is answered")

    async def impatient(self) -> None:
        """Deadlines that are often too short, and calls that are cancelled; what is answered must be right."""
        async with self._channel() as channel:
            stub = Stub(channel)
            for _ in range(20):
                request, expected = self._ask()
                calling = stub.ModelInfer(request, timeout=self._random.uniform(0.0, 0.02))
                if self._random.random() < 0.5:
                    await asyncio.sleep(self._random.uniform(0.0, 0.005))
                    calling.cancel()
                try:
                    check(request, expected, await calling)
                except asyncio.CancelledError:
                    if not calling.cancelled():
                        raise
                except grpc.aio.AioRpcError as ended:
                    if ended.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
            await self._answered(stub)

    async def quitter(self) -> None:
        """Hangs up with calls in flight, some of them half said; some without a word."""
        async with wire(self._port) as mine:
            for _ in range(self._random.randrange(1, 30)):
                mine.writer.write(mine.call(self._ask()[0], is_whole=self._random.random() < 0.7))
            if self._random.random() < 0.7:
                await mine.writer.drain()
                await mine.frame()

    async def resetter(self) -> None:
        """Gives up half of its calls; the others are answered."""
        async with wire(self._port) as mine:
            kept = {}
            for _ in range(40):
                request, expected = self._ask()
                mine.writer.write(mine.call(request))
                if self._random.random() < 0.5:
                    mine.writer.write(frames.rst_stream(mine.last, self._random.choice(list(ErrorCode))))
                else:
                    kept[mine.last] = (request, expected)
            for stream, answer in (await mine.answers(set(kept))).items():
                check(*kept[stream], answer)

    async def broken(self) -> None:
        """Sends a call whose body is wrong; the next call of the same connection is answered."""
        body = self._random.choice(
            [
                b"",
                b"\0\0",
                struct.pack(">BI", 0, 2**32 - 1),
                struct.pack(">BI", 1, 20) + self._random.randbytes(20),
                struct.pack(">BI", 0, 20) + b"\xff" * 20,
                struct.pack(">BI", 1, 40_000) + self._random.randbytes(40_000),
            ]
        )
        encoding = self._random.choice([(), ((b"grpc-encoding", b"gzip"),), ((b"grpc-encoding", b"none"),)])
        async with wire(self._port) as mine:
            head = encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD), *encoding, *_TYPE))
            mine.last = 1
            mine.writer.write(frames.headers(1, head, end=False))
            for at in range(0, len(body), frames.MAX_FRAME_BYTES):
                mine.writer.write(frames.frame(frames.DATA, 0, 1, body[at : at + frames.MAX_FRAME_BYTES]))
            mine.writer.write(frames.frame(frames.DATA, frames.END_STREAM, 1))
            request, expected = self._ask()
            mine.writer.write(mine.call(request))
            check(request, expected, (await mine.answers({3}))[3])

    async def hostile(self) -> None:
        """Breaks HTTP/2; the server hangs up."""
        noise = self._random.randbytes
        what = self._random.choice(
            [
                b"GET / HTTP/1.1\r\nhost: soak\r\n\r\n",
                frames.frame(frames.DATA, 0, 99, b"nobody opened it"),
                frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
                frames.window_update(0, MAX_ANSWER_BYTES) * 2,
                frames.frame(frames.SETTINGS, 0, 0, noise(5)),
                frames.frame(frames.PUSH_PROMISE, 0, 1, noise(8)),
                frames.frame(frames.CONTINUATION, 0, 1, noise(8)),
                frames.frame(frames.HEADERS, frames.END_HEADERS, 2, HEAD),
                frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x7f" + b"\xff" * 40),
                frames.frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\xff" + HEAD),
                frames.HEADER.pack(255, 0, frames.DATA, 0, 1),
                frames.frame(frames.HEADERS, 0, 1, HEAD) + frames.frame(frames.PING, 0, 0, noise(8)),
                frames.frame(frames.HEADERS, 0, 1, HEAD) + frames.frame(frames.CONTINUATION, 0, 1, bytes(9000)) * 20,
            ]
        )
        async with wire(self._port) as mine:
            mine.writer.write(what)
            await mine.ended()

    async def fuzzy(self) -> None:
        """Frames of any type, flags, stream and payload; the server may do what it likes, but lives."""
        async with wire(self._port) as mine:
            for _ in range(self._random.randrange(1, 50)):
                size = self._random.choice([0, 4, 5, 6, 8, self._random.randrange(200)])
                kind, flags, stream = (self._random.randrange(limit) for limit in (12, 256, 6))
                mine.writer.write(frames.frame(kind, flags, stream, self._random.randbytes(size)))
        await self.visitor()

    async def bomber(self) -> None:
        """A message that is short only while it is compressed, and metadata without end."""
        async with wire(self._port) as mine:
            head = encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD), _GZIP, *_TYPE))
            mine.writer.write(frames.headers(1, head, end=False))
            body = struct.pack(">BI", 1, len(BOMB)) + BOMB
            for at in range(0, len(body), frames.MAX_FRAME_BYTES):
                mine.writer.write(frames.frame(frames.DATA, 0, 1, body[at : at + frames.MAX_FRAME_BYTES]))
            mine.writer.write(frames.frame(frames.DATA, frames.END_STREAM, 1))
            long = encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", METHOD), (b"x", b"x" * 20_000)))
            mine.writer.write(frames.headers(3, long, end=True))
            mine.last = 3
            request, expected = self._ask()
            mine.writer.write(mine.call(request))
            check(request, expected, (await mine.answers({5}))[5])


_TYPE = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
_GZIP = (b"grpc-encoding", b"gzip")
KINDS: dict[str, tuple[Callable[[Client], Awaitable[None]], int, float]] = {
    "steady": (Client.steady, 4, 0.01),
    "crowd": (Client.crowd, 1, 0.2),
    "visitor": (Client.visitor, 2, 0.005),
    "relayed": (Client.relayed, 1, 0.05),
    "mistaken": (Client.mistaken, 1, 0.05),
    "impatient": (Client.impatient, 2, 0.05),
    "quitter": (Client.quitter, 2, 0.02),
    "resetter": (Client.resetter, 1, 0.05),
    "broken": (Client.broken, 1, 0.02),
    "hostile": (Client.hostile, 2, 0.02),
    "fuzzy": (Client.fuzzy, 2, 0.02),
    "bomber": (Client.bomber, 1, 1.0),
}
"""What one does in a turn, how many do it at once, the seconds between two turns of one."""


class Tally:
    """What came of all turns."""

    def __init__(self) -> None:
        self.turns: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._told: Counter[str] = Counter()

    async def run(self, kind: str, turn: Callable[[], Awaitable[None]], seconds: float, until: float) -> None:
        """Take turns until it is late; one in any case."""
        while not self.turns[kind] or time.monotonic() < until:
            try:
                await turn()
            except Wrong as error:
                self._count(self.wrong, kind, error)
            except (Lost, TimeoutError, OSError, EOFError, grpc.aio.AioRpcError) as error:
                self._count(self.lost, kind, error)
            self.turns[kind] += 1
            await asyncio.sleep(seconds)

    def _count(self, what: Counter[str], kind: str, error: Exception) -> None:
        what[kind] += 1
        self._told[kind] += 1
        if self._told[kind] <= 3:
            print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


class Watch:
    """The server's memory and open files, twice a second; made before any client comes."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self.samples: list[tuple[float, float, int]] = []
        self.files_before = self.files()
        self.files_after = 0

    def files(self) -> int:
        """Return how many files the server has open."""
        return sum(1 for _ in (self._folder / "fd").iterdir())

    async def run(self, playing: asyncio.Future[Tally]) -> None:
        """Look until the clients have gone."""
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        while not playing.done():
            resident = int((self._folder / "statm").read_text().split()[1]) * page_bytes / MEBIBYTE
            self.samples.append((time.monotonic() / 60, resident, self.files()))
            await asyncio.sleep(0.5)

    async def settle(self) -> None:
        """Wait, within bounds, until the server has closed what its clients have left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while self.files() > self.files_before:  # noqa: ASYNC110  # another process has no event
                    await asyncio.sleep(0.1)
        self.files_after = self.files()

    def least(self) -> list[tuple[float, float]]:
        """Return the least memory of each ten seconds, by minute: what is held between the longest messages."""
        spans: dict[int, list[float]] = {}
        for minute, resident, _ in self.samples:
            spans.setdefault(int(minute * SPANS_A_MINUTE), []).append(resident)
        return [(span / SPANS_A_MINUTE, min(found)) for span, found in spans.items()]

    def slope(self) -> float:
        """Return by how many MiB a minute what is held grows, once it is warm."""
        least = self.least()
        minutes, resident = zip(*least[int(len(least) * WARM_SHARE) :], strict=True)
        return statistics.linear_regression(minutes, resident).slope if len(minutes) > 1 else 0.0


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def play(port: int, model: SVC, seed: int, minutes: float) -> Tally:
    """Be all clients; returns what came of it."""
    return asyncio.run(_play(port, model, seed, minutes))


async def _play(port: int, model: SVC, seed: int, minutes: float) -> Tally:
    tally, until = Tally(), time.monotonic() + minutes * 60
    async with asyncio.TaskGroup() as group:
        for kind, (turn, count, seconds) in KINDS.items():
            for number in range(count):
                own = seed + hash_of(kind, number)
                client = Client(port, Questions(model, own), own)
                taking = tally.run(kind, partial(turn, client), seconds, until)
                group.create_task(taking, name=f"{kind}-{number}")
    return tally


async def soak(minutes: float, front: str, seed: int) -> bool:
    """Run all clients against one server; returns whether it is sound."""
    data = load_iris()
    model = SVC(gamma="scale").fit(data.data, data.target)
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(model, Path(folder) / "model.joblib")
        port = free_port()
        flags = ("--runtime=sklearn", "--model_name=iris", "--host=127.0.0.1", f"--max_body_bytes={32 * MEBIBYTE}")
        where = (f"--model_dir={folder}", "--http_port=0", f"--grpc_port={port}", f"--grpc_front={front}")
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(  # noqa: ASYNC220  # before anything else goes on
                [sys.executable, "-m", "servery_predictor.cli", *flags, *where], stderr=log, stdout=log
            )
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await Stub(channel).ServerLive(pb.ServerLiveRequest(), wait_for_ready=True, timeout=PATIENCE_SECONDS)
            watch = Watch(process.pid)
            # A process of their own: what they have left behind when it ends is the server's fault.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                playing = asyncio.get_running_loop().run_in_executor(pool, play, port, model, seed, minutes)
                await watch.run(playing)
                tally = await playing
            await watch.settle()
            is_alive = process.poll() is None
        finally:
            process.terminate()
            code = process.wait()
        said = (Path(folder) / "log").read_text(errors="replace")
    is_sound = report(tally, watch, is_alive=is_alive, code=code, said=said)
    return is_sound and (minutes < MIN_MINUTES or watch.slope() <= MAX_SLOPE_MIB)


def hash_of(kind: str, number: int) -> int:
    """Return a number that differs for each client and is the same in each run."""
    return int.from_bytes(f"{kind}{number}".encode()[-6:])


def report(tally: Tally, watch: Watch, *, is_alive: bool, code: int, said: str) -> bool:
    """Print what was found; returns whether it is sound."""
    print(f"{'client':<12}{'turns':>9}{'wrong':>7}{'lost':>7}")
    for kind in KINDS:
        print(f"{kind:<12}{tally.turns[kind]:>9}{tally.wrong[kind]:>7}{tally.lost[kind]:>7}")
    resident = [each[1] for each in watch.samples]
    least = [f"{each:.0f}" for _, each in watch.least()]
    files = max(each[2] for each in watch.samples)
    tracebacks = [line for line in said.splitlines() if "Traceback" in line]
    print(f"memory: {resident[0]:.1f} MiB at first, {max(resident):.1f} at most, {resident[-1]:.1f} at last")
    print(f"least of each ten seconds: {' '.join(least)}")
    print(f"slope of these after the first {WARM_SHARE:.0%}: {watch.slope():+.3f} MiB a minute")
    print(f"open files: {watch.files_before} before, {files} at most, {watch.files_after} after")
    print(f"server: {'alive' if is_alive else 'dead'}, exit code {code}, {len(tracebacks)} tracebacks in its log")
    for line in tracebacks[:3]:
        print(line)
    is_sound = is_alive and code == 0 and not tracebacks and watch.files_after <= watch.files_before
    return is_sound and not tally.wrong.total() and not tally.lost.total() and all(tally.turns[kind] for kind in KINDS)


def main() -> int:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    parser.add_argument("--grpc-front", choices=["fast", "grpcio"], default="fast")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    return 0 if asyncio.run(soak(options.minutes, options.grpc_front, options.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
