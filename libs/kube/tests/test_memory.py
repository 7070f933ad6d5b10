from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_kube.fields import apply
from servery_kube.memory import MemoryApi
from servery_kube.port import AlreadyExists, Conflict, NotFound, Rejected, WatchEvent
from servery_sdk import kinds
from servery_sdk.manifests import Kind, Namespace, ObjectRef

WIDGET = Kind("acme.io/v1", "Widget", "widgets")
CRD = {
    "spec": {
        "group": "acme.io",
        "names": {"kind": "Widget"},
        "versions": [
            {
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "metadata": {"type": "object"},
                            "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                }
            }
        ],
    }
}


def widget(name: str = "w", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "demo"}
    return {"apiVersion": WIDGET.api_version, "kind": WIDGET.kind, "metadata": metadata, "spec": spec}


def ref(name: str = "w", kind: Kind = WIDGET) -> ObjectRef:
    return ObjectRef(kind, Namespace("demo"), name)


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi([CRD], now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


async def test_object_gets_what_an_api_server_gives_it(api: MemoryApi) -> None:
    made = await api.create(widget(size=1), WIDGET)
    assert made["metadata"]["creationTimestamp"] == "2026-01-02T03:04:05Z"
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["uid"]
    assert await api.get(ref()) == made
    with pytest.raises(AlreadyExists):
        await api.create(widget(), WIDGET)


async def test_generation_counts_changes_of_the_spec_alone(api: MemoryApi) -> None:
    await api.apply(widget(size=1), WIDGET)
    assert (await api.patch_status(ref(), {"ready": True}))["metadata"]["generation"] == 1
    assert (await api.apply(widget(size=2), WIDGET))["metadata"]["generation"] == 2


async def test_apply_that_changes_nothing_writes_nothing(api: MemoryApi) -> None:
    first = await api.apply(widget(size=1), WIDGET)
    assert (await api.apply(widget(size=1), WIDGET))["metadata"] == first["metadata"]
    await api.patch_status(ref(), {"a": 1})
    again = await api.patch_status(ref(), {"a": 1})
    assert int(again["metadata"]["resourceVersion"]) == int(first["metadata"]["resourceVersion"]) + 1


async def test_fields_of_other_managers_stay(api: MemoryApi) -> None:
    await api.apply({**widget(), "spec": {"size": 1}}, WIDGET)
    labelled = {**widget(), "metadata": {"name": "w", "namespace": "demo", "labels": {"theirs": "1"}}}
    del labelled["spec"]
    await api.apply(labelled, WIDGET, field_manager="other")
    found = await api.apply({**widget(), "spec": {"size": 2}}, WIDGET)
    assert found["metadata"]["labels"] == {"theirs": "1"}
    assert found["spec"] == {"size": 2}


async def test_object_that_does_not_fit_its_schema_is_rejected(api: MemoryApi) -> None:
    with pytest.raises(Rejected) as rejected:
        await api.create(widget(size="big", colour="red"), WIDGET)
    assert 'spec.size: Invalid value: "big": must be an integer, found string' in str(rejected.value)
    assert "spec.colour: Unknown field" in str(rejected.value)


async def test_update_of_an_old_version_conflicts(api: MemoryApi) -> None:
    old = await api.create(widget(size=1), WIDGET)
    await api.apply(widget(size=2), WIDGET)
    with pytest.raises(Conflict):
        await api.update(old, WIDGET)


async def test_owner_takes_what_it_owns_with_it(api: MemoryApi) -> None:
    owner = await api.create(widget("owner"), WIDGET)
    owned = {
        **widget("owned"),
        "metadata": {**widget("owned")["metadata"], "ownerReferences": [{"uid": owner["metadata"]["uid"]}]},
    }
    await api.create(owned, WIDGET)
    await api.delete(ref("owner"))
    with pytest.raises(NotFound):
        await api.get(ref("owned"))
    await api.delete(ref("owner"))


async def test_orphaned_objects_stay(api: MemoryApi) -> None:
    owner = await api.create(widget("owner"), WIDGET)
    owned = {
        **widget("owned"),
        "metadata": {**widget("owned")["metadata"], "ownerReferences": [{"uid": owner["metadata"]["uid"]}]},
    }
    await api.create(owned, WIDGET)
    await api.delete(ref("owner"), propagation="Orphan")
    assert await api.get(ref("owned"))


async def test_finalizer_holds_an_object_back(api: MemoryApi) -> None:
    held = widget()
    held["metadata"]["finalizers"] = ["acme.io/hold"]
    await api.create(held, WIDGET)
    await api.delete(ref())
    marked = await api.get(ref())
    assert marked["metadata"]["deletionTimestamp"]
    released = {**marked, "metadata": {k: v for k, v in marked["metadata"].items() if k != "finalizers"}}
    await api.update(released, WIDGET)
    with pytest.raises(NotFound):
        await api.get(ref())


async def test_list_selects_by_namespace_and_label(api: MemoryApi) -> None:
    for name, team in (("a", "x"), ("b", "y")):
        made = widget(name)
        made["metadata"]["labels"] = {"team": team}
        await api.create(made, WIDGET)
    found = await api.list(WIDGET, namespace="demo", labels={"team": "y"})
    assert [item["metadata"]["name"] for item in found.items] == ["b"]
    assert (await api.list(WIDGET, namespace="other")).items == ()
    assert (await api.list(kinds.POD)).items == ()


async def test_watch_resumes_from_a_version(api: MemoryApi) -> None:
    await api.create(widget("before"), WIDGET)
    version = (await api.list(WIDGET)).resource_version
    await api.create(widget("a"), WIDGET)
    await api.delete(ref("a"))
    events: list[WatchEvent] = []

    async def watch() -> None:
        async for event in api.watch(WIDGET, resource_version=version):
            events.append(event)
            if len(events) == 3:
                return

    watching = asyncio.create_task(watch())
    await api.create(widget("b"), WIDGET)
    await asyncio.wait_for(watching, 10)
    assert [(e.type, e.object["metadata"]["name"]) for e in events] == [
        ("ADDED", "a"),
        ("DELETED", "a"),
        ("ADDED", "b"),
    ]


async def test_fault_is_what_the_caller_gets() -> None:
    def fault(verb: str) -> None:
        if verb == "apply":
            raise Conflict("injected")

    api = MemoryApi(fault=fault)
    await api.create(widget(), WIDGET)
    with pytest.raises(Conflict, match="injected"):
        await api.apply(widget(), WIDGET)


@pytest.mark.parametrize(
    ("live", "before", "wanted", "expected"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, {"a": 3}, {"a": 3, "b": 2}, id="ours-change-theirs-stay"),
        pytest.param({"a": 1, "b": 2}, {"a": 1}, {}, {"b": 2}, id="ours-go"),
        pytest.param({"m": {"a": 1, "b": 2}}, {"m": {"a": 1}}, {}, {"m": {"b": 2}}, id="deep-ours-go"),
        pytest.param(
            {"containers": [{"name": "a", "x": 1}, {"name": "sidecar"}]},
            {"containers": [{"name": "a", "x": 1}, {"name": "old"}]},
            {"containers": [{"name": "a", "y": 2}]},
            {"containers": [{"name": "a", "y": 2}, {"name": "sidecar"}]},
            id="containers-by-name",
        ),
        pytest.param({"args": ["a", "b"]}, {"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}, id="atomic-list"),
        pytest.param(
            {"ports": [{"port": 80, "nodePort": 3}]},
            {"ports": [{"port": 80}]},
            {"ports": [{"port": 80, "name": "h"}]},
            {"ports": [{"port": 80, "nodePort": 3, "name": "h"}]},
            id="service-ports-by-number",
        ),
    ],
)
def test_apply_merges_as_the_api_server_does(live: Any, before: Any, wanted: Any, expected: Any) -> None:
    assert apply(live, before, wanted) == expected


JSON = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(st.integers(0, 3), max_size=2),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


@given(OBJECTS, OBJECTS, OBJECTS)
def test_applying_twice_is_applying_once(live: Any, before: Any, wanted: Any) -> None:
    once = apply(live, before, wanted)
    assert apply(once, wanted, wanted) == once
