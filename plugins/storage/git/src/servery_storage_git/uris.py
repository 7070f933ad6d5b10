"""URIs of git repositories: KServe's, with pip's and kustomize's spellings of a reference and a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageUri

SCHEMES = frozenset({"git", "git+https", "git+http", "git+ssh"})
_FORM = "<url of a repository>[@<ref> or ?ref=<ref>][//<folder> or #<folder>]"
# Two slashes end a repository's path and a reference's name.
_PATH = re.compile(r"(?P<repository>/(?:(?!//)[^@])+?)/?(?:@(?P<ref>(?:(?!//).)+))?(?://(?P<folder>.*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in which repository.

    Attributes:
        url: Without who asks, and without ``git+``.
        username: That the URI says.
        ref: A branch, a tag, or a whole commit; empty is what the repository's HEAD is.
        folder: A file's or a folder's path, without slashes at its ends; empty is all of it.
    """

    url: str
    username: str = ""
    password: str = ""
    ref: str = ""
    folder: str = ""


def is_repository(uri: StorageUri) -> bool:
    """Return whether the URI is a git repository's: by its scheme, or by ``.git`` at the end of its path."""
    if uri.scheme in SCHEMES:
        return True
    found = _PATH.fullmatch(urlsplit(uri.text).path) if uri.scheme in {"http", "https"} else None
    return found is not None and found["repository"].endswith(".git")


def place_of(uri: StorageUri) -> Place:
    """Return what the URI names.

    Raises:
        Permanent: It is spelled otherwise, or says a reference or a folder twice.

    Source: KServe, ``https://….git``; pip, ``git+https://…@ref#subdirectory=folder``; kustomize, ``…//folder?ref=ref``.
    """
    parts = urlsplit(uri.text)
    found, query = _PATH.fullmatch(parts.path), parse_qs(parts.query)
    refs = [text for text in (found["ref"] if found else None, *query.pop("ref", [])) if text]
    folders = [text for text in (found["folder"] if found else None, _fragment(parts.fragment)) if text]
    if found is None or not parts.hostname or query or len(refs) > 1 or len(folders) > 1:
        raise Permanent(f"{uri}: not of the form {_FORM}")
    scheme = parts.scheme.removeprefix("git+")
    host = parts.netloc.rpartition("@")[2]
    # ssh logs in as whom the URL says; of HTTP's it is a credential, which no message shall show.
    is_ssh = scheme == "ssh"
    return Place(
        url=urlunsplit((scheme, parts.netloc if is_ssh else host, found["repository"], "", "")),
        username="" if is_ssh else unquote(parts.username or ""),
        password="" if is_ssh else unquote(parts.password or ""),
        ref=unquote(refs[0]) if refs else "",
        folder=unquote(folders[0]).strip("/") if folders else "",
    )


def _fragment(text: str) -> str:
    return text.removeprefix("subdirectory=")
