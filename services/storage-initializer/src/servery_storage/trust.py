"""Whom HTTPS trusts: the mounted bundle of a cluster's own CAs, beside the world's."""

from __future__ import annotations

import logging
import ssl
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

import certifi

logger = logging.getLogger(__name__)

DEFAULT_MOUNT = "/etc/ssl/custom-certs"
BUNDLE_FILE = "cabundle.crt"
_EXPORTED = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def trust_mounted_bundle(environment: MutableMapping[str, str]) -> None:
    """Where ``CA_BUNDLE_CONFIGMAP_NAME`` says that a bundle is mounted, name a file of it and of all that is trusted
    anyway in ``REQUESTS_CA_BUNDLE`` and ``SSL_CERT_FILE``, which every SDK and the engine heed; what these name already
    stays.

    S3 trusts the mounted bundle alone, as in KServe.

    Source: KServe kserve_storage.py, ``_configure_global_ca_bundle``.
    """
    if not environment.get("CA_BUNDLE_CONFIGMAP_NAME") or all(environment.get(name) for name in _EXPORTED):
        return
    bundle = Path(environment.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or DEFAULT_MOUNT) / BUNDLE_FILE
    trusted = (ssl.get_default_verify_paths().cafile, certifi.where(), str(bundle))
    try:
        # One entry that is none makes OpenSSL refuse a whole file.
        ssl.create_default_context(cafile=str(bundle))
        together = b"\n".join(Path(path).read_bytes() for path in trusted if path is not None)
    except OSError as error:
        logger.warning("CA bundle not used", extra={"file": str(bundle), "reason": str(error)})
        return
    with tempfile.NamedTemporaryFile(prefix="servery-trusted-", suffix=".crt", delete=False) as file:
        file.write(together)
    for name in _EXPORTED:
        environment.setdefault(name, file.name)
