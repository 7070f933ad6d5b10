"""URIs of Azure Storage, in its own spelling, in Hadoop's and in OME's."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri

HADOOP = frozenset({"abfs", "abfss", "wasb", "wasbs"})
OME = frozenset({"az", "azure"})
# The public cloud, its DNS zones, and the clouds of states.
_HOST = re.compile(
    r"(?P<account>[a-z0-9-]+)(?:\.z\d{1,2})?\.(?P<service>blob|dfs|file)"
    r"\.(?:core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)|storage\.azure\.net)"
)


class Service(enum.StrEnum):
    """What holds the objects."""

    BLOB = "blob"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A container or a share of an account, and where in it.

    Attributes:
        path: An object or a folder, without slashes at its ends; empty is all.
        sas: A signature that came with the URI, as it was written.
    """

    service: Service
    account: str
    host: str
    container: str
    path: str = ""
    sas: str = ""

    @property
    def root(self) -> str:
        """``account.blob.core.windows.net/container``."""
        return f"{self.host}/{self.container}"


def is_azures(uri: StorageUri) -> bool:
    """Return whether an ``https`` URI is of an Azure account."""
    return uri.scheme == "https" and _HOST.fullmatch(uri.host.lower()) is not None


def place_of(uri: StorageUri) -> Place:
    """Return what ``https://account.blob.core.windows.net/container/path?sas``, ``….file.…``,
    ``abfss://container@account.dfs.core.windows.net/path``, ``wasbs://…`` and ``az://account/container/path`` name.

    Raises:
        Permanent: It is spelled otherwise.

    Source: KServe ``_AZURE_BLOB_RE`` and ``_AZURE_FILE_RE``; Hadoop's ABFS and WASB drivers; OME pkg/utils/storage.
    """
    host, container, path = uri.host.lower(), *_split(uri.path)
    if uri.scheme in HADOOP:
        container, _, host = uri.host.partition("@")
        host, path = host.lower(), uri.path
    elif uri.scheme in OME and "." not in host:
        host = f"{host}.blob.core.windows.net"
    found = _HOST.fullmatch(host)
    if found is None or not container:
        raise Permanent(f"{without_query(uri)}: not of the form {_form(uri.scheme)}")
    is_file = found["service"] == "file"
    return Place(
        service=Service.FILE if is_file else Service.BLOB,
        account=found["account"],
        # A blob is a blob's, whichever of its account's doors it is named by.
        host=host.replace(".dfs.", ".blob."),
        container=container,
        path=path.strip("/"),
        sas=urlsplit(uri.text).query,
    )


def without_query(uri: StorageUri) -> str:
    """Return the URI without its signature, fit to be read."""
    return uri.text.partition("?")[0]


def _split(path: str) -> tuple[str, str]:
    container, _, below = path.partition("/")
    return container, below


def _form(scheme: str) -> str:
    if scheme in HADOOP:
        return (
            f"{scheme}://<container>@<account>.{'dfs' if scheme.startswith('abfs') else 'blob'}.core.windows.net/<path>"
        )
    if scheme in OME:
        return f"{scheme}://<account>/<container>/<path>"
    return "https://<account>.blob.core.windows.net/<container>/<path>, or .file. for a share"
