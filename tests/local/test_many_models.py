"""Ten models on one predictor through TrainedModel: pulled, changed and unloaded within two seconds."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from servery_controller.planning.held import DAEMON_METRICS_PORT
from servery_sdk import kinds
from servery_sdk.manifests import Kind, Namespace, ObjectRef
from sklearn.dummy import DummyClassifier

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

SOON_SECONDS = 2.0
TRAINED_MODEL = Kind("serving.kserve.io/v1alpha1", "TrainedModel", "trainedmodels")
SERVICE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "many", "namespace": "default"},
    "spec": {"predictor": {"sklearn": {"resources": {"limits": {"memory": "2Gi"}}}}},
}


def trained(name: str, folder: Path, *, memory: str = "64Mi", framework: str = "sklearn") -> dict[str, Any]:
    return {
        "apiVersion": TRAINED_MODEL.api_version,
        "kind": TRAINED_MODEL.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "inferenceService": "many",
            "model": {"storageUri": folder.as_uri(), "framework": framework, "memory": memory},
        },
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that always answer their number, 0 to 11."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(12):
        (folder / str(number)).mkdir()
        model = DummyClassifier(strategy="constant", constant=number).fit([[0.0]] * 12, list(range(12)))
        joblib.dump(model, folder / str(number) / "model.joblib")
    return folder


class Many:
    """The service, its models, and what they answer."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._known: set[str] = set()

    def up(self) -> None:
        async def work() -> None:
            (ref,) = await self._local.platform.apply([SERVICE])
            await self._local.platform.ready(ref, give_up=True)

        self._local.call(work())

    def apply(self, *models: dict[str, Any]) -> None:
        """Have these models, and no others."""
        names = {model["metadata"]["name"] for model in models}
        for name in self._known - names:
            self._local.call(self._local.platform.delete(self._ref(name)))
        self._local.call(self._local.platform.apply(models))
        self._known = names

    def _ref(self, name: str) -> ObjectRef:
        return ObjectRef(TRAINED_MODEL, Namespace("default"), name)

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._local.call(self._local.platform.api.get(self._ref(name)))
        return found.get("status") or {}

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next((one for one in self.status(name).get("conditions", ()) if one["type"] == kind), {})

    def ask(self, name: str) -> int | str:
        """Return the number that a model answers, or the answer's status."""
        request = urllib.request.Request(
            f"{self._local.url}/v1/models/{name}:predict",
            data=json.dumps({"instances": [[1.0]]}).encode(),
            headers={"Host": "many.default.localhost"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(json.loads(answer.read())["predictions"][0])
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)

    def seconds_until(self, wanted: dict[str, int | str]) -> float:
        """Return how long it takes until every name answers as wanted."""
        began = time.monotonic()
        found: dict[str, int | str] = {}
        while found != wanted:
            found = {name: self.ask(name) for name in wanted}
            assert time.monotonic() - began < 60, f"found {found}, wanted {wanted}"
        return time.monotonic() - began


@pytest.fixture
def many(local: Local) -> Iterator[Many]:
    many = Many(local)
    many.up()
    yield many
    many.apply()
    local.down("many")


def test_ten_models_are_pulled_changed_and_unloaded_within_two_seconds(
    many: Many, sources: Path, until: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    ten = [trained(f"m{number}", sources / str(number)) for number in range(10)]
    began = time.monotonic()
    many.apply(*ten)
    many.seconds_until({f"m{number}": number for number in range(10)})
    pulled = time.monotonic() - began
    for number in range(10):
        until(lambda name=f"m{number}": many.condition(name, "Ready").get("status") == "True")
        assert many.status(f"m{number}")["url"] == f"http://many-default.example.com/v1/models/m{number}:predict"
    began = time.monotonic()
    many.apply(*(trained(f"m{number}", sources / str(number + 1)) for number in range(10)))
    many.seconds_until({f"m{number}": number + 1 for number in range(10)})
    changed = time.monotonic() - began
    began = time.monotonic()
    many.apply(trained("m0", sources / "1"))
    many.seconds_until({"m0": 1, **{f"m{number}": "404" for number in range(1, 10)}})
    unloaded = time.monotonic() - began
    with capsys.disabled():
        print(f"\nten models: pulled in {pulled:.2f} s, changed in {changed:.2f} s, nine unloaded in {unloaded:.2f} s")
    assert max(pulled, changed, unloaded) < SOON_SECONDS


def test_what_cannot_be_held_says_why_and_the_others_answer(
    many: Many, sources: Path, tmp_path: Path, until: Callable[..., Any]
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.joblib").write_bytes(b"no model")
    many.apply(
        trained("good", sources / "3"),
        trained("broken", tmp_path / "broken"),
        trained("huge", sources / "4", memory="3Gi"),
        trained("other", sources / "5", framework="tensorflow"),
    )
    many.seconds_until({"good": 3, "broken": "503", "huge": "404", "other": "404"})
    until(lambda: many.condition("broken", "ModelLoaded").get("reason") == "ModelLoadFailed")
    assert "model.joblib" in many.condition("broken", "Ready")["message"]
    until(lambda: many.condition("huge", "MemoryResourceAvailable").get("status") == "False")
    assert "needs 3Gi" in many.condition("huge", "Ready")["message"]
    until(lambda: many.condition("other", "FrameworkSupported").get("status") == "False")
    assert "'tensorflow' is none of the predictor's: sklearn" in many.condition("other", "Ready")["message"]
    assert many.condition("good", "Ready")["status"] == "True"
    shutil.copy(sources / "7" / "model.joblib", tmp_path / "broken" / "model.joblib")
    many.seconds_until({"broken": 7})
    until(lambda: many.condition("broken", "Ready").get("status") == "True")


def test_models_are_there_again_after_the_server_died(many: Many, local: Local, sources: Path) -> None:
    many.apply(trained("one", sources / "1"), trained("two", sources / "2"))
    many.seconds_until({"one": 1, "two": 2})
    (pod,) = local.pods("many")
    local.call(local.platform.api.delete(ObjectRef(kinds.POD, Namespace("default"), pod["metadata"]["name"])))
    many.seconds_until({"one": 1, "two": 2})


def test_storage_daemon_tells_what_it_holds(many: Many, local: Local, sources: Path) -> None:
    many.apply(trained("one", sources / "1"), trained("two", sources / "2"))
    many.seconds_until({"one": 1, "two": 2})
    pod = local.pods("many")[0]["status"]["podIP"]
    with urllib.request.urlopen(f"http://{pod}:{DAEMON_METRICS_PORT}/metrics", timeout=10) as answer:
        assert 'servery_storage_models{held="true"} 2.0' in answer.read().decode()


def test_model_of_no_service_says_so(many: Many, local: Local, sources: Path, until: Callable[..., Any]) -> None:
    orphan = trained("orphan", sources / "1")
    orphan["spec"]["inferenceService"] = "nobody"
    many.apply(orphan)
    until(lambda: many.condition("orphan", "InferenceServiceReady").get("reason") == "InferenceServiceMissing")
    many.apply(trained("orphan", sources / "2"))
    many.seconds_until({"orphan": 2})


def test_example_answers(local: Local, until: Callable[..., Any]) -> None:
    folder = Path(__file__).parents[2] / "examples" / "sklearn-many-models"
    local.up(folder / "service.yaml", folder / "models.yaml")
    request = (folder / "request.json").read_bytes()

    def answers(name: str) -> bool:
        asked = urllib.request.Request(
            f"{local.url}/v1/models/{name}:predict", data=request, headers={"Host": "flowers.default.localhost"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return bool(json.loads(answer.read()) == {"predictions": [1, 1]})
        except urllib.error.HTTPError as error:
            error.close()
            return False

    for name in ("iris-svm", "iris-tree", "iris-neighbours"):
        until(lambda name=name: answers(name))
    local.down("flowers")
