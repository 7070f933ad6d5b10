"""One commit's files on this machine's disk. Imports dulwich: the provider's calls alone import this."""

from __future__ import annotations

import posixpath
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3.exceptions
from dulwich.client import HTTPUnauthorized, default_urllib3_manager, get_transport_and_path_from_url
from dulwich.config import ConfigDict, ConfigFile
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.objects import Blob, Commit, Tag, Tree
from dulwich.repo import Repo
from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import path_below

from servery_storage_git.access import Access
from servery_storage_git.uris import Place

TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRANSIENT = re.compile(r"unexpected http resp (408|425|429|5\d\d)")
_MAX_POINTER_BYTES = 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:[a-z0-9.-]+ .*\n)*?oid sha256:([0-9a-f]{64})\n"
)
_POINTER_SIZE = re.compile(rb"^size ([0-9]+)$", re.MULTILINE)
_MAX_LINKS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the model.

    Attributes:
        copy: Its content on this machine; None where LFS keeps it.
        version: Git's sum of it, or LFS's.
    """

    size_bytes: int
    version: str
    copy: Path | None = None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """What a commit has below a folder, by the path there. ``lfs_url`` is what the repository itself says."""

    commit: str
    files: Mapping[str, File]
    lfs_url: str | None = None


def checked_out(place: Place, access: Access, directory: Path, what: str) -> Checkout:
    """Fetch one commit without its history into ``directory``, and put its files there.

    Raises:
        Transient: The server does not answer, or may answer otherwise later.
        Permanent: There is no such repository, reference or file, or the server refuses.
    """
    repository = Repo.init_bare(str(directory / "git"), mkdir=True)
    try:
        commit = _fetched(repository, place, access, what)
        tree = repository.object_store[commit.tree]
        assert isinstance(tree, Tree)
        blobs = {path.decode(errors="surrogateescape"): (mode, sha) for path, mode, sha in _blobs(repository, tree.id)}
        files = directory / "files"
        files.mkdir()
        found = dict(_files(repository, blobs, place.folder, files, what))
        config = blobs.get(".lfsconfig")
        lfs_url = _lfs_url(_content(repository, config[1])) if config else None
        return Checkout(commit=commit.id.decode(), files=found, lfs_url=lfs_url)
    finally:
        repository.close()
        shutil.rmtree(directory / "git")


def _fetched(repository: Repo, place: Place, access: Access, what: str) -> Commit:
    """Return the commit that the reference is, now in ``repository`` with its tree."""
    wanted: list[bytes] = []

    def wants(refs: Mapping[bytes, bytes], depth: int | None = None) -> Sequence[bytes]:
        wanted.append(_resolved(refs, place.ref, what))
        return wanted

    config = _config(access)
    answers = _Answers(default_urllib3_manager(config, base_url=place.url))
    try:
        client, path = get_transport_and_path_from_url(
            place.url,
            config=config,
            pool_manager=answers,  # type: ignore[arg-type]  # all of it that is used
            username=access.username,
            password=access.password,
            ssh_command=access.ssh_command,
            quiet=True,
        )
        client.fetch(path, repository, determine_wants=wants, depth=1)  # type: ignore[arg-type]  # its ids are bytes
    except HTTPUnauthorized as error:
        raise Permanent(f"{what}: the server refused access; {access.advice}") from error
    except NotGitRepository as error:
        raise Permanent(f"{what}: there is no repository {place.url}, or it is private; {access.advice}") from error
    except HangupException as error:
        raise Transient(f"{what}: the server hung up: {error}") from error
    except GitProtocolError as error:
        is_transient = _TRANSIENT.match(str(error)) or isinstance(error.__cause__, urllib3.exceptions.HTTPError)
        failure = Transient if is_transient else Permanent
        raise failure(f"{what}: the server refused: {error}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Transient(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        answers.close()
    found = repository[wanted[0]]
    while isinstance(found, Tag):
        found = repository[found.object[1]]
    if not isinstance(found, Commit):
        raise Permanent(f"{what}: {place.ref!r} is no commit")
    return found


class _Answers:
    """A manager of connections that closes those of refusals as well, which dulwich leaves open."""

    def __init__(self, manager: Any) -> None:
        self._manager, self._open = manager, list[Any]()
        self.headers = manager.headers

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Ask, and remember what was answered."""
        self._open.append(self._manager.request(method, url, **options))
        return self._open[-1]

    def close(self) -> None:
        """Close all connections."""
        for answer in self._open:
            answer.close()
        self._manager.clear()


