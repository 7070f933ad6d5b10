"""``hf://`` URIs, in KServe's spelling and in OME's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri

DEFAULT_REVISION = "main"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# The hub's own references have slashes in their names; those in a branch's name are written %2F.
_URI = re.compile(
    rf"(?P<repository>{_NAME}/{_NAME})(?:[:@](?P<revision>refs/(?:pr|convert)/[^/]+|[^/]*))?(?:/(?P<path>.*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on the hub. ``path`` is a file or a folder, without slashes at its ends; empty is all of the repository."""

    repository: str
    revision: str = DEFAULT_REVISION
    path: str = ""


def place_of(uri: StorageUri) -> Place:
    """Return what ``hf://owner/model``, ``…:revision`` or ``…@revision`` names, with or without ``/folder`` behind.

    Raises:
        Permanent: It is spelled otherwise.

    Source: KServe, "hf://owner/model[:revision]"; OME pkg/utils/storage, "hf://{model-id}[@{branch}]".
    """
    found = _URI.fullmatch(uri.text.partition("://")[2])
    if found is None:
        raise Permanent(f"{uri}: not of the form hf://<owner>/<model>[:<revision> or @<revision>][/<folder>]")
    return Place(
        repository=found["repository"],
        revision=unquote(found["revision"] or DEFAULT_REVISION),
        path=unquote(found["path"] or "").strip("/"),
    )
