"""A rolling update never goes below what was promised, and ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from servery.local.rollout import HASH_LABEL, is_ready, status, step, template_hash


def deployment(surge: int | str, unavailable: int | str, template: str = "new") -> dict[str, Any]:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "metadata": {"generation": 3},
        "spec": {"strategy": {"rollingUpdate": rolling}, "template": {"spec": {"v": template}}},
    }


def pod(number: int, template: str, *, ready: bool) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    labels = {HASH_LABEL: template_hash({"spec": {"v": template}})}
    return {"metadata": {"name": f"p{number}", "labels": labels}, "status": {"conditions": conditions}}


def test_first_pods_are_all_made_at_once() -> None:
    assert step(deployment("25%", "25%"), 3, []).create == 3


@given(
    st.integers(1, 6),
    st.sampled_from([0, 1, 2, "25%", "50%"]),
    st.sampled_from([0, 1, "25%"]),
    st.randoms(use_true_random=False),
)
def test_update_keeps_its_promises_and_ends(
    replicas: int, surge: int | str, unavailable: int | str, random: Any
) -> None:
    wanted = deployment(surge, unavailable)
    pods = [pod(number, "old", ready=True) for number in range(replicas)]
    number = replicas
    # Where both bounds are zero one pod may be missing, or nothing could ever move.
    may_miss = 1 if unavailable == 1 or surge == 0 else replicas // 4
    least = replicas - max(may_miss, replicas // 4 if unavailable == "25%" else 0)
    for _ in range(200):
        decided = step(wanted, replicas, pods)
        pods = [p for p in pods if p["metadata"]["name"] not in decided.delete]
        for _ in range(decided.create):
            pods.append(pod(number, "new", ready=False))
            number += 1
        assert sum(map(is_ready, pods)) >= least
        starting = [p for p in pods if not is_ready(p)]
        if starting:
            random.choice(starting)["status"]["conditions"][0]["status"] = "True"
    assert len(pods) == replicas
    assert status(wanted, replicas, pods)["updatedReplicas"] == replicas
    assert all(map(is_ready, pods))
