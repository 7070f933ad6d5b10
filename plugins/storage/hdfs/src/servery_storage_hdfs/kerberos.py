"""Proves with a Kerberos ticket who asks. Imports pyspnego and what it is built on, of the extra ``kerberos``."""

from __future__ import annotations

import base64
from collections.abc import Generator

import httpx
import krb5
import spnego
from servery_sdk.errors import Permanent, Transient

from servery_storage_hdfs.client import as_file

_UNREACHABLE = -1765328228
"""Source: MIT's krb5.h, ``KRB5_KDC_UNREACH``."""


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
        what = f"no Kerberos ticket for HTTP/{host} of {self._principal}"
        try:
            return self._first_token(host)
        except krb5.Krb5Error as error:
            # pyspnego lets those of a keytab pass.
            raise _failure(what, error, error.err_code) from error
        except spnego.exceptions.SpnegoError as error:
            raise _failure(what, error, getattr(error.base_error, "min_code", 0)) from error
        except ImportError as error:
            raise Permanent(f"{what}: {error}") from error

    def _first_token(self, host: str) -> bytes:
        if not self._keytab:
            return spnego.client(self._principal, hostname=host, service="HTTP", protocol="kerberos").step() or b""
        with as_file(self._keytab) as path:
            credential = spnego.KerberosKeytab(keytab=str(path), principal=self._principal)
            return spnego.client(credential, hostname=host, service="HTTP", protocol="kerberos").step() or b""


def _failure(what: str, error: Exception, code: int) -> Transient | Permanent:
    # Two libraries, and one has it without its sign.
    is_down = (code - _UNREACHABLE) % 2**32 == 0
    return Transient(f"{what}: {error}") if is_down else Permanent(f"{what}: {error}")
