"""URIs of hubs, where an owner's models are repositories with revisions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPlace:
    """Where on a hub.

    Attributes:
        repository: ``owner/model``.
        path: A file or a folder, without slashes at its ends; empty is all of the repository.
    """

    repository: str
    revision: str
    path: str = ""


class Hub:
    """One hub's spelling.

    Args:
        default_revision: Of URIs that name none.
        slashed: Regular expression of references that have slashes in their names; in others, a slash is written %2F.
    """

    def __init__(self, scheme: str, *, default_revision: str, slashed: str = "") -> None:
        self._scheme, self._default_revision = scheme, default_revision
        revision = f"{slashed}|[^/]*" if slashed else "[^/]*"
        self._form = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(?:[:@](?P<revision>{revision}))?(?:/(?P<path>.*))?")

    def place_of(self, uri: StorageUri) -> HubPlace:
        """Return what ``scheme://owner/model``, ``…:revision`` or ``…@revision`` names, with or without ``/folder`` behind.

        Raises:
            Permanent: It is spelled otherwise.

        Source: KServe, "hf://owner/model[:revision]"; OME pkg/utils/storage, "hf://{model-id}[@{branch}]".
        """
        found = self._form.fullmatch(uri.text.partition("://")[2])
        if found is None:
            raise Permanent(
                f"{uri}: not of the form {self._scheme}://<owner>/<model>[:<revision> or @<revision>][/<folder>]"
            )
        return HubPlace(
            repository=found["repository"],
            revision=unquote(found["revision"] or self._default_revision),
            path=unquote(found["path"] or "").strip("/"),
        )
