"""What KubeRay does in a pod, as a program: a Ray of one node, and on it the Serve applications of one config.

``python -m servery.local.ray CONFIG``, a ServeDeploySchema as JSON. It answers 200 on ``STATUS_PORT`` once all
applications run, and ends when one cannot be deployed, its last words in the termination log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import NoReturn

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus
from ray.serve.scripts import cli

STATUS_PORT = 8265
"""Ray's own for such questions."""
_POLL_SECONDS = 0.2
_CPUS = 10_000
"""Ray's are a promise between it and its actors; here everybody shares the machine's, as all local pods do."""
_OBJECT_STORE_BYTES = 80_000_000
"""About the least that Ray takes: requests do not go through it."""


def main() -> None:
    """Run until a signal; exits 1 when an application cannot be deployed."""
    signal.signal(signal.SIGTERM, _interrupt)
    config = json.loads(sys.argv[1])
    host = config["http_options"]["host"]
    # Sockets lie in it, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        # Everything of this Ray listens on the pod's own address.
        ray.init(
            address="local",
            namespace="serve",
            num_cpus=_CPUS,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _node_ip_address=host,
            _temp_dir=directory,
        )
        status = _Status(host)
        threading.Thread(target=status.serve_forever, name="status", daemon=True).start()
        threading.Thread(target=status.watch, name="watch", daemon=True).start()
        file = Path(directory) / "serve.json"
        file.write_text(sys.argv[1])
        try:
            cli(["run", str(file)], standalone_mode=False)
        finally:
            status.shutdown()
            ray.shutdown()
            if status.failure:
                _leave_word(status.failure)
                sys.exit(1)


class _Status(ThreadingHTTPServer):
    """Answers 200 or 503."""

    def __init__(self, host: str) -> None:
        super().__init__((host, STATUS_PORT), _Answer)
        self.is_running = False
        self.failure = ""

    def watch(self) -> None:
        """Look at the applications until one has failed."""
        while not self.failure:
            applications = serve.status().applications.values()
            self.is_running = bool(applications) and all(
                application.status is ApplicationStatus.RUNNING for application in applications
            )
            for application in applications:
                if application.status is ApplicationStatus.DEPLOY_FAILED:
                    said = [d.message for d in application.deployments.values() if d.message] or [application.message]
                    self.failure = said[0]
                    os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_POLL_SECONDS)


class _Answer(BaseHTTPRequestHandler):
    server: _Status

    def do_GET(self) -> None:
        self.send_response(200 if self.server.is_running else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's word
        """Keep probes out of the model's log."""


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt  # what ``serve run`` ends on


def _leave_word(message: str) -> None:
    """Print why, and leave it where Kubernetes looks for it: of a traceback, what was raised."""
    lines = [line for line in message.splitlines() if line.strip()]
    last = lines[-1].strip()
    sys.stderr.write(f"{message}\n")
    Path(os.environ["SERVERY_PREDICTOR_TERMINATION_LOG"]).write_text(last)


if __name__ == "__main__":
    main()
