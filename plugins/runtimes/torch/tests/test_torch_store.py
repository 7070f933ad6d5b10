"""What needs no PyTorch: archives, configuration, rows and requirements."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servery_runtime_torch import archive, requirements, rows, store
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v1
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError

MakeArchive = Callable[..., Path]


def manifest(name: str = "mnist", version: str = "1.0", **more: Any) -> bytes:
    return json.dumps({"model": {"modelName": name, "modelVersion": version, "handler": "h.py", **more}}).encode()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """Write ``files`` as what the path's name says: a zip, a tar, or a directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".mar"):
        with zipfile.ZipFile(path, "w") as zipped:
            for name, content in files.items():
                zipped.writestr(name, content)
    elif path.name.endswith(".tar.gz"):
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def configured(artifact: Path, text: str) -> None:
    (artifact / "config").mkdir(parents=True)
    (artifact / "config" / "config.properties").write_text(text)


@pytest.mark.parametrize("name", ["m.mar", "m.tar.gz", "m"], ids=["zip", "tar", "no-archive"])
def test_archive_of_any_form_has_its_manifest_and_files(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "from" / name, {"MAR-INF/MANIFEST.json": manifest(), "deep/h.py": b"x = 1"})
    found = archive.manifest(path, expected=tmp_path)
    assert (found.name, found.version, found.handler) == ("mnist", "1.0", "h.py")
    directory = archive.unpack(path, tmp_path / "to")
    assert (directory / "deep" / "h.py").read_bytes() == b"x = 1"


@pytest.mark.parametrize("form", ["m.mar", "m.tar.gz"])
@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_member_that_leads_out_of_the_archive_is_refused(tmp_path: Path, form: str, name: str) -> None:
    path = packed(tmp_path / form, {name: b"x"})
    with pytest.raises(LoadError, match="leads out of the archive"):
        archive.unpack(path, tmp_path / "to")
    assert not (tmp_path / "out").exists()


def test_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(LoadError, match="'passwd' is no plain file"):
        archive.unpack(path, tmp_path / "to")


def test_archive_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    path = packed(tmp_path / "m.mar", {"a": b"123456", "b": b"123456"})
    with pytest.raises(LoadError, match="holds more than 10 bytes"):
        archive.unpack(path, tmp_path / "to")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"h.py": b""}, "has no MAR-INF/MANIFEST.json"),
        ({"MAR-INF/MANIFEST.json": b"{"}, "must be JSON with model.modelName"),
        ({"MAR-INF/MANIFEST.json": b'{"model": {"handler": "h.py"}}'}, "KeyError: 'modelName'"),
    ],
)
@pytest.mark.parametrize("form", ["m.mar", "m.tar.gz"])
def test_archive_without_a_manifest_that_can_be_read_is_refused(
    tmp_path: Path, form: str, files: dict[str, bytes], words: str
) -> None:
    with pytest.raises(LoadError, match=words):
        archive.manifest(packed(tmp_path / form, files), expected=tmp_path)


def test_snapshot_says_which_archives_are_served_and_how(tmp_path: Path) -> None:
    for name, version in (("a.mar", "1.0"), ("b.mar", "2.0"), ("unused.mar", "1.0")):
        packed(tmp_path / "model-store" / name, {"MAR-INF/MANIFEST.json": manifest(version=version)})
    configured(
        tmp_path,
        "# a comment\nservice_envelope = kserve\ninstall_py_dep_per_model: true\nmodel_store=/mnt/models/model-store\n"
        'model_snapshot={"models": {"digits": {\\\n    "1.0": {"marName": "a.mar", "batchSize": 8},'
        '"2.0": {"marName": "b.mar", "defaultVersion": true}}}}\n',
    )
    found = store.read(tmp_path, {})
    assert (found.envelope, found.installs_requirements) == ("kserve", True)
    (digits,) = found.models.values()
    assert (digits.name, digits.default_version) == ("digits", "2.0")
    assert {version: said.batch_size for version, said in digits.versions.items()} == {"1.0": 8, "2.0": None}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", {"one": ["1.0", "10.0"], "two": ["1.0"]}),
        ("load_models=all", {"one": ["1.0", "10.0"], "two": ["1.0"]}),
        ("load_models=other=one.mar, two.tar.gz", {"other": ["1.0"], "two": ["1.0"]}),
        ("load_models=none", {}),
    ],
)
def test_store_without_a_snapshot_serves_what_load_models_says(
    tmp_path: Path, text: str, names: dict[str, list[str]]
) -> None:
    for file, name, version in (("one.mar", "one", "1.0"), ("new.mar", "one", "10.0"), ("two.tar.gz", "two", "1.0")):
        packed(tmp_path / "model-store" / file, {"MAR-INF/MANIFEST.json": manifest(name, version)})
    configured(tmp_path, text)
    found = store.read(tmp_path, {})
    assert {name: list(model.versions) for name, model in found.models.items()} == names


