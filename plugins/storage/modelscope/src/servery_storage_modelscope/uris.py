"""``modelscope://`` URIs, in KServe's spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri

DEFAULT_REVISION = "master"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_URI = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(?:[:@](?P<revision>[^/]*))?(?:/(?P<path>.*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on ModelScope. ``path`` is a file or a folder, without slashes at its ends; empty is all of the model."""

    repository: str
    revision: str = DEFAULT_REVISION
    path: str = ""


def place_of(uri: StorageUri) -> Place:
    """Return what ``modelscope://owner/model``, with ``:revision``, and ``/folder`` behind, names.

    Raises:
        Permanent: It is spelled otherwise.
    """
    found = _URI.fullmatch(uri.text.partition("://")[2])
    if found is None:
        raise Permanent(f"{uri}: not of the form modelscope://<owner>/<model>[:<revision>][/<folder>]")
    return Place(
        repository=found["repository"],
        revision=unquote(found["revision"] or DEFAULT_REVISION),
        path=unquote(found["path"] or "").strip("/"),
    )
