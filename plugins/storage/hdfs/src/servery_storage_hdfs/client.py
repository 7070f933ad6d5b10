"""WebHDFS, as a client speaks it. Imports httpx: the provider's calls alone import this."""

from __future__ import annotations

import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal, Sink

from servery_storage_hdfs.config import Config

TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""

_STANDBY = frozenset({"StandbyException"})
_BUSY = frozenset({"SafeModeException", "RetriableException", "ConnectException"})


class WebHdfs:
    """One cluster, asked at whichever of its namenodes is active."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._active = config.namenodes[0]
        self._verified = _verified(config)

    async def status(self, path: str, what: str) -> Mapping[str, Any]:
        """Return a file's or a directory's status."""
        return dict((await self._json(path, "GETFILESTATUS", what))["FileStatus"])

    async def children(self, path: str, what: str) -> tuple[Mapping[str, Any], ...]:
        """Return the statuses of what a directory holds."""
        return tuple((await self._json(path, "LISTSTATUS", what))["FileStatuses"]["FileStatus"])

    async def home(self, what: str) -> str:
        """Return the user's own directory."""
        return str((await self._json("/", "GETHOMEDIRECTORY", what))["Path"])

    async def read(self, path: str, sink: Sink, offset: int, what: str) -> None:
        """Write a file's bytes from ``offset`` on to ``sink``, from the datanode to which the namenode sends."""
        async with self._asked(path, "OPEN", what, {"offset": str(offset)}) as answer:
            # As it comes: what is gathered to larger pieces would be lost when the connection breaks.
            async for chunk in answer.aiter_raw():
                sink.write(chunk)

    async def _json(self, path: str, operation: str, what: str) -> Mapping[str, Any]:
        async with self._asked(path, operation, what, {}) as answer:
            body = await answer.aread()
        try:
            found = json.loads(body)
        except ValueError as error:
            raise Permanent(f"{what}: {self._active} does not answer as WebHDFS: {error}") from error
        if not isinstance(found, dict):
            raise Permanent(f"{what}: {self._active} does not answer as WebHDFS")
        return found

    @contextlib.asynccontextmanager
    async def _asked(
        self, path: str, operation: str, what: str, more: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Yield what the active namenode answers, or who it sends to.

        Raises:
            Transient: None of them answers, or may answer otherwise later.
            Permanent: It refuses.
        """
        query = {"op": operation, **more, **self._identity()}
        failures, is_answered = [], False
        for namenode in sorted(self._config.namenodes, key=lambda url: url != self._active):
            # A client has the cookie that stands for a ticket, which a cluster with Kerberos gives.
            async with httpx.AsyncClient(
                verify=self._verified,
                timeout=TIMEOUT_SECONDS,
                follow_redirects=True,
                headers={**self._config.headers, "accept-encoding": "identity"},
                auth=self._auth(),
            ) as client:
                try:
                    async with client.stream("GET", f"{namenode}/webhdfs/v1{quote(path)}", params=query) as answer:
                        if answer.is_success:
                            self._active, is_answered = namenode, True
                            yield answer
                            return
                        await answer.aread()
                        exception, words = _exception(answer)
                        if exception not in _STANDBY:
                            raise self._failure(answer, exception, words, what)
                        failures.append(f"{namenode}: {exception}")
                except (httpx.TransportError, ssl.SSLError) as error:  # the library lets TLS's own pass
                    if is_answered:
                        raise Transient(f"{what}: {type(error).__name__}: {error}") from error
                    failures.append(f"{namenode}: {type(error).__name__}: {error}")
                except httpx.HTTPError as error:
                    raise Permanent(f"{what}: {type(error).__name__}: {error}") from error
        raise Transient(f"{what}: no namenode answers: {'; '.join(failures)}")

    def _identity(self) -> Mapping[str, str]:
        """Source: Hadoop, "WebHDFS REST API", Authentication and Proxy Users."""
        config = self._config
        if config.delegation_token:
            return {"delegation": config.delegation_token}
        return {
            **({"user.name": config.user} if config.user and not config.principal else {}),
            **({"doas": config.proxied_user} if config.proxied_user else {}),
        }

    def _auth(self) -> httpx.Auth | None:
        if not self._config.principal:
            return None
        try:
            kerberos = import_module("servery_storage_hdfs.kerberos")
        except ImportError as error:
            raise Permanent(
                f"KERBEROS_PRINCIPAL: {error}; install servery-storage-hdfs[kerberos], which is built with MIT Kerberos"
            ) from error
        auth: httpx.Auth = kerberos.Negotiate(self._config.principal, self._config.keytab)
        return auth

    def _failure(self, answer: httpx.Response, exception: str, words: str, what: str) -> Transient | Permanent:
        said = f"{exception}: {words}" if exception else ""
        if exception in _BUSY:
            return Transient(f"{what}: {said}")
        if answer.status_code == HTTPStatus.UNAUTHORIZED and not self._config.principal:
            said = f"{said}; the cluster wants Kerberos: set KERBEROS_PRINCIPAL and KERBEROS_KEYTAB".lstrip("; ")
        return Refusal.of(answer).failure(what, said)


def _exception(answer: httpx.Response) -> tuple[str, str]:
    """Source: Hadoop, "WebHDFS REST API", Error Responses."""
    try:
        found = answer.json()["RemoteException"]
        return str(found["exception"]), str(found.get("message", "")).partition("\n")[0]
    except (ValueError, LookupError, TypeError):
        return "", ""


def _verified(config: Config) -> ssl.SSLContext | bool:
    if not config.certificate and not config.authority:
        return config.verify
    try:
        context = ssl.create_default_context(cadata=config.authority.decode() or None)
        if not config.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if config.certificate:
            with as_file(config.certificate) as certificate, as_file(config.key or config.certificate) as key:
                context.load_cert_chain(certificate, key)
    except (ssl.SSLError, ValueError) as error:
        raise Permanent(f"TLS_CERT, TLS_KEY, TLS_CA: not certificates and their key in PEM: {error}") from error
    return context


@contextlib.contextmanager
def as_file(content: bytes) -> Iterator[Path]:
    """Yield a file with ``content``, which nobody else may read, for libraries that read nothing else."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)
