from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import pytest
from servery_storage.trust import trust_mounted_bundle


def first_certificate() -> str:
    return Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "cabundle.crt").write_text(first_certificate())
    return {"CA_BUNDLE_CONFIGMAP_NAME": "trusted", "CA_BUNDLE_VOLUME_MOUNT_POINT": str(tmp_path)}


def test_mounted_bundle_is_trusted_beside_the_worlds(mounted: dict[str, str]) -> None:
    trust_mounted_bundle(mounted)
    assert mounted["REQUESTS_CA_BUNDLE"] == mounted["SSL_CERT_FILE"]
    together = Path(mounted["SSL_CERT_FILE"])
    assert together.read_text().endswith(first_certificate())
    world = ssl.create_default_context(cafile=certifi.where())
    assert len(ssl.create_default_context(cafile=str(together)).get_ca_certs()) >= len(world.get_ca_certs())


def test_what_was_named_stays(mounted: dict[str, str]) -> None:
    mounted["SSL_CERT_FILE"] = "/own.crt"
    trust_mounted_bundle(mounted)
    assert mounted["SSL_CERT_FILE"] == "/own.crt"
    assert mounted["REQUESTS_CA_BUNDLE"] != "/own.crt"


def test_nothing_is_named_where_nothing_is_mounted() -> None:
    environment: dict[str, str] = {}
    trust_mounted_bundle(environment)
    assert environment == {}


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_bundle_that_is_none_is_logged_and_left(
    mounted: dict[str, str], caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    file = Path(mounted["CA_BUNDLE_VOLUME_MOUNT_POINT"], "cabundle.crt")
    file.unlink() if content is None else file.write_text(content)
    trust_mounted_bundle(mounted)
    assert "SSL_CERT_FILE" not in mounted
    assert caplog.messages == ["CA bundle not used"]
