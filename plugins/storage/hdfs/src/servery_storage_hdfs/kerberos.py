"""Proves with a Kerberos ticket who asks. Imports pyspnego, of the extra ``kerberos``."""

from __future__ import annotations

import base64
from collections.abc import Generator

import httpx
import spnego
from servery_sdk.errors import Permanent

from servery_storage_hdfs.client import as_file


class Negotiate(httpx.Auth):
    """HTTP's ``Negotiate``, with a ticket for the namenode that a principal gets by its keytab.

    Without a keytab it is of the user's own cache, ``KRB5CCNAME``.
    """

    def __init__(self, principal: str, keytab: bytes) -> None:
        self._principal, self._keytab = principal, keytab

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the ticket at once: a namenode that wants none does not look at it."""
        token = base64.b64encode(self._ticket(request.url.host)).decode()
        request.headers["authorization"] = f"Negotiate {token}"
        yield request

    def _ticket(self, host: str) -> bytes:
        try:
            if not self._keytab:
                context = spnego.client(self._principal, hostname=host, service="HTTP", protocol="kerberos")
                return context.step() or b""
            with as_file(self._keytab) as path:
                credential = spnego.KerberosKeytab(keytab=str(path), principal=self._principal)
                context = spnego.client(credential, hostname=host, service="HTTP", protocol="kerberos")
                return context.step() or b""
        except (spnego.exceptions.SpnegoError, ImportError) as error:
            raise Permanent(f"no Kerberos ticket for HTTP/{host} of {self._principal}: {error}") from error
