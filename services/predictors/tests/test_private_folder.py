from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest
from servery_predictor.grpc_front import private_folder


@pytest.mark.parametrize("place", ["a" * 60 + "/" + "b" * 60, "not/there"], ids=["long", "missing"])
def test_socket_behind_the_front_has_a_place_wherever_temporary_files_lie(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The local platform gives every pod a folder of its own, and a container may have none.
    if "not" not in place:
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    with private_folder() as folder, socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{folder}/grpcio.sock")
