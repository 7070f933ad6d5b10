"""A fourth dialect and a fourth mode, each a small package from outside: nothing of Servery knows their names."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import pytest
import yaml
from command import installed, servery
from servery.state import State
from servery_sdk.testing import DialectContract, ModeContract, WrongManifest

OUTSIDE = Path(__file__).parent / "outside"
PACKAGES = [OUTSIDE / "acme-models", OUTSIDE / "acme-pinned"]
MODEL, WRONG = OUTSIDE / "example" / "model.yaml", OUTSIDE / "example" / "wrong.yaml"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-dialect-or-a-mode.md"
ROWS = '{"instances": [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]}'
EXAMPLES = Path(__file__).parents[2] / "examples"


def module(package: Path) -> ModuleType:
    """Return a package's module, which is not installed here."""
    (source,) = package.glob("src/*/__init__.py")
    spec = importlib.util.spec_from_file_location(source.parent.name, source)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def model(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "acme.example/v1",
        "kind": "Model",
        "metadata": {"name": "iris", "namespace": "demo"},
        "spec": {"files": "s3://bucket/iris", "format": "sklearn", **spec},
    }


class TestAcmeModels(DialectContract):
    dialect = module(PACKAGES[0]).AcmeModels()
    good = {  # noqa: RUF012  # never changed
        "least": model(),
        "everything": model(format="sklearn@1", account="reader", paused=False, servers={"least": 2, "most": 4}),
    }
    wrong = {  # noqa: RUF012  # never changed
        "many": WrongManifest(
            {**model(format="a@b@c", file="x", servers={"least": 3, "most": 2}), "metadata": {"name": "Iris"}},
            ("metadata.name", "spec.file", "spec.format", "spec.servers.most"),
        ),
        "types": WrongManifest(model(paused="yes", servers={"least": 0}), ("spec.paused", "spec.servers.least")),
    }


class TestPinned(ModeContract):
    mode = module(PACKAGES[1]).PinnedMode()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a Servery beside which both packages are installed."""
    return installed(*PACKAGES, into=tmp_path_factory.mktemp("installed"))


@pytest.fixture
def run(outside: Mapping[str, str]) -> Callable[..., CompletedProcess[str]]:
    return lambda *arguments: servery(*map(str, arguments), environment=outside)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_is_small(package: Path) -> None:
    written = [package / "pyproject.toml", *package.glob("src/**/*.py")]
    assert len(written) == 2
    assert sum(len(path.read_text().splitlines()) for path in written) < 150


@pytest.mark.parametrize("language", ["toml", "yaml", "python"])
def test_page_shows_the_packages_as_they_are(language: str) -> None:
    suffix = {"python": ".py"}.get(language, f".{language}")
    written = [path.read_text() for path in OUTSIDE.rglob(f"*{suffix}")]
    shown = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown
    assert [block for block in shown if not any(block in text for text in written)] == []


def test_both_are_listed_with_their_packages(run: Callable[..., CompletedProcess[str]]) -> None:
    printed = run("plugins").stdout.splitlines()
    assert "servery_dialects  acme  (acme-models)" in printed
    assert "servery_modes  pinned  (acme-pinned)" in printed


def test_every_error_is_at_the_dialects_own_field(run: Callable[..., CompletedProcess[str]]) -> None:
    done = run("validate", "-f", WRONG)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "Model Iris:",
        "  metadata.name: Invalid value: \"Iris\": must consist of lower case letters, digits or '-', start with a letter and end with no '-'",
        "  spec.format: Required value",
        '  spec.formats: Unknown field: did you mean "format"?',
        "  spec.servers.most: Invalid value: 2: least is 3",
    ]
    assert run("validate", "-f", MODEL).returncode == 0


def test_mode_renders_what_the_dialect_means(run: Callable[..., CompletedProcess[str]]) -> None:
    done = run("render", "-f", MODEL, "--mode", "pinned")
    objects = {found["kind"]: found for found in yaml.safe_load_all(done.stdout)}
    assert objects.keys() == {"Deployment", "Service", "HTTPRoute"}, done.stderr
    deployment = objects["Deployment"]
    assert deployment["metadata"]["name"] == "iris-model"
    assert deployment["metadata"]["ownerReferences"][0]["kind"] == "Model"
    assert deployment["spec"]["replicas"] == 2
    pod = deployment["spec"]["template"]["spec"]
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["labelSelector"] == deployment["spec"]["selector"]
    assert [container["name"] for container in pod["containers"]] == ["server"]


def test_explain_tells_of_the_mode_that_is_asked_for(run: Callable[..., CompletedProcess[str]]) -> None:
    explained = run("explain", "-f", MODEL, "--mode", "pinned").stdout
    assert "default/iris\n" in explained
    assert "mode pinned" in explained
    assert "servery-sklearn serves" in explained


def test_what_the_mode_cannot_do_is_said(tmp_path: Path, run: Callable[..., CompletedProcess[str]]) -> None:
    (tmp_path / "model.yaml").write_text(json.dumps(model(servers={"least": 1, "most": 3})))
    done = run("validate", "-f", tmp_path / "model.yaml", "--mode", "pinned")
    assert "mode 'pinned' cannot run it: model: machines are fixed, so 1 replicas cannot become 3" in done.stdout
    assert run("validate", "-f", tmp_path / "model.yaml").returncode == 0


@pytest.mark.local
@pytest.mark.timeout(300)
def test_manifest_of_the_dialect_answers_through_the_mode(run: Callable[..., CompletedProcess[str]]) -> None:
    done = run("predict", "-f", MODEL, "--mode", "pinned", "-d", ROWS)
    assert (done.returncode, done.stdout) == (0, '{"predictions":[1,1]}\n'), done.stderr


@pytest.fixture
def up(tmp_path: Path, run: Callable[..., CompletedProcess[str]]) -> Iterator[Callable[..., CompletedProcess[str]]]:
    here = ("--state-dir", tmp_path / "state")
    yield lambda *arguments: run(*arguments, *here)
    run("down", *here)


@pytest.mark.local
@pytest.mark.timeout(300)
def test_platform_speaks_of_it_in_the_dialects_words(
    tmp_path: Path, up: Callable[..., CompletedProcess[str]], until: Callable[..., Any]
) -> None:
    followed = tmp_path / "model.yaml"

    def write(**spec: Any) -> None:
        files = (EXAMPLES / "sklearn-iris" / "model").as_uri()
        followed.write_text(json.dumps({**model(**{"files": files, **spec}), "metadata": {"name": "iris"}}))

    def status() -> Any:
        return State(tmp_path / "state").service("iris", "default").get("status", {})

    write(servers={"least": 2})
    started = up("up", "-f", followed, "--mode", "pinned", "--detach", "--port", "0")
    assert started.returncode == 0, started.stderr
    assert up("predict", "iris", "-d", ROWS).stdout == '{"predictions":[1,1]}\n'
    assert re.search(r"^default +iris .*Ready$", up("get").stdout, re.MULTILINE)
    assert "model loaded" in up("logs", "iris").stdout
    serving = status()
    assert (serving["phase"], serving["address"]) == ("Serving", "http://iris-model.default.svc.cluster.local")
    assert {condition["type"] for condition in serving["conditions"]} >= {"ModelReady", "Ready"}
    write(paused=True)
    until(lambda: status()["phase"] == "Paused")
    write(files="file://./nothing")
    broken = until(lambda: (found := status())["phase"] == "Broken" and found)
    assert "no such file or directory" in broken["because"], broken
