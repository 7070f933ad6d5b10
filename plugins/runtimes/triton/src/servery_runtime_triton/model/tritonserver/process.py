"""One ``tritonserver`` process: started with a guard beside it, read while it runs, ended with us.

It listens on the loopback interface alone and asks for a key that only this process has: of a pod's other containers,
which share the interface, none may load models into it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import grpc
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from servery_sdk.serving import LoadError

from servery_runtime_triton.model.tritonserver.installed import Installed

logger = logging.getLogger(__name__)

GUARD = Path(__file__).with_name("guard.py")
GRACE_SECONDS = 10.0
"""For models to finalize."""
START_SECONDS = 120.0

_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.2
_STARTS = 3
_LINES = 100
_RESTRICTED = "health,metadata,inference,shared-memory,model-config,model-repository,statistics,trace,logging"
_SAID_SECONDS = 1.0
"""That a complaint of its log may take to be read."""
_LEVELS = {"E": logging.ERROR, "F": logging.ERROR, "W": logging.WARNING, "I": logging.DEBUG, "V": logging.DEBUG}
_LINE = re.compile(r"([EFWIV])\d{4} [\d:.]+ \d+ \S+\] ?(.*)")
_LIBRARY = re.compile(r"error while loading shared libraries: ([^:]+):")
_TAKEN = "already in use"
_CHANNEL: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The machine's proxy knows nothing of a process of ours.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Running:
    """A started ``tritonserver``, which loads what it is told to.

    Attributes:
        stub: Of its gRPC service.
        key: What each call has to carry.
        since: When it was started, of the monotonic clock.
    """

    def __init__(self, installed: Installed, models: Path, backends: Path) -> None:
        port = _free_port()
        token = secrets.token_urlsafe(16)
        self.since = time.monotonic()
        self._binary = installed.binary
        process = subprocess.Popen(  # noqa: S603  # what the machine has installed
            [
                *(sys.executable, "-I", str(GUARD), str(GRACE_SECONDS), str(installed.binary)),
                f"--model-repository={models}",
                *((f"--backend-directory={backends}",) if backends.is_dir() else ()),
                "--model-control-mode=explicit",
                f"--grpc-address={_HOST}",
                f"--grpc-port={port}",
                f"--grpc-restricted-protocol={_RESTRICTED}:servery={token}",
                "--allow-http=false",
                "--allow-metrics=false",
                f"--exit-timeout-secs={GRACE_SECONDS:.0f}",
            ],
            env=installed.environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # A signal for our group is ours: it ends when we let go of it.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._reader = threading.Thread(
            target=_read, args=(process, process.stdout, self._lines), name="tritonserver-log", daemon=True
        )
        self._reader.start()
        channel = grpc.insecure_channel(f"{_HOST}:{port}", options=_CHANNEL)
        self._channel = channel
        self.stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
        self.key = (("triton-grpc-protocol-servery", token),)
        self._let_go = weakref.finalize(self, _let_go, process.stdin, channel)

    @classmethod
    def started(cls, installed: Installed, models: Path, backends: Path) -> Running:
        """Start one and wait until it answers.

        Raises:
            LoadError: It does not start; says its own words, and what else there is to do.
        """
        for _ in range(_STARTS - 1):
            made = cls(installed, models, backends)
            try:
                made._wait()
            except LoadError as error:
                # Somebody was quicker to take the port that was free.
                if _TAKEN not in str(error):
                    raise
            else:
                return made
        made = cls(installed, models, backends)
        made._wait()
        return made

    def _wait(self) -> None:
        until = self.since + START_SECONDS
        while time.monotonic() < until:
            try:
                self.stub.ServerLive(
                    pb.ServerLiveRequest(), timeout=_LOOK_SECONDS, wait_for_ready=True, metadata=self.key
                )
            except grpc.RpcError:
                if self.exit_code is None:
                    continue
                raise LoadError(f"{self._binary} does not start: {self._why()}") from None
            return
        self.stop()
        raise LoadError(
            f"{self._binary} does not answer within {START_SECONDS:g} s of its start; its last words: "
            f"{' | '.join(self.said()) or 'none'}"
        )

    def _why(self) -> str:
        # What it said is complete once its end is closed.
        self._reader.join()
        words = " | ".join(self.said())
        if (missing := _LIBRARY.search(words)) is not None:
            words = f"it needs {missing[1]}, which this machine does not have: install the package that brings it"
        return f"{words or f'exit code {self.exit_code}'}; or choose --engine=servery, which needs none of it"

    @property
    def exit_code(self) -> int | None:
        """Of the ended process; None while it runs."""
        return self._process.poll()

    def said(self) -> tuple[str, ...]:
        """Return the last complaints, or the last lines where there are none."""
        return tuple((self._complaints() or [_words(line) for line in self._lines])[-5:])

    def said_since(self, before: Sequence[str]) -> list[str]:
        """Return the complaints beyond ``before``, which may be read a moment after the answer that they explain."""
        until = time.monotonic() + _SAID_SECONDS
        while (
            not (new := [said for said in self._complaints()[-5:] if said not in before]) and time.monotonic() < until
        ):
            time.sleep(_SAID_SECONDS / 50)
        return new

    def _complaints(self) -> list[str]:
        return [_words(line) for line in list(self._lines) if line[:1] in "EF" and _LINE.match(line)]

    def stop(self) -> None:
        """End it, and wait until models are finalized."""
        self._let_go()
        self._reader.join(GRACE_SECONDS + 5)


def _let_go(stdin: IO[str], channel: grpc.Channel) -> None:
    # Of no object: nobody who is gone may be kept by it.
    channel.close()
    stdin.close()


def _read(process: subprocess.Popen[str], output: IO[str], lines: deque[str]) -> None:
    with output:
        for line in output:
            lines.append(line.rstrip())
            known = _LINE.match(line)
            logger.log(_LEVELS[known[1]] if known else logging.INFO, "tritonserver", extra={"said": _words(line)})
    code = process.wait()
    logger.info("tritonserver ended", extra={"exit_code": code})


def _words(line: str) -> str:
    known = _LINE.match(line)
    return known[2].strip('"') if known else line.strip()


def _free_port() -> int:
    with socket.socket() as held:
        held.bind((_HOST, 0))
        return int(held.getsockname()[1])
