from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servery_sdk.digests import DigestAlgorithm, digest_of
from servery_sdk.errors import Permanent, ServeryError, Transient
from servery_sdk.storage import StorageProvider, StorageUri
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import OBJECTS, fetched, listed
from servery_storage_git import plugin
from servery_storage_git.plugin import GitProvider
from servery_storage_git.uris import Place, place_of
from stand_ins.git import Forge, Repository, daemon_served, forge_served

LARGE = b"weights " * 1000


def make_provider(**environment: str) -> GitProvider:
    return GitProvider(environment)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where checkouts are."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def daemon(repository: Repository) -> Iterator[str]:
    with daemon_served(repository.folder) as url:
        yield url


@pytest.fixture
def forge(repository: Repository) -> Iterator[Forge]:
    with forge_served(repository.folder) as forge:
        yield forge


class Folders:
    """Paths of one repository; git knows no empty directories, so a marker is none."""

    def __init__(self, url: str, repository: Repository) -> None:
        self._url, self._repository = url, repository

    def uri(self, path: str) -> str:
        return f"{self._url}/models.git//{path}"

    def put(self, path: str, content: bytes) -> None:
        if not path.endswith("/"):
            self._repository.put(path, content)

    def remove(self, path: str) -> None:
        self._repository.remove(path)


class _Contract(PrefixStorageContract, RemoteStorageContract):
    scheme = ""

    @pytest.fixture
    def provider(self) -> StorageProvider:
        return make_provider()

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return make_provider(), f"{self.scheme}://127.0.0.1:{port}/models.git"

    def test_object_that_went_away_is_permanently_missing(self, provider: StorageProvider, stored: Source) -> None:
        """A commit never changes: what it had is read, although the branch has it no longer."""
        (entry,) = listed(provider, stored.uri("llm/model.bin"))
        stored.remove("llm/model.bin")
        assert fetched(provider, entry) == OBJECTS["llm/model.bin"]
        assert listed(provider, stored.uri("llm/model.bin")) == []


class TestGitDaemon(_Contract):
    scheme = "git"

    @pytest.fixture
    def source(self, daemon: str, repository: Repository) -> Source:
        return Folders(daemon, repository)


class TestGitOverHttp(_Contract):
    scheme = "git+http"

    @pytest.fixture
    def source(self, forge: Forge, repository: Repository) -> Source:
        return Folders(f"git+{forge.url}", repository)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("https://h/a/m.git", Place(url="https://h/a/m.git")),
        ("https://h/a/m.git/", Place(url="https://h/a/m.git")),
        ("https://h/m.git@v1", Place(url="https://h/m.git", ref="v1")),
        ("https://h/m.git@feature/x//sub/dir/", Place(url="https://h/m.git", ref="feature/x", folder="sub/dir")),
        ("https://h/m.git?ref=v1#sub", Place(url="https://h/m.git", ref="v1", folder="sub")),
        ("https://h/m.git//sub?ref=feature/x", Place(url="https://h/m.git", ref="feature/x", folder="sub")),
        ("git+https://h/m@v1#subdirectory=sub", Place(url="https://h/m", ref="v1", folder="sub")),
        ("git+http://u:p%40@h:8/m", Place(url="http://h:8/m", username="u", password="p@")),
        ("git+ssh://git@h:22/m.git", Place(url="ssh://git@h:22/m.git")),
        ("git://h/m.git//a%20b", Place(url="git://h/m.git", folder="a b")),
    ],
)
def test_uri_names_a_repository_a_reference_and_a_folder(text: str, place: Place) -> None:
    assert make_provider().claims(StorageUri.parse(text))
    assert place_of(StorageUri.parse(text)) == place


@pytest.mark.parametrize(
    "text", ["git://h", "git:///m.git", "git://h/m.git@a?ref=b", "git://h/m.git//a#b", "git://h/m.git?depth=1"]
)
def test_uri_that_names_no_repository_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(Permanent) as refused:
        place_of(StorageUri.parse(text))
    form = "<url of a repository>[@<ref> or ?ref=<ref>][//<folder> or #<folder>]"
    assert str(refused.value) == f"{text}: not of the form {form}"


@pytest.mark.parametrize(
    "text", ["https://h/model.onnx", "https://h/m.git/info/refs", "https://h/m.github", "s3://b/m.git", "https://h"]
)
def test_other_uris_are_not_claimed(text: str) -> None:
    assert not make_provider().claims(StorageUri.parse(text))


