"""A namenode that wants tickets, of a real KDC; it checks them by MIT's library, as Hadoop does by Java's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import spnego
from kdc import REALM, Kdc, kdc_served
from servery_sdk.errors import Permanent, Transient
from servery_sdk.testing.storage import fetched, listed
from servery_storage_hdfs.plugin import HdfsProvider
from stand_ins.webhdfs import Cluster, cluster_served

ME = f"me@{REALM}"


@pytest.fixture
def kdc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kdc]:
    (tmp_path / "kdc").mkdir()
    with kdc_served(tmp_path / "kdc") as kdc:
        for name, value in kdc.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'tickets'}")
        monkeypatch.setenv("KRB5_KTNAME", f"FILE:{kdc.keytab('HTTP/localhost')}")
        yield kdc


class Door:
    """Admits who has a ticket for ``HTTP/localhost``; ``admitted`` are their principals."""

    def __init__(self) -> None:
        self.admitted: list[str] = []

    def admits(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Negotiate":
            return False
        context = spnego.server(hostname="localhost", service="HTTP", protocol="kerberos")
        context.step(base64.b64decode(token))
        self.admitted.append(str(context.client_principal))
        return True


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def cluster(kdc: Kdc, door: Door) -> Iterator[Cluster]:
    with cluster_served(1) as cluster:
        cluster.put("/user/me/model/a", b"weights")
        cluster.admits = door.admits
        cluster.urls = [url.replace("127.0.0.1", "localhost") for url in cluster.urls]
        yield cluster


def make_provider(cluster: Cluster, folder: Path, keytab: Path | None = None, principal: str = ME) -> HdfsProvider:
    """Return a provider with a secret as a pod has it."""
    secret = folder / "secret"
    secret.mkdir()
    (secret / "HDFS_NAMENODE").write_text(cluster.urls[0])
    (secret / "KERBEROS_PRINCIPAL").write_text(principal)
    if keytab is not None:
        (secret / "KERBEROS_KEYTAB").write_bytes(keytab.read_bytes())
    return HdfsProvider({"HDFS_SECRET_DIR": str(secret)})


def test_keytab_opens_the_namenode(kdc: Kdc, cluster: Cluster, door: Door, tmp_path: Path) -> None:
    provider = make_provider(cluster, tmp_path, kdc.keytab("me"))
    (entry,) = listed(provider, "hdfs://user/me/model")
    assert fetched(provider, entry) == b"weights"
    assert set(door.admitted) == {ME}
    assert len(door.admitted) == len(cluster.seen), "each request has a ticket of its own"


def test_user_s_own_tickets_open_it(kdc: Kdc, cluster: Cluster, door: Door, tmp_path: Path) -> None:
    kdc.environment["KRB5CCNAME"] = f"FILE:{tmp_path / 'tickets'}"
    kdc.run("kinit", "-k", "-t", str(kdc.keytab("me")), ME)
    (entry,) = listed(make_provider(cluster, tmp_path), "hdfs://user/me/model")
    assert entry.path == "a"
    assert set(door.admitted) == {ME}


def test_key_that_was_changed_is_refused_at_once(kdc: Kdc, cluster: Cluster, tmp_path: Path) -> None:
    old = kdc.keytab("me")
    kdc.keytab("me")
    with pytest.raises(Permanent, match=rf"no Kerberos ticket for HTTP/localhost of {ME}: "):
        listed(make_provider(cluster, tmp_path, old), "hdfs://user/me/model")
    assert cluster.seen == []


def test_principal_that_the_realm_does_not_know_is_said(kdc: Kdc, cluster: Cluster, tmp_path: Path) -> None:
    keytab = kdc.keytab("me")
    kdc.administer("delprinc", "-force", "me")
    with pytest.raises(Permanent, match=rf"of {ME}: .*not found in Kerberos database"):
        listed(make_provider(cluster, tmp_path, keytab), "hdfs://user/me/model")


def test_namenode_that_has_no_principal_is_said(kdc: Kdc, cluster: Cluster, tmp_path: Path) -> None:
    cluster.urls = [url.replace("localhost", "127.0.0.1") for url in cluster.urls]
    with pytest.raises(Permanent, match=rf"no Kerberos ticket for HTTP/127\.0\.0\.1 of {ME}: "):
        listed(make_provider(cluster, tmp_path, kdc.keytab("me")), "hdfs://user/me/model")


def test_no_tickets_of_the_user_are_said(kdc: Kdc, cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=rf"no Kerberos ticket for HTTP/localhost of {ME}: "):
        listed(make_provider(cluster, tmp_path), "hdfs://user/me/model")


@pytest.mark.parametrize("has_keytab", [True, False])
def test_kdc_that_is_down_may_come_back(kdc: Kdc, cluster: Cluster, tmp_path: Path, has_keytab: bool) -> None:
    keytab = kdc.keytab("me")
    if not has_keytab:
        kdc.environment["KRB5CCNAME"] = f"FILE:{tmp_path / 'tickets'}"
        kdc.run("kinit", "-k", "-t", str(keytab), ME)
    provider = make_provider(cluster, tmp_path, keytab if has_keytab else None)
    kdc.stop()
    with pytest.raises(Transient, match=rf"HTTP/localhost of {ME}: .*KDC"):
        listed(provider, "hdfs://user/me/model")
