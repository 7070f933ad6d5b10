"""Where HDFS is and who asks: KServe's secret, file by file, its storage secret, and the environment."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servery_sdk.errors import Permanent

SECRET_DIRECTORY = "/var/secrets/kserve-hdfscreds"  # noqa: S105  # a path
_FILES = ("TLS_CERT", "TLS_KEY", "TLS_CA", "KERBEROS_KEYTAB")
_TEXTS = ("HDFS_NAMENODE", "USER_PROXY", "HDFS_ROOTPATH", "TLS_SKIP_VERIFY", "HEADERS", "KERBEROS_PRINCIPAL")
_OURS = ("HDFS_DELEGATION_TOKEN",)
_TYPES = frozenset({"hdfs", "webhdfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is known of a cluster.

    Attributes:
        namenodes: URLs without a slash at the end; of more than one, one is active.
        root: Before each path; relative to the user's home where it has no slash at its beginning.
        proxied_user: In whose name is asked.
        user: Who asks where nobody proves who he is.
        certificate: Of ours, in PEM, with its ``key``; ``authority`` verifies the cluster's.
        keytab: Its content.
    """

    namenodes: tuple[str, ...] = ()
    root: str = "/"
    proxied_user: str = ""
    user: str = ""
    delegation_token: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool = True
    certificate: bytes = b""
    key: bytes = b""
    authority: bytes = b""
    principal: str = ""
    keytab: bytes = b""


def config_of(environment: Mapping[str, str]) -> Config:
    """Return what ``STORAGE_CONFIG`` says with ``STORAGE_OVERRIDE_CONFIG``, or else the files of ``HDFS_SECRET_DIR``, or
    else the environment.

    Raises:
        Permanent: Something of it cannot be read.

    Source: KServe, "HDFS"; its storage secret has what are files as base64. ``N_THREADS`` is the engine's business.
    """
    texts = {name: environment[name] for name in (*_TEXTS, *_OURS) if environment.get(name)}
    files: dict[str, bytes] = {}
    directory = Path(environment.get("HDFS_SECRET_DIR") or SECRET_DIRECTORY)
    try:
        for name in (*_TEXTS, *_OURS, *_FILES):
            if (path := directory / name).is_file():
                if name in _FILES:
                    files[name] = path.read_bytes()
                else:
                    texts[name] = path.read_text().strip()
    except OSError as error:
        raise Permanent(f"{directory}: cannot read HDFS's secret: {error.strerror}") from error
    given = _storage_config(environment)
    texts |= {name: str(given[name]) for name in (*_TEXTS, *_OURS) if given.get(name)}
    try:
        files |= {name: base64.b64decode(str(given[name]), validate=True) for name in _FILES if given.get(name)}
    except ValueError as error:
        raise Permanent(f"STORAGE_CONFIG: {', '.join(_FILES)}: base64 is wanted: {error}") from error
    return Config(
        namenodes=_urls(texts.get("HDFS_NAMENODE", "")),
        root=texts.get("HDFS_ROOTPATH") or "/",
        proxied_user=texts.get("USER_PROXY", ""),
        user=environment.get("HADOOP_USER_NAME", ""),
        delegation_token=texts.get("HDFS_DELEGATION_TOKEN", ""),
        headers=_headers(texts.get("HEADERS", "")),
        verify=texts.get("TLS_SKIP_VERIFY", "").lower() != "true",
        certificate=files.get("TLS_CERT", b""),
        key=files.get("TLS_KEY", b""),
        authority=files.get("TLS_CA", b""),
        principal=texts.get("KERBEROS_PRINCIPAL", ""),
        keytab=files.get("KERBEROS_KEYTAB", b""),
    )


def _storage_config(environment: Mapping[str, str]) -> Mapping[str, object]:
    try:
        given = {
            **json.loads(environment.get("STORAGE_CONFIG") or "{}"),
            **json.loads(environment.get("STORAGE_OVERRIDE_CONFIG") or "{}"),
        }
    except (ValueError, TypeError) as error:
        raise Permanent(f"STORAGE_CONFIG: a JSON object is wanted: {error}") from error
    return given if given.get("type") in _TYPES else {}


def _urls(text: str) -> tuple[str, ...]:
    urls = tuple(part.strip().rstrip("/") for part in text.split(";") if part.strip())
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise Permanent(f"HDFS_NAMENODE: {url!r} is no URL of WebHDFS; such is https://namenode:9871")
    return urls


def _headers(text: str) -> Mapping[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(text or "{}").items()}
    except (ValueError, AttributeError) as error:
        raise Permanent(f"HEADERS: a JSON object of headers is wanted: {error}") from error