def test_references_of_every_kind_are_read(daemon: str, repository: Repository) -> None:
    first = repository.commit({"a": b"first"})
    repository.run("tag", "light", first)
    repository.run("tag", "-a", "-m", "", "annotated", first)
    second = repository.commit({"a": b"branch"}, branch="feature/quick")
    repository.commit({"a": b"second"})
    repository.run("config", "uploadpack.allowReachableSHA1InWant", "true")
    for ref, content in {
        "": b"second",
        "@main": b"second",
        "@light": b"first",
        "@annotated": b"first",
        "@feature/quick": b"branch",
        "@refs/heads/feature/quick": b"branch",
        f"@{first}": b"first",
        f"?ref={second}": b"branch",
    }.items():
        provider = make_provider()
        (entry,) = listed(provider, f"{daemon}/models.git{ref}")
        assert (ref, fetched(provider, entry)) == (ref, content)


def test_reference_that_is_not_there_is_said_with_those_that_are(daemon: str, repository: Repository) -> None:
    repository.commit({"a": b""})
    repository.run("tag", "-a", "-m", "", "v1", "main")
    with pytest.raises(Permanent) as refused:
        listed(make_provider(), f"{daemon}/models.git@v2")
    assert str(refused.value).endswith("no branch or tag 'v2', and it is no whole commit id; there are main, v1")


def test_repository_that_is_empty_is_said(daemon: str) -> None:
    with pytest.raises(Permanent, match="the repository is empty"):
        listed(make_provider(), f"{daemon}/models.git")


def test_history_stays_on_the_server_and_nothing_stays_here(
    daemon: str, repository: Repository, temporary: Path
) -> None:
    repository.commit({"a": b"old" * 10000})
    repository.commit({"a": b"new"})
    provider = make_provider()
    listed(provider, f"{daemon}/models.git")
    assert sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file()) == 3
    del provider
    assert list(temporary.iterdir()) == []


def test_failed_listing_leaves_nothing(daemon: str, repository: Repository, temporary: Path) -> None:
    repository.commit({"a": b""})
    provider = make_provider()
    with pytest.raises(Permanent):
        listed(provider, f"{daemon}/models.git@nope")
    assert list(temporary.iterdir()) == []


def test_oldest_checkout_makes_room(
    daemon: str, repository: Repository, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "MAX_CHECKOUTS", 1)
    repository.commit({"a": b"1"})
    provider = make_provider()
    (old,) = listed(provider, f"{daemon}/models.git")
    repository.commit({"a": b"2"})
    (new,) = listed(provider, f"{daemon}/models.git")
    assert fetched(provider, new) == b"2"
    with pytest.raises(Permanent, match="its checkout is gone from this machine; list the repository again"):
        fetched(provider, old)
    assert len(list(temporary.iterdir())) == 1


def test_link_is_what_it_leads_to(daemon: str, repository: Repository) -> None:
    repository.commit({"blobs/x": b"1", "model/a": Path("../blobs/x"), "model/b": Path("a")})
    provider = make_provider()
    assert {entry.path: fetched(provider, entry) for entry in listed(provider, f"{daemon}/models.git//model")} == {
        "a": b"1",
        "b": b"1",
    }


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("../../etc/passwd", "is a link to '../../etc/passwd', which is no file of the repository"),
        ("/etc/passwd", "is a link to '/etc/passwd', which is no file of the repository"),
        ("a", "is a link that leads to itself"),
    ],
)
def test_link_that_leads_nowhere_is_refused(daemon: str, repository: Repository, target: str, said: str) -> None:
    repository.commit({"a": Path(target)})
    with pytest.raises(Permanent, match=said):
        listed(make_provider(), f"{daemon}/models.git")


def test_large_file_comes_from_lfs_with_its_sum(forge: Forge, repository: Repository) -> None:
    repository.commit({"model.bin": forge.pointer(LARGE), "config.json": b"{}"})
    provider = make_provider()
    small, large = listed(provider, f"{forge.url}/models.git")
    assert (large.path, large.size_bytes) == ("model.bin", len(LARGE))
    assert large.digest == digest_of(DigestAlgorithm.SHA256, LARGE)
    assert [fetched(provider, large, offset=offset) for offset in (0, 9, len(LARGE))] == [LARGE, LARGE[9:], b""]
    assert fetched(provider, small) == b"{}"


def test_lfs_server_may_be_said_by_the_repository(forge: Forge, repository: Repository, daemon: str) -> None:
    config = f"[lfs]\n\turl = {forge.url}/elsewhere/info/lfs\n".encode()
    repository.commit({"model.bin": forge.pointer(LARGE), ".lfsconfig": config})
    provider = make_provider()
    (entry,) = listed(provider, f"{daemon}/models.git//model.bin")
    assert fetched(provider, entry) == LARGE
    assert forge.seen[0][1] == "/elsewhere/info/lfs/objects/batch"


