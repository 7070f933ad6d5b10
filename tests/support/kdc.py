"""A real Kerberos: MIT's KDC of one realm on loopback, with hands that make keytabs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ports import free_port

REALM = "SERVERY.TEST"
_SECONDS = 30
_CLIENT = """
[libdefaults]
default_realm = {realm}
dns_lookup_kdc = false
dns_lookup_realm = false
dns_canonicalize_hostname = false
rdns = false
udp_preference_limit = 1
[realms]
{realm} = {{
  kdc = 127.0.0.1:{port}
}}
[domain_realm]
localhost = {realm}
"""
_SERVER = """
[kdcdefaults]
kdc_listen = 127.0.0.1:{port}
kdc_tcp_listen = 127.0.0.1:{port}
[realms]
{realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
}}
"""


class Unavailable(Exception):
    """MIT's KDC is not installed; says how it is."""


@dataclass
class Kdc:
    """A running KDC.

    Attributes:
        environment: What a process of the realm has: ``KRB5_CONFIG``.
    """

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def administer(self, *words: str) -> None:
        """Have ``kadmin.local`` do something."""
        self.run("kadmin.local", "-r", REALM, *words)

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [_program(program), *arguments],
            env=self.environment,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )

    def keytab(self, principal: str) -> Path:
        """Return the file of a new key of ``principal``, which is made if it is not there: older keys no longer open."""
        path = self.folder / f"{principal.replace('/', '-')}-{time.monotonic_ns()}.keytab"
        if not any(self.folder.glob(f"{principal.replace('/', '-')}-*.keytab")):
            self.administer("addprinc", "-randkey", principal)
        self.administer("ktadd", "-k", str(path), principal)
        return path

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_SECONDS)
            self.process = None


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise Unavailable(f"{name} is not here: apt-get install krb5-kdc krb5-admin-server krb5-user libkrb5-dev")
    return found


@contextmanager
def kdc_served(folder: Path) -> Iterator[Kdc]:
    """Start a KDC whose realm has nobody yet, and stop it."""
    port = free_port()
    (folder / "krb5.conf").write_text(_CLIENT.format(realm=REALM, port=port))
    (folder / "kdc.conf").write_text(_SERVER.format(realm=REALM, port=port, folder=folder))
    environment = {"KRB5_CONFIG": str(folder / "krb5.conf"), "KRB5_KDC_PROFILE": str(folder / "kdc.conf")}
    kdc = Kdc(folder, environment)
    kdc.run("kdb5_util", "-r", REALM, "create", "-s", "-P", "master")
    with (folder / "kdc.log").open("wb") as log:
        kdc.process = subprocess.Popen(
            [_program("krb5kdc"), "-n", "-P", str(folder / "kdc.pid")], env=environment, stdout=log, stderr=log
        )
    try:
        _until_it_answers(kdc.process, port, folder)
        yield kdc
    finally:
        kdc.stop()


def _until_it_answers(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, (folder / "kdc.log").read_text()
        assert time.monotonic() < deadline, "the KDC does not listen in time"
        time.sleep(0.02)
