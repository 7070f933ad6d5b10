"""What commands say of files and data that they cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import servery

GOOD = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: iris}
spec: {predictor: {sklearn: {storageUri: "gs://b/m"}}}
"""


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def written(text: str, name: str = "service.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return written


def test_all_that_is_wrong_with_all_files_is_said_at_once(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    mixed = write(f"{GOOD}---\nkind: Foo\n---\n- 1\n---\n{GOOD.replace('predictor', 'predicter')}")
    broken, missing = write("kind: [", "broken.yaml"), str(tmp_path / "missing.yaml")
    done = servery("validate", "-f", mixed, "-f", broken, "-f", missing)
    assert done.returncode == 1
    assert (
        f"{mixed}: document 2 is no manifest: it needs apiVersion, kind and metadata.name; found an object with kind"
        in (done.stdout)
    )
    assert "document 3 is no manifest: it needs apiVersion, kind and metadata.name; found a list" in done.stdout
    assert f"{broken}: is not YAML" in done.stdout
    assert f"{missing}: cannot be read: No such file or directory" in done.stdout
    assert "spec.predicter: Unknown field" in done.stdout
    assert "6 manifests, 5 wrong" in done.stderr
    rendered = servery("render", "-f", mixed, "-f", missing)
    assert (rendered.returncode, rendered.stdout) == (1, "")
    assert all(words in rendered.stderr for words in ("document 2", "document 3", missing))


def test_file_without_a_manifest_is_no_success(write) -> None:  # type: ignore[no-untyped-def]
    empty = write("")
    done = servery("validate", "-f", empty)
    assert (done.returncode, f"nothing to validate in {empty}" in done.stderr) == (1, True)


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["here", "detached"])
def test_up_without_a_service_ends_and_says_what_one_is(write, tmp_path: Path, detach: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    config = write("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
    done = servery("up", "-f", config, *detach, "--port", "0", "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert f"no service to run in {config}: a service is one of" in done.stderr
    assert "InferenceService.serving.kserve.io/v1beta1" in done.stderr


def test_data_that_is_no_json_is_refused_before_anything_starts(write) -> None:  # type: ignore[no-untyped-def]
    done = servery("predict", "-f", write(GOOD), "-d", '{"instances": [[1,')
    assert done.returncode == 1
    assert done.stderr.strip().startswith("--data: is not JSON")
