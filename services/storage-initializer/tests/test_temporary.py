from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from servery_storage import cli


def test_pod_without_temporary_files_has_them_on_the_model_s_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, seen = tmp_path / "source", tmp_path / "target", []
    source.write_bytes(b"weights")

    def nowhere() -> list[str]:
        return [str(tmp_path / "read-only")]

    class Engine(cli.Engine):
        async def fetch(self, *arguments: object, **options: object) -> None:
            seen.append(Path(tempfile.mkdtemp()).parent)
            await super().fetch(*arguments, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", nowhere)
    monkeypatch.setattr(cli, "Engine", Engine)
    cli.main([str(source), str(target)])
    assert seen == [target / cli.TEMPORARY]
    assert not (target / cli.TEMPORARY).exists()
    assert (target / "source").read_bytes() == b"weights"
