"""Real Kubernetes servers for tests: found by ``KUBEBUILDER_ASSETS``, else built once with Go into the user's cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from ssl import CERT_NONE, PROTOCOL_TLS_CLIENT, SSLContext

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOOLS = Path(__file__).parent / "tools"
BINARIES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
ADMIN_TOKEN = "admin"  # of a server that lives for one test session on loopback


class Unavailable(Exception):
    """The servers are not here and cannot be built; says why."""


def version() -> str:
    """Return the Kubernetes version of the tools module."""
    found = re.search(r"^require k8s.io/kubernetes (v\S+)", (TOOLS / "go.mod").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def binaries() -> Path:
    """Return the directory of the servers' binaries, building them if need be.

    Raises:
        Unavailable: No Go, and no binaries.
    """
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "servery" / f"kube-{version()}"
    target.mkdir(parents=True, exist_ok=True)
    # Test workers start together; one builds and the others wait.
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in BINARIES.items():
            if not (target / name).exists():
                _build(package, target / name)
    return target


def _build(package: str, target: Path) -> None:
    if shutil.which("go") is None:
        raise Unavailable("no KUBEBUILDER_ASSETS and no Go to build kube-apiserver with")
    kube = version()
    base = "k8s.io/component-base/version"
    flags = f"-s -w -X {base}.gitVersion={kube} -X {base}.gitMajor=1 -X {base}.gitMinor={kube.split('.')[1]}"
    partial = target.with_suffix(".partial")
    subprocess.run(
        ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(partial), package],
        cwd=TOOLS,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
        check=True,
    )
    partial.rename(target)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def poll(what: str, check: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Return once ``check`` holds; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


@dataclass
class Process:
    """One server, its log beside its state."""

    command: Sequence[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """Stop it by its pid and wait for its end."""
        if self.running is None:
            return
        self.running.terminate()
        try:
            self.running.wait(15)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()
        self.running = None


@dataclass
class ApiServer:
    """etcd and kube-apiserver on free ports of loopback, and a controller manager on demand."""

    folder: Path
    bin: Path
    port: int = field(default_factory=free_port)
    users: dict[str, tuple[str, str]] = field(default_factory=dict)
    _processes: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, token: str = ADMIN_TOKEN) -> Path:
        """Return the path of a kubeconfig for one of the static tokens."""
        path = self.folder / f"{token}.kubeconfig"
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def start(self) -> None:
        """Start both and wait until they are ready."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem, pkcs8, none = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (self.folder / "sa.key").write_bytes(key.private_bytes(pem, pkcs8, none))
        users = {ADMIN_TOKEN: ("admin", "system:masters"), **self.users}
        lines = [f'{token},{name},{name},"{groups}"' for token, (name, groups) in users.items()]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        client, peer = free_port(), free_port()
        self._start(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            # Nobody makes default service accounts here, so the plugin would refuse every pod.
            "--disable-admission-plugins=ServiceAccount",
            f"--cert-dir={self.folder}/certs",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/sa.key",
            f"--service-account-signing-key-file={self.folder}/sa.key",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--profiling=false",
        )
        self.wait_ready()

    def start_controller_manager(self) -> None:
        """Start kube-controller-manager: garbage collection, Deployments, HPA."""
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig()}",
            f"--service-account-private-key-file={self.folder}/sa.key",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--cert-dir={self.folder}/kcm-certs",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            "--horizontal-pod-autoscaler-sync-period=1s",
            # Hundreds of services are settled within a test's patience.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
        )

    def apply_kustomization(self, folder: Path) -> None:
        """Run ``kubectl kustomize FOLDER | kubectl apply --server-side -f -``.

        Raises:
            RuntimeError: With what kubectl said.
        """
        built = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
        apply = [
            "kubectl",
            f"--kubeconfig={self.kubeconfig()}",
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ]
        applied = subprocess.run(apply, input=built.stdout, capture_output=True, text=True, check=False)
        if applied.returncode != 0:
            raise RuntimeError(applied.stderr)

    def restart(self) -> None:
        """Stop the API server as a crash would, and start it again; what it stored stays."""
        process = self._processes["kube-apiserver"]
        assert process.running is not None
        process.running.kill()
        process.running.wait()
        process.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return once ``/readyz`` says ok."""
        context = SSLContext(PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = CERT_NONE
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})

        def ready() -> bool:
            for name, process in self._processes.items():
                if process.running is not None and process.running.poll() is not None:
                    raise RuntimeError(f"{name} ended: {process.log.read_text()[-2000:]}")
            with contextlib.suppress(OSError), urllib.request.urlopen(request, context=context, timeout=2) as answer:
                return bool(answer.status == 200)
            return False

        poll("kube-apiserver", ready)

    def stop(self) -> None:
        """Stop everything that was started."""
        for process in reversed(self._processes.values()):
            process.stop()

    def _start(self, name: str, *arguments: str) -> None:
        self._processes[name] = Process([str(self.bin / name), *arguments], self.folder / f"{name}.log")
        self._processes[name].start()


@contextlib.contextmanager
def api_server(folder: Path, users: dict[str, tuple[str, str]]) -> Iterator[ApiServer]:
    """Yield a running API server; ``users`` maps a token to a user's name and groups."""
    server = ApiServer(folder, binaries(), users=users)
    try:
        server.start()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    # Ahead of the tests, whose time limit is not meant for a build of some minutes.
    try:
        print(f"Kubernetes {version()} in {binaries()}")
    except Unavailable as reason:
        print(f"skipped: {reason}")