def test_text_that_speaks_of_lfs_is_no_pointer(forge: Forge, repository: Repository) -> None:
    texts = {"a": b"version https://git-lfs.github.com/spec/v1\n", "b": forge.pointer(b"") + bytes(1024)}
    repository.commit(texts)
    provider = make_provider()
    found = {entry.path: fetched(provider, entry) for entry in listed(provider, f"{forge.url}/models.git")}
    assert found == texts


def test_object_that_lfs_has_lost_is_said(forge: Forge, repository: Repository) -> None:
    repository.commit({"model.bin": forge.pointer(LARGE)})
    forge.objects.clear()
    provider = make_provider()
    (entry,) = listed(provider, f"{forge.url}/models.git")
    with pytest.raises(Permanent, match=r"models\.git@.*//model\.bin: its LFS server says 404: Object does not exist"):
        fetched(provider, entry)


CREDENTIALS = [
    ({"GIT_USERNAME": "reader", "GIT_PASSWORD": "secret"}, ""),
    ({"GIT_PASSWORD": "secret"}, "reader@"),
    ({}, "reader:secret@"),
]


@pytest.mark.parametrize(("environment", "user"), CREDENTIALS, ids=["environment", "user-of-the-uri", "uri"])
def test_credential_opens_the_repository_and_its_lfs_and_goes_nowhere_else(
    forge: Forge, repository: Repository, environment: dict[str, str], user: str
) -> None:
    forge.password = "secret"
    repository.commit({"model.bin": forge.pointer(LARGE)})
    provider = make_provider(**environment)
    (entry,) = listed(provider, f"{forge.url.replace('://', f'://{user}')}/models.git")
    assert "secret" not in entry.source
    assert fetched(provider, entry) == LARGE
    assert forge.seen[-1] == ("GET", f"/store/{entry.version}", "RemoteAuth once")


def test_token_needs_no_user(forge: Forge, repository: Repository) -> None:
    forge.user, forge.password = "git", "the-token"
    repository.commit({"a": b"1"})
    assert len(listed(make_provider(GIT_TOKEN="the-token"), f"{forge.url}/models.git")) == 1


NEEDS_ONE = "it needs a credential: set GIT_USERNAME and GIT_PASSWORD, or GIT_TOKEN"


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, NEEDS_ONE), ({"GIT_PASSWORD": "guessed"}, "the password or token of 'git' may not read it")],
)
def test_server_that_refuses_access_says_what_to_do(
    forge: Forge, repository: Repository, environment: dict[str, str], said: str
) -> None:
    forge.password = "secret"
    with pytest.raises(Permanent) as refused:
        listed(make_provider(**environment), f"{forge.url}/models.git")
    assert str(refused.value) == f"{forge.url}/models.git: the server refused access; {said}"


def test_password_of_the_uri_is_not_in_the_message(forge: Forge) -> None:
    with pytest.raises(Permanent) as refused:
        listed(make_provider(), f"{forge.url.replace('://', '://reader:secret@')}/nope.git")
    assert "secret" not in str(refused.value)
    assert "reader@127.0.0.1" in str(refused.value)


@pytest.mark.parametrize(("status", "kind"), [(503, Transient), (429, Transient), (400, Permanent)])
def test_server_in_trouble_is_asked_again_if_that_may_help(
    forge: Forge, repository: Repository, status: int, kind: type[ServeryError]
) -> None:
    repository.commit({"model.bin": forge.pointer(LARGE)})
    forge.refusals.append(("/info/refs", status))
    with pytest.raises(kind):
        listed(make_provider(), f"{forge.url}/models.git")
    provider = make_provider()
    (entry,) = listed(provider, f"{forge.url}/models.git")
    for path in ("/objects/batch", "/store/"):
        forge.refusals.append((path, status))
        with pytest.raises(kind, match=f"{status} .*not now"):
            fetched(provider, entry)
    assert fetched(provider, entry) == LARGE


def test_ssh_runs_git_on_the_other_side(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"a": b"1"})
    said = tmp_path / "said"
    command = tmp_path / "ssh"
    # What sshd would do with its last argument.
    command.write_text(f'#!/bin/sh\necho "$@" > {said}\nfor last; do :; done\nexec sh -c "$last"\n')
    command.chmod(0o755)
    provider = make_provider(GIT_SSH_COMMAND=str(command))
    (entry,) = listed(provider, f"git+ssh://git@host.invalid:2222{repository.path}")
    assert fetched(provider, entry) == b"1"
    assert "git@host.invalid" in said.read_text()