def _resolved(refs: Mapping[bytes, bytes], ref: str, what: str) -> bytes:
    name = ref.encode()
    candidates = [b"refs/heads/" + name, b"refs/tags/" + name, name] if ref else [b"HEAD"]
    for candidate in candidates:
        if (found := refs.get(candidate)) is not None:
            return found
    if _COMMIT.fullmatch(ref):
        return name
    if not ref:
        raise Permanent(f"{what}: the repository is empty")
    names = [
        b.decode(errors="replace").split("/", 2)[2]
        for b in sorted(refs)
        if b.startswith((b"refs/heads/", b"refs/tags/"))
    ]
    known = ", ".join(name for name in names if not name.endswith("^{}"))
    raise Permanent(f"{what}: no branch or tag {ref!r}, and it is no whole commit id; there are {known or 'none'}")


def _config(access: Access) -> ConfigDict:
    config = ConfigDict()
    config.set((b"http",), b"timeout", str(TIMEOUT_SECONDS).encode())
    config.set((b"http",), b"sslVerify", access.verify)
    if access.ca_file is not None:
        config.set((b"http",), b"sslCAInfo", str(access.ca_file).encode())
    return config


def _blobs(repository: Repo, tree: Any) -> Iterator[tuple[bytes, int, Any]]:
    for entry in repository.object_store.iter_tree_contents(tree):
        # A submodule is another repository's.
        if not stat.S_ISDIR(entry.mode) and entry.mode != 0o160000:
            yield entry.path, entry.mode, entry.sha


def _files(
    repository: Repo, blobs: Mapping[str, tuple[int, Any]], folder: str, files: Path, what: str
) -> Iterator[tuple[str, File]]:
    for path in blobs:
        if path_below(path, folder) is None:
            continue
        sha = blobs[_followed(repository, blobs, path, what)][1]
        content, version = _content(repository, sha), sha.decode()
        pointer = _POINTER.match(content) if len(content) < _MAX_POINTER_BYTES else None
        size = _POINTER_SIZE.search(content) if pointer else None
        if pointer and size:
            digest = Digest.of_hex(DigestAlgorithm.SHA256, pointer[1].decode())
            yield path, File(size_bytes=int(size[1]), version=pointer[1].decode(), digest=digest)
            continue
        copy = files / version
        if not copy.exists():
            copy.write_bytes(content)
        yield path, File(size_bytes=len(content), version=version, copy=copy)


def _content(repository: Repo, sha: Any) -> bytes:
    blob = repository.object_store[sha]
    assert isinstance(blob, Blob)
    return blob.as_raw_string()


def _followed(repository: Repo, blobs: Mapping[str, tuple[int, Any]], path: str, what: str) -> str:
    """Return the path of the file that a path is, through links that stay in the repository."""
    at = path
    for _ in range(_MAX_LINKS):
        mode, sha = blobs[at]
        if not stat.S_ISLNK(mode):
            return at
        target = _content(repository, sha).decode(errors="surrogateescape")
        at = posixpath.normpath(posixpath.join(posixpath.dirname(at), target))
        if at not in blobs:
            raise Permanent(f"{what}: {path!r} is a link to {target!r}, which is no file of the repository")
    raise Permanent(f"{what}: {path!r} is a link that leads to itself")


def _lfs_url(content: bytes) -> str | None:
    from io import BytesIO

    try:
        return ConfigFile.from_file(BytesIO(content)).get((b"lfs",), b"url").decode()
    except (KeyError, ValueError):
        return None
