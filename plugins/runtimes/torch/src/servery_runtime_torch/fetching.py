"""Archives that ``url=`` of a registration names elsewhere, fetched into the model store where ``allowed_urls`` lets them.

Source: TorchServe, "Advanced configuration", ``allowed_urls``; "Management API", ``url`` and ``s3_sse_kms``. TorchServe
allows any URL where nothing is said, so that whoever reaches the port has it run code (CVE-2023-43654): here nothing is
fetched then.
"""

from __future__ import annotations

import http.client
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.serving import InputError, LoadError

from servery_runtime_torch import archive

PROPERTY = "allowed_urls"
_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20
_ENCRYPTED = {"x-amz-server-side-encryption": "aws:kms"}


class NotFetched(ServeryError):
    """An archive that its owner lets us fetch, and that cannot be had."""

    code = ErrorCode.UNAVAILABLE


def is_elsewhere(url: str) -> bool:
    """Return whether ``url`` is no file's name."""
    return "://" in url


def allowed(properties: Mapping[str, str]) -> tuple[re.Pattern[str], ...]:
    """Return what URLs must be like, one of these whole.

    Raises:
        LoadError: One is no regular expression.
    """
    found = []
    for text in properties.get(PROPERTY, "").split(","):
        try:
            found += [re.compile(text.strip())] if text.strip() else []
        except re.error as error:
            raise LoadError(f"{PROPERTY}: {text.strip()!r} is no regular expression: {error}") from error
    return tuple(found)


def name(url: str) -> str:
    """Return the name of the file that ``url`` is of.

    Raises:
        InputError: It is of no archive, or not to be had over HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise InputError(
            f"url: {url!r}: archives are fetched over http and https; one in a bucket has such a URL, too "
            "(https://BUCKET.s3.REGION.amazonaws.com/m.mar), signed where it is private"
        )
    found = PurePosixPath(unquote(parts.path)).name
    if not found.endswith(archive.SUFFIXES):
        raise InputError(f"url: {url!r}: an archive's name ends in one of: {', '.join(archive.SUFFIXES)}")
    return found


def fetch(url: str, folder: Path, patterns: Sequence[re.Pattern[str]], *, is_encrypted: bool = False) -> Path:
    """Return the file of ``folder`` that has become what ``url`` names; nothing is there before it is whole.

    Args:
        patterns: As ``allowed`` returns them; they hold for where a server sends us, too.
        is_encrypted: Ask for the key service's encryption, as S3 wants to be told.

    Raises:
        InputError: It is of no archive, may not be fetched, or is there already.
        NotFetched: It cannot be had, or kept.
        LoadError: It is no archive.
    """
    target = folder / name(url)
    _check(url, patterns)
    if target.exists():
        raise InputError(f"url: the model store holds a {target.name} already; register it by that name, or remove it")
    headers = _ENCRYPTED if is_encrypted else {}
    asked = urllib.request.Request(url, headers=headers)  # noqa: S310  # name has looked at the scheme
    opener = urllib.request.build_opener(_Redirects(patterns))
    try:
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as beside:
            made = Path(beside) / target.name
            with opener.open(asked, timeout=_TIMEOUT_SECONDS) as answer, made.open("wb") as file:
                left = archive.MAX_BYTES
                while chunk := answer.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise NotFetched(f"url: {url!r}: is of more than {archive.MAX_BYTES} bytes")
                    file.write(chunk)
            archive.manifest(made, expected=folder)
            made.replace(target)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise NotFetched(f"url: {url!r} cannot be fetched into {folder}: {error}{_advice(error)}") from error
    return target


def _check(url: str, patterns: Sequence[re.Pattern[str]]) -> None:
    if ".." in url or not any(pattern.fullmatch(url) for pattern in patterns):
        said = ", ".join(pattern.pattern for pattern in patterns)
        found = f"{PROPERTY}={said}" if said else f"{PROPERTY} is not set in config.properties, so nothing is fetched"
        raise InputError(f"Given URL {url} does not match any allowed URL(s): {found}")


def _advice(error: Exception) -> str:
    if isinstance(error, OSError) and "Read-only" in str(error):
        return '; models are mounted read-only unless the annotation storage.kserve.io/readonly is "false"'
    return ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, patterns: Sequence[re.Pattern[str]]) -> None:
        self._patterns = patterns

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check(newurl, self._patterns)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
