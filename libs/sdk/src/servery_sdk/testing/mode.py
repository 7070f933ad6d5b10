"""What every mode must do, whatever its engine."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servery_sdk import kinds
from servery_sdk.contract import Mode
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Capability, ConditionStatus, DeploymentPlan, Readiness
from servery_sdk.testing.plans import deployment_plans

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 63
_EVERYWHERE = frozenset(
    {
        "v1",
        "apps/v1",
        "autoscaling/v2",
        "batch/v1",
        "policy/v1",
        "networking.k8s.io/v1",
        "rbac.authorization.k8s.io/v1",
    }
)
_BROUGHT_BY = {
    kinds.HTTP_ROUTE.group: Capability.GATEWAY_API,
    kinds.SCALED_OBJECT.group: Capability.KEDA,
    "serving.knative.dev": Capability.KNATIVE,
    "ray.io": Capability.KUBERAY,
    "leaderworkerset.x-k8s.io": Capability.LEADER_WORKER_SET,
}
"""API groups that not every cluster has."""

# Subclasses share these tests, and Hypothesis minds when different classes run one.
_inherited = settings(
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow], deadline=None, max_examples=60
)


class ModeContract:
    """Subclass it as ``Test<Mode>`` with the mode.

    Attributes:
        plans: The plans that the mode is tried with; for a mode that takes fewer, pass them through ``filter``.
        stopped_plans: Likewise, of stopped services.
    """

    mode: ClassVar[Mode]
    plans: ClassVar[st.SearchStrategy[DeploymentPlan]] = deployment_plans()
    stopped_plans: ClassVar[st.SearchStrategy[DeploymentPlan]] = deployment_plans(stopped=True)

    @_inherited
    @given(data=st.data())
    def test_rendering_is_deterministic_and_leaves_the_plan_alone(self, data: st.DataObject) -> None:
        plan = data.draw(self.plans)
        before = copy.deepcopy(plan)
        assert self.mode.render(plan) == self.mode.render(copy.deepcopy(before))
        assert plan == before

    @_inherited
    @given(data=st.data())
    def test_objects_are_json(self, data: st.DataObject) -> None:
        rendered = self.mode.render(data.draw(self.plans))
        assert json.loads(json.dumps(rendered)) == list(rendered)

    @_inherited
    @given(data=st.data())
    def test_every_object_is_named_owned_and_labelled(self, data: st.DataObject) -> None:
        plan = data.draw(self.plans)
        rendered = self.mode.render(plan)
        for found in rendered:
            metadata = found["metadata"]
            assert found["apiVersion"]
            assert found["kind"]
            assert metadata["namespace"] == plan.ref.namespace
            assert metadata["ownerReferences"][0] == plan.owner
            assert plan.owned_labels.items() <= metadata["labels"].items(), "or nobody finds it to delete it"
            assert _NAME.fullmatch(metadata["name"]), metadata["name"]
            assert len(metadata["name"]) <= _LONGEST, metadata["name"]
        identities = [(found["apiVersion"], found["kind"], found["metadata"]["name"]) for found in rendered]
        assert len(set(identities)) == len(identities), "one object overwrites another"

    @_inherited
    @given(data=st.data())
    def test_selector_selects_the_pods_of_one_template(self, data: st.DataObject) -> None:
        rendered = self.mode.render(data.draw(self.plans))
        templates = [(found, labels) for found in rendered for labels in _template_labels(found)]
        for found in rendered:
            selector = (found.get("spec") or {}).get("selector")
            if selector is None:
                continue
            wanted = selector.get("matchLabels", selector)
            assert wanted, f"{found['kind']} selects every pod"
            fitting = [owner for owner, labels in templates if wanted.items() <= labels.items()]
            assert len(fitting) == 1, f"{found['kind']} {found['metadata']['name']} selects {len(fitting)} templates"
            if any(owner is found for owner, _ in templates):
                assert fitting[0] is found, f"{found['kind']} does not select its own pods"

    @_inherited
    @given(data=st.data())
    def test_every_mount_has_a_volume(self, data: st.DataObject) -> None:
        for found in self.mode.render(data.draw(self.plans)):
            for pod in _pods(found):
                volumes = {volume["name"] for volume in pod.get("volumes") or ()}
                mounts = {
                    mount["name"] for container in _containers(pod) for mount in container.get("volumeMounts") or ()
                }
                assert mounts <= volumes, f"{found['kind']} {found['metadata']['name']}"

    @_inherited
    @given(data=st.data())
    def test_pod_of_every_workload_runs_as_planned(self, data: st.DataObject) -> None:
        plan = data.draw(self.plans)
        rendered = [pod for found in self.mode.render(plan) for pod in _pods(found)]
        for workload in plan.workloads:
            wanted = _images(workload.pod)
            assert any(wanted.items() <= _images(pod).items() for pod in rendered), f"no pod for {workload.name}"

    @_inherited
    @given(data=st.data())
    def test_pods_carry_the_labels_and_annotations_of_their_workload(self, data: st.DataObject) -> None:
        plan = data.draw(self.plans)
        templates = [template for found in self.mode.render(plan) for template in _templates(found)]
        for workload in plan.workloads:
            assert any(
                workload.pod_labels.items() <= (template["metadata"].get("labels") or {}).items()
                and workload.pod_annotations.items() <= (template["metadata"].get("annotations") or {}).items()
                for template in templates
            ), f"no pod template has what {workload.name} asks for"

    @_inherited
    @given(data=st.data())
    def test_stopped_service_has_no_pods(self, data: st.DataObject) -> None:
        for found in self.mode.render(data.draw(self.stopped_plans)):
            assert list(_pods(found)) == [], f"{found['kind']} {found['metadata']['name']}"

    @_inherited
    @given(data=st.data())
    def test_objects_need_no_more_of_a_cluster_than_it_has(self, data: st.DataObject) -> None:
        """What every cluster has, what ``requires`` says, or what the plan says of this one."""
        plan = data.draw(self.plans)
        offered = {*self.mode.requires(plan), *plan.capabilities}
        for found in self.mode.render(plan):
            group = found["apiVersion"].rpartition("/")[0]
            if found["apiVersion"] not in _EVERYWHERE:
                assert _BROUGHT_BY.get(group) in offered, f"{found['kind']} of {found['apiVersion']}"

    @_inherited
    @given(data=st.data())
    def test_objects_are_of_the_kinds_that_it_names(self, data: st.DataObject) -> None:
        """The controller watches those, and its role lists them."""
        named = {(kind.api_version, kind.kind) for kind in self.mode.kinds}
        rendered = self.mode.render(data.draw(self.plans))
        assert {(found["apiVersion"], found["kind"]) for found in rendered} <= named

    @_inherited
    @given(data=st.data())
    def test_readiness_is_total(self, data: st.DataObject) -> None:
        plan = data.draw(self.plans)
        objects = {}
        for found in self.mode.render(plan):
            kind = next(k for k in self.mode.kinds if (k.api_version, k.kind) == (found["apiVersion"], found["kind"]))
            ref = ObjectRef(kind, plan.ref.namespace, found["metadata"]["name"])
            objects[ref] = {**found, "status": data.draw(_STATUSES)}
        for workload in plan.workloads:
            assert isinstance(self.mode.readiness(workload, objects), Readiness)
            assert self.mode.readiness(workload, {}).status is not ConditionStatus.TRUE


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_CONDITIONS = st.fixed_dictionaries(
    {"type": st.sampled_from(["Available", "Ready", "Progressing", "RoutesReady"]) | _JSON},
    optional={"status": st.sampled_from(["True", "False", "Unknown"]) | _JSON, "reason": _JSON, "message": _JSON},
)
_STATUSES = _JSON | st.fixed_dictionaries(
    {}, optional={"conditions": st.lists(_CONDITIONS | _JSON, max_size=3) | _JSON, "observedGeneration": _JSON}
)
"""What a cluster may say: well-formed, nearly, or not at all."""


def _walk(value: Json) -> Iterator[Manifest]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _walk(inner)


def _pods(found: Manifest) -> Iterator[Manifest]:
    """Yield every PodSpec in an object, however deep its engine wants it."""
    yield from (part for part in _walk(found) if isinstance(part.get("containers"), list))


def _templates(found: Manifest) -> Iterator[Manifest]:
    """Yield every pod template: metadata beside a PodSpec."""
    for part in _walk(found):
        spec = part.get("spec")
        if (
            isinstance(spec, dict)
            and isinstance(spec.get("containers"), list)
            and isinstance(part.get("metadata"), dict)
        ):
            yield part


def _template_labels(found: Manifest) -> Iterator[Manifest]:
    yield from ((template["metadata"].get("labels") or {}) for template in _templates(found))


def _containers(pod: Manifest) -> list[Manifest]:
    return [*(pod.get("initContainers") or ()), *pod["containers"]]


def _images(pod: Manifest) -> dict[str, str]:
    return {container["name"]: container["image"] for container in _containers(pod)}
