from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from servery_sdk.errors import Permanent, ServeryError, Transient
from servery_sdk.storage import StorageProvider
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_hdfs.config import config_of
from servery_storage_hdfs.plugin import HdfsProvider

NOWHERE = {"HDFS_SECRET_DIR": "/nonexistent"}


def make_provider(*namenodes: str, **environment: str) -> HdfsProvider:
    return HdfsProvider({**NOWHERE, "HDFS_NAMENODE": ";".join(namenodes), **environment})


class Directories:
    """A directory needs no marker here."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def uri(self, path: str) -> str:
        return f"hdfs://{path}"

    def put(self, path: str, content: bytes) -> None:
        if not path.endswith("/"):
            self._cluster.put(f"/{path}", content)

    def remove(self, path: str) -> None:
        del self._cluster.files[f"/{path}"]


class TestHdfs(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, cluster: Any) -> StorageProvider:
        return make_provider(*cluster.urls)

    @pytest.fixture
    def source(self, cluster: Any) -> Source:
        return Directories(cluster)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return make_provider(f"http://127.0.0.1:{port}"), "hdfs://user/me/model"


@pytest.fixture
def stored(cluster: Any) -> Any:
    cluster.put("/user/me/model/a", b"weights")
    return cluster


def test_active_namenode_is_found_and_kept(stored: Any) -> None:
    stored.active = 1
    provider = make_provider(*stored.urls)
    (entry,) = listed(provider, "hdfs://user/me/model")
    assert fetched(provider, entry) == b"weights"
    assert [number for number, *_ in stored.seen][:2] == [0, 1]
    assert {number for number, *_ in stored.seen[2:]} == {1}
    stored.active = 0
    assert fetched(provider, entry) == b"weights", "after a fail-over"


def test_namenode_that_is_down_is_passed_over(stored: Any) -> None:
    provider = make_provider("http://127.0.0.1:1", stored.urls[0])
    assert len(listed(provider, "hdfs://user/me/model")) == 1


def test_no_active_namenode_may_come_back(stored: Any) -> None:
    stored.active = 5
    with pytest.raises(
        Transient, match=r"hdfs://user/me/model: no namenode answers: .*: StandbyException; .*: Standby"
    ):
        listed(make_provider(*stored.urls), "hdfs://user/me/model")


@pytest.mark.parametrize(
    ("root", "uri"),
    [
        ("/", "hdfs:///user/me/model"),
        ("/user/me", "webhdfs://model"),
        ("/user/me/", "webhdfs:///model/"),
        ("model", "hdfs://"),
    ],
)
def test_root_is_put_before_the_path(stored: Any, root: str, uri: str) -> None:
    provider = make_provider(*stored.urls, HDFS_ROOTPATH=root, HADOOP_USER_NAME="me")
    assert [entry.path for entry in listed(provider, uri)] == ["a"]


def test_namenode_of_the_uri_is_asked_where_none_is_configured(stored: Any) -> None:
    provider = HdfsProvider(NOWHERE)
    (entry,) = listed(provider, f"web{stored.urls[0].replace('http', 'hdfs')}/user/me/model/a")
    assert (entry.path, fetched(provider, entry)) == ("a", b"weights")
    with pytest.raises(Permanent, match="hdfs://user/me/model: no HDFS_NAMENODE; give the service account a secret"):
        listed(provider, "hdfs://user/me/model")


def test_file_that_changes_while_it_is_read_is_refused(stored: Any) -> None:
    provider = make_provider(*stored.urls)
    (entry,) = listed(provider, "hdfs://user/me/model")

    class Changes:
        def write(self, chunk: bytes) -> None:
            stored.put("/user/me/model/a", b"another")

    with pytest.raises(Permanent, match="hdfs://user/me/model/a: the object changed during the download"):
        fetched(provider, entry, sink=Changes())


def test_connection_that_breaks_is_tried_again_from_where_it_broke(stored: Any) -> None:
    provider = make_provider(*stored.urls)
    (entry,) = listed(provider, "hdfs://user/me/model")
    stored.cut = 3
    with pytest.raises(Transient, match="hdfs://user/me/model/a: RemoteProtocolError"):
        fetched(provider, entry)
    assert fetched(provider, entry, offset=3) == b"ghts"


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        ((403, "SafeModeException", "wait"), Transient, "SafeModeException: wait"),
        ((403, "RetriableException", "wait"), Transient, "RetriableException: wait"),
        ((500, "RuntimeException", "oops"), Transient, "answered 500 .*RuntimeException: oops"),
        ((403, "AccessControlException", "denied"), Permanent, "answered 403 .*AccessControlException: denied"),
    ],
)
@pytest.mark.parametrize("operation", ["GETFILESTATUS", "LISTSTATUS"])
def test_refusal_is_said_in_the_cluster_s_words(
    stored: Any, operation: str, refusal: Any, kind: type[ServeryError], said: str
) -> None:
    stored.refusals.append((operation, refusal))
    with pytest.raises(kind, match=f"hdfs://user/me/model: .*{said}"):
        listed(make_provider(*stored.urls), "hdfs://user/me/model")


def test_server_that_is_no_webhdfs_is_said_to_be_none(stored: Any) -> None:
    with pytest.raises(Permanent, match="hdfs://user/me/model: the server answered 404"):
        listed(make_provider(f"{stored.urls[0]}/elsewhere"), "hdfs://user/me/model")


def test_cluster_is_verified_and_shown_a_certificate(sealed: tuple[Any, Path], tmp_path: Path) -> None:
    cluster, folder = sealed
    cluster.put("/model/a", b"weights")
    (tmp_path / "TLS_CA").write_bytes((folder / "cert.pem").read_bytes())
    provider = make_provider(*cluster.urls, HDFS_SECRET_DIR=str(tmp_path))
    with pytest.raises(Transient, match="no namenode answers"):
        listed(provider, "hdfs://model")
    (tmp_path / "TLS_CERT").write_bytes((folder / "cert.pem").read_bytes())
    (tmp_path / "TLS_KEY").write_bytes((folder / "key.pem").read_bytes())
    provider = make_provider(*cluster.urls, HDFS_SECRET_DIR=str(tmp_path))
    (entry,) = listed(provider, "hdfs://model")
    assert fetched(provider, entry) == b"weights"
    (tmp_path / "TLS_CA").unlink()
    with pytest.raises(Transient, match="CERTIFICATE_VERIFY_FAILED"):
        listed(make_provider(*cluster.urls, HDFS_SECRET_DIR=str(tmp_path)), "hdfs://model")
    assert (
        len(listed(make_provider(*cluster.urls, HDFS_SECRET_DIR=str(tmp_path), TLS_SKIP_VERIFY="true"), "hdfs://model"))
        == 1
    )


@pytest.mark.parametrize(
    ("environment", "query"),
    [
        ({"HADOOP_USER_NAME": "me"}, {"user.name": "me"}),
        ({"USER_PROXY": "you"}, {"doas": "you"}),
        ({"HDFS_DELEGATION_TOKEN": "abc", "USER_PROXY": "you"}, {"delegation": "abc"}),
    ],
)
def test_who_asks_is_told(stored: Any, environment: dict[str, str], query: dict[str, str]) -> None:
    listed(make_provider(stored.urls[0], **environment, HEADERS='{"x-team": "a"}'), "hdfs://user/me/model")
    for _, operation, asked, headers in stored.seen:
        assert asked == {"op": operation, **query}
        assert headers["x-team"] == "a"


def test_cluster_that_wants_a_ticket_says_what_to_set(stored: Any) -> None:
    stored.admits = "Negotiate x".__eq__
    with pytest.raises(
        Permanent, match=r"401 .*the cluster wants Kerberos: set KERBEROS_PRINCIPAL and KERBEROS_KEYTAB"
    ):
        listed(make_provider(stored.urls[0]), "hdfs://user/me/model")


def test_kerberos_that_is_not_installed_is_said(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spnego", None)
    monkeypatch.delitem(sys.modules, "servery_storage_hdfs.kerberos", raising=False)
    with pytest.raises(Permanent, match=r"install servery-storage-hdfs\[kerberos\]"):
        listed(make_provider(stored.urls[0], KERBEROS_PRINCIPAL="me@REALM"), "hdfs://user/me/model")


def test_secret_is_read_file_by_file(tmp_path: Path) -> None:
    for name, text in {
        "HDFS_NAMENODE": "https://a:1;https://b:1/\n",
        "TLS_SKIP_VERIFY": "True",
        "TLS_CA": "ca",
        "unknown": "?",
    }.items():
        (tmp_path / name).write_text(text)
    config = config_of({"HDFS_SECRET_DIR": str(tmp_path), "HDFS_NAMENODE": "http://of.the.environment:1"})
    assert (config.namenodes, config.verify, config.authority) == (("https://a:1", "https://b:1"), False, b"ca")


def test_storage_secret_wins_and_its_files_are_base64() -> None:
    given = {"type": "webhdfs", "HDFS_NAMENODE": "https://a:1", "TLS_CERT": base64.b64encode(b"pem").decode()}
    override = {"HDFS_ROOTPATH": "/models"}
    config = config_of(
        {**NOWHERE, "STORAGE_CONFIG": json.dumps(given), "STORAGE_OVERRIDE_CONFIG": json.dumps(override)}
    )
    assert (config.namenodes, config.root, config.certificate) == (("https://a:1",), "/models", b"pem")
    other = json.dumps({"type": "s3", "HDFS_NAMENODE": "https://a:1"})
    assert config_of({**NOWHERE, "STORAGE_CONFIG": other}).namenodes == ()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HDFS_NAMENODE": "namenode:9870"}, "HDFS_NAMENODE: 'namenode:9870' is no URL of WebHDFS"),
        ({"HEADERS": "[]"}, "HEADERS: a JSON object of headers is wanted"),
        ({"STORAGE_CONFIG": "{"}, "STORAGE_CONFIG: a JSON object is wanted"),
        ({"STORAGE_CONFIG": '{"type": "hdfs", "TLS_CA": "?"}'}, "STORAGE_CONFIG: .*: base64 is wanted"),
    ],
)
def test_configuration_that_is_none_is_said(environment: dict[str, str], said: str) -> None:
    with pytest.raises(Permanent, match=said):
        config_of({**NOWHERE, **environment})


def test_certificate_that_is_none_is_said(stored: Any, tmp_path: Path) -> None:
    (tmp_path / "TLS_CA").write_text("no certificate")
    with pytest.raises(Permanent, match="TLS_CERT, TLS_KEY, TLS_CA: not certificates"):
        listed(make_provider(stored.urls[0], HDFS_SECRET_DIR=str(tmp_path)), "hdfs://user/me/model")
