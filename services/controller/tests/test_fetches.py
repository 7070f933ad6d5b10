from __future__ import annotations

from typing import Any

import pytest
from servery_controller.metrics import FetchMetrics
from servery_controller.planning.fetches import Fetched, fetched, slowest
from servery_sdk.fetches import FetchReport
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef

REPORT = FetchReport(files=2, fetched_bytes=100, seconds=1.0)
FAILED = {"terminated": {"exitCode": 1, "message": "s3://b/m: no such bucket"}}
RUNNING = {"running": {}}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}
SERVICE = ObjectRef(Kind("serving.kserve.io/v1beta1", "InferenceService", "x"), Namespace("demo"), "iris")


def done(report: FetchReport = REPORT) -> Manifest:
    return {"terminated": {"exitCode": 0, "message": report.text()}}


def a_pod(state: Manifest, *, name: str = "p", restarts: int = 0, last: Manifest | None = None) -> Manifest:
    status = {"name": "storage-initializer", "state": state, "restartCount": restarts, "lastState": last or {}}
    return {"metadata": {"name": name}, "status": {"initContainerStatuses": [{"name": "other"}, status]}}


@pytest.mark.parametrize(
    ("pod", "report", "failures"),
    [
        pytest.param(a_pod({"waiting": {"reason": "PodInitializing"}}), None, 0, id="not-started"),
        pytest.param(a_pod(RUNNING), None, 0, id="running"),
        pytest.param(a_pod(done()), REPORT, 0, id="done"),
        pytest.param(a_pod(FAILED), None, 1, id="failed"),
        pytest.param(a_pod(BACK_OFF, last=FAILED), None, 1, id="waits-after-a-failure"),
        pytest.param(a_pod(RUNNING, restarts=1, last=FAILED), None, 1, id="tries-again"),
        pytest.param(a_pod(BACK_OFF, restarts=2, last=FAILED), None, 3, id="waits-after-three"),
        pytest.param(a_pod(done(), restarts=2, last=FAILED), REPORT, 2, id="done-at-last"),
        pytest.param(a_pod({"terminated": {"exitCode": 0}}), None, 0, id="another-program"),
    ],
)
def test_pod_tells_how_its_models_came(pod: Manifest, report: FetchReport | None, failures: int) -> None:
    assert fetched(pod) == Fetched(pod="p", report=report, failures=failures)


@pytest.mark.parametrize("pod", [{}, {"status": None}, {"status": {"initContainerStatuses": [{"name": "mine"}]}}])
def test_pod_for_which_nothing_is_fetched_tells_nothing(pod: Any) -> None:
    assert fetched(pod) is None
    families = FetchMetrics(lambda: [(SERVICE, pod)]).collect()
    assert [sample for family in families for sample in family.samples] == []


def test_slowest_of_several_pods_is_told() -> None:
    slow = FetchReport(files=2, seconds=9.0)
    pods = [a_pod(done()), a_pod(done(slow), name="q"), a_pod(RUNNING, name="r"), {}]
    found = slowest(pods)
    assert found is not None
    assert (found.pod, found.words) == ("q", "pod q: 2 files in 9.0 s")
    assert slowest([a_pod(RUNNING)]) is None
