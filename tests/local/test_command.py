"""The command as people run it, and a runtime from outside."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command import installed, servery

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"
IRIS = EXAMPLES / "sklearn-iris"


def test_first_command_of_the_readme_prints_the_prediction() -> None:
    done = servery("predict", "-f", str(IRIS / "service.yaml"), "-d", f"@{IRIS / 'request.json'}")
    assert (done.returncode, done.stdout) == (0, '{"predictions":[1,1]}\n'), done.stderr


def test_detached_platform_is_found_by_the_other_commands_and_ends(tmp_path: Path) -> None:
    here = ("--state-dir", str(tmp_path))
    up = servery("up", "-f", str(IRIS / "service.yaml"), "--detach", "--port", "0", *here)
    try:
        assert up.returncode == 0, up.stderr
        (url,) = re.findall(
            r"sklearn-iris  (http://sklearn-iris\.default\.localhost:\d+)  Ready", servery("get", *here).stdout
        )
        # curl and browsers take every name below localhost for this machine.
        subprocess.run(["curl", "-sf", "--noproxy", "*", f"{url}/v2/health/ready"], capture_output=True, check=True)
        asked = servery("predict", "sklearn-iris", "-d", '{"instances": [[6.8, 2.8, 4.8, 1.4]]}', *here)
        assert asked.stdout == '{"predictions":[1]}\n'
        assert "model loaded" in servery("logs", "sklearn-iris", *here).stdout
        (curl,) = (line.strip() for line in up.stderr.splitlines() if line.strip().startswith("curl"))
        pasted = subprocess.run(
            [*shlex.split(curl), "-s", "--noproxy", "*"], capture_output=True, text=True, check=False
        )
        assert "predictions" in json.loads(pasted.stdout)
        second = servery("up", "-f", str(IRIS / "service.yaml"), "--detach", *here)
        assert second.returncode == 1
        assert "a platform runs already" in second.stderr
        assert "model loaded" in servery("logs", "sklearn-iris", *here).stdout
    finally:
        down = servery("down", *here)
    assert down.returncode == 0, down.stderr
    assert servery("get", *here).returncode == 1


PLUGIN = """
from servery_sdk.hooks import hookimpl
from servery_sdk.model import SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes():
    yield predictor(
        "acme", model_class="acme_servery:Sum", formats=(SupportedFormat(name="acme", version="1", priority=1),)
    )


class Sum:
    def load(self, artifact):
        self.bias = float((artifact / "bias.txt").read_text())

    def predict(self, request):
        from servery_sdk.protocol import Datatype, InferResponse, Tensor

        answer = request.inputs[0].data.sum(axis=1) + self.bias
        return InferResponse(model=request.model, outputs=(Tensor(name="sum", data=answer, datatype=Datatype.of(answer)),))
"""


def test_runtime_of_an_outside_package_serves_and_is_rendered(tmp_path: Path) -> None:
    package, model = tmp_path / "acme", tmp_path / "model"
    (package / "src" / "acme_servery").mkdir(parents=True)
    (package / "src" / "acme_servery" / "__init__.py").write_text(PLUGIN)
    (package / "pyproject.toml").write_text(
        '[project]\nname = "acme-servery"\nversion = "1"\n[project.entry-points.servery]\nacme = "acme_servery"\n'
        '[build-system]\nrequires = ["uv_build>=0.8"]\nbuild-backend = "uv_build"\n'
    )
    environment = installed(package, into=tmp_path / "installed")
    model.mkdir()
    (model / "bias.txt").write_text("10")
    manifest = tmp_path / "service.yaml"
    manifest.write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: acme}\n"
        "spec: {predictor: {model: {modelFormat: {name: acme}, storageUri: file://./model}}}\n"
    )
    done = servery("predict", "-f", str(manifest), "-d", '{"instances": [[1, 2], [3, 4]]}', environment=environment)
    assert (done.returncode, done.stdout) == (0, '{"predictions":[13.0,17.0]}\n'), done.stderr
    rendered = servery("render", "-f", str(manifest), environment=environment)
    assert "image: servery/predictor-acme:" in rendered.stdout