@pytest.mark.parametrize("at", ["", "model-store"], ids=["whole", "store"])
def test_configuration_is_found_beside_the_store(tmp_path: Path, at: str) -> None:
    packed(tmp_path / "model-store" / "m.mar", {"MAR-INF/MANIFEST.json": manifest()})
    configured(tmp_path, "service_envelope=body")
    assert store.read(tmp_path / at, {}).envelope == "body"
    assert store.read(tmp_path / at, {"TS_SERVICE_ENVELOPE": "kserve"}).envelope == "kserve"


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        ("{", "model_snapshot must be a JSON object"),
        ("{}", "model_snapshot must be a JSON object"),
        ('{"models": {"m": {"1.0": {"marName": "gone.mar"}}}}', "no such archive; .* holds: m.mar"),
        ('{"models": {"m": {"1.0": {"marName": "m.mar", "batchSize": 0}}}}', "batchSize must be a number from 1 on"),
        ('{"models": {"m": 1}}', "models must map each model's name to its versions"),
    ],
)
def test_wrong_snapshot_is_refused(tmp_path: Path, snapshot: str, words: str) -> None:
    packed(tmp_path / "model-store" / "m.mar", {"MAR-INF/MANIFEST.json": manifest()})
    configured(tmp_path, f"model_snapshot={snapshot}")
    with pytest.raises(LoadError, match=words):
        store.read(tmp_path, {})


def request(**columns: Any) -> InferRequest:
    tensors = (
        Tensor(name=name.replace("_", "-"), data=np.asarray(column), datatype=Datatype.of(np.asarray(column)))
        for name, column in columns.items()
    )
    return InferRequest(model="m", inputs=tuple(tensors))


def test_rows_are_what_the_instances_of_a_v1_body_were() -> None:
    instances = [{"data": "aGk=", "target": 0}, {"data": "eW8=", "target": 3}]
    body = json.dumps({"instances": instances}).encode()
    assert rows.of_instances(v1.decode_request(body, model="m")) == instances
    body = json.dumps({"instances": [[1, 2], [3, 4]]}).encode()
    assert rows.of_instances(v1.decode_request(body, model="m")) == [[1, 2], [3, 4]]


def test_bytes_that_are_no_text_stay_bytes() -> None:
    assert rows.of_instances(request(data=objects([b"\x89PNG", b"text"]))) == [{"data": b"\x89PNG"}, {"data": "text"}]


def test_whole_request_is_one_item_of_its_first_tensor() -> None:
    assert rows.of_request(request(x=[[1.5, 2.5]])) == [
        {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[1.5, 2.5]]}
    ]


def test_inputs_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="inputs differ in rows"):
        rows.of_instances(request(a=[1, 2], b=[1]))


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ([2, 7], [2, 7]),
        ([[0.5], [1.5]], [[0.5], [1.5]]),
        (["cat", "dog"], ["cat", "dog"]),
        ([{"cat": 0.5}, {"dog": 0.25}], [{"cat": 0.5}, {"dog": 0.25}]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([{1: np.float32(0.5)}, None], [{"1": 0.5}, None]),
        ([{"predictions": [2, 7]}], [2, 7]),
    ],
)
def test_answers_arrive_in_v1_as_the_handler_gave_them(answer: Any, sent: Any) -> None:
    from servery_sdk.protocol import InferResponse

    output = rows.tensor("predict", rows.answer(answer, count=2))
    assert json.loads(v1.encode_response(InferResponse(model="m", outputs=(output,)))) == {"predictions": sent}


@pytest.mark.parametrize("answer", [None, {"a": 1}, [1], [1, 2, 3]])
def test_answer_of_another_length_is_an_error(answer: Any) -> None:
    with pytest.raises(ValueError, match="the handler answered"):
        rows.answer(answer, count=2)


def test_requirements_that_are_here_need_no_installation(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\nnumpy>=1\norjson\nnot-on-this-system; sys_platform == 'nowhere'\n")
    assert not requirements.satisfy(file, tmp_path / "target", is_allowed=False, archive=tmp_path / "m.mar")


def test_requirements_that_are_missing_are_refused_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1\nnumpy>=9999\nservery-no-such-thing==1 # a note\n")
    with pytest.raises(LoadError) as refused:
        requirements.satisfy(file, tmp_path / "target", is_allowed=False, archive=tmp_path / "m.mar")
    assert "wants numpy>=9999, servery-no-such-thing==1, not installed here" in str(refused.value)
    assert "SERVERY_TORCH_INSTALL_REQUIREMENTS=true" in str(refused.value)


def test_requirements_are_installed_beside_the_model_where_that_is_allowed(tmp_path: Path) -> None:
    info = "servery_tiny_wheel-1.0.dist-info"
    wheel = {
        "servery_tiny_wheel.py": b"NUMBER = 7\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: servery-tiny-wheel\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(tmp_path / "servery_tiny_wheel-1.0-py3-none-any.whl", "w") as zipped:
        for name, content in wheel.items():
            zipped.writestr(name, content)
    file = tmp_path / "requirements.txt"
    file.write_text("./servery_tiny_wheel-1.0-py3-none-any.whl\n")
    target = tmp_path / "target"
    assert requirements.satisfy(file, target, is_allowed=True, archive=tmp_path / "m.mar")
    assert (target / "servery_tiny_wheel.py").read_bytes() == b"NUMBER = 7\n"


def test_backslashes_of_a_properties_file_escape() -> None:
    text = "allowed_urls=https://a\\\\.example/.*,\\\n    http\\://b/.*\nname=\\u00e4\\tb\n"
    assert store.parse_properties(text) == {"allowed_urls": r"https://a\.example/.*,http://b/.*", "name": "ä\tb"}
