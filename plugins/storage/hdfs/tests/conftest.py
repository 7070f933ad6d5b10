from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_ins.certificates import certified
from stand_ins.webhdfs import Cluster, cluster_served


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two namenodes and a datanode."""
    with cluster_served(2) as cluster:
        yield cluster


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[Cluster, Path]]:
    """A namenode and a datanode that speak to who shows the certificate in the folder, which is their own."""
    folder = tmp_path / "certificate"
    folder.mkdir()
    _, pem = certified(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pem))
    context.load_cert_chain(pem, folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with cluster_served(1, context) as cluster:
        yield cluster, folder
