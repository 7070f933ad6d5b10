"""``up`` follows its files: an edit rolls, a removed document goes, a broken edit changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

MODEL = """
import os


class Model:
    def predict(self, inputs):
        (values,) = inputs.values()
        return values * int(os.environ["FACTOR"])
"""


def service(name: str, *, factor: int = 2, uri: str = "file://../model") -> str:
    return (
        f"apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {{name: {name}}}\n"
        f"spec: {{predictor: {{model: {{modelFormat: {{name: python}}, storageUri: '{uri}', "
        f"env: [{{name: FACTOR, value: '{factor}'}}]}}}}}}\n"
    )


class Up:
    """A platform that follows ``file`` and the folder ``more``."""

    def __init__(self, folder: Path, until: Callable[..., Any]) -> None:
        self.file, self.more, self._until = folder / "files" / "service.yaml", folder / "more", until
        self._state, self._log = folder / "state", folder / "log"
        (folder / "model").mkdir()
        (folder / "model" / "model.py").write_text(MODEL)
        self.file.parent.mkdir()
        self.more.mkdir()
        (self.more / "config.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: there}\n")

    def start(self) -> None:
        arguments = ("up", "-f", str(self.file), "-f", str(self.more), "--port", "0", "--state-dir", str(self._state))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "servery.main", *arguments], stderr=log)

    def edit(self, text: str) -> None:
        """Put a new file in the place of the old one, as editors do."""
        edited = self.file.with_suffix(".edited")
        edited.write_text(text)
        edited.replace(self.file)

    def says(self, words: str) -> None:
        """Wait until it has said ``words``."""
        self._until(lambda: words in self._log.read_text() or self._ended())

    def _ended(self) -> None:
        assert self.process.poll() is None, self._log.read_text()

    def ask(self, name: str) -> Any:
        url = json.loads((self._state / "platform.json").read_text())["url"]
        body = json.dumps({"instances": [[1.0]]}).encode()
        headers = {"Host": f"{name}.default.localhost"}
        asked = urllib.request.Request(f"{url}/v1/models/{name}:predict", data=body, headers=headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read())["predictions"]

    def is_gone(self, name: str) -> bool:
        try:
            self.ask(name)
        except urllib.error.HTTPError as error:
            return error.code == 404
        return False


@pytest.fixture
def up(tmp_path: Path, until: Callable[..., Any]) -> Iterator[Up]:
    up = Up(tmp_path, until)
    up.edit(service("a"))
    up.start()
    try:
        up.says("a answers at")
        yield up
    finally:
        up.process.terminate()
        up.process.wait(60)


def test_edited_file_rolls_and_a_broken_one_leaves_the_service_alone(up: Up, until: Callable[..., Any]) -> None:
    assert up.ask("a") == [[2.0]]
    up.edit(service("a", factor=3))
    until(lambda: up.ask("a") == [[3.0]])
    up.edit(service("a", factor=4) + "---\nkind: [")
    up.says("is not YAML")
    up.edit(service("a", factor=4) + "---\napiVersion: v1\nkind: Sekret\nmetadata: {name: s}\n")
    up.says("kind Sekret.v1 does not run on the local platform")
    up.edit(service("a", factor=4) + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {port: 80}\n")
    up.says('Secret "s" is invalid: stringData[port]')
    up.edit(service("a", factor=4).replace("modelFormat: {name: python}", "modelFormat: 5"))
    up.says("spec.predictor.model.modelFormat")
    up.edit(service("a", factor=4, uri="s4://bucket/model"))
    up.says('Unsupported value: "s4://bucket/model"')
    assert up.ask("a") == [[3.0]]
    up.edit(service("a", factor=5))
    until(lambda: up.ask("a") == [[5.0]])


def test_added_document_is_served_and_a_removed_one_deleted(up: Up, until: Callable[..., Any]) -> None:
    up.edit(service("a") + "---\n" + service("b", factor=7))
    up.says("b answers at")
    (up.more / "service.yaml").write_text(service("c", factor=9))
    up.says("c answers at")
    assert (up.ask("b"), up.ask("c")) == ([[7.0]], [[9.0]])
    up.edit(service("a"))
    (up.more / "service.yaml").unlink()
    for name in ("b", "c"):
        up.says(f"default/{name}: deleted, it is no longer in the files")
        until(lambda name=name: up.is_gone(name))
    assert up.ask("a") == [[2.0]]


def test_removed_secret_is_deleted_and_its_user_goes_on(up: Up) -> None:
    secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {factor: '6'}\n"
    reference = "valueFrom: {secretKeyRef: {name: s, key: factor}}"
    up.edit(service("b").replace("value: '2'", reference) + secret)
    up.says("default/a: deleted")
    up.says("b answers at")
    up.edit(service("b").replace("value: '2'", reference))
    up.says("default/s: deleted, it is no longer in the files")
    assert up.ask("b") == [[6.0]]
