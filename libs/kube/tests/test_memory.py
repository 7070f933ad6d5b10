from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_kube.fields import BuiltIn, Manager, apply, fields
from servery_kube.memory import MemoryApi
from servery_kube.port import Conflict
from servery_kube.testing import WIDGET_CRD, KubeApiContract
from servery_sdk import kinds


class TestMemoryApi(KubeApiContract):
    @pytest.fixture
    def namespace(self) -> str:
        return "demo"

    @pytest.fixture
    def api(self) -> MemoryApi:
        return MemoryApi([WIDGET_CRD], history_events=10)


async def test_creation_time_is_the_clocks() -> None:
    api = MemoryApi(now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    metadata = {"name": "c", "namespace": "demo"}
    made = await api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, kinds.CONFIG_MAP)
    assert made["metadata"]["creationTimestamp"] == "2026-01-02T03:04:05Z"


async def test_fault_is_what_the_caller_gets() -> None:
    def fault(verb: str) -> None:
        if verb == "apply":
            raise Conflict("injected")

    api = MemoryApi(fault=fault)
    with pytest.raises(Conflict, match="injected"):
        await api.apply({}, kinds.CONFIG_MAP)


US = Manager("servery", "Apply")


def applied(live: Any, before: Any, wanted: Any) -> tuple[Any, Any]:
    return apply(live, wanted, BuiltIn(), US, {US: frozenset(fields(before, BuiltIn()))})


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
    assert applied(live, before, wanted)[0] == expected


JSON = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(st.integers(0, 3), max_size=2),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


THEM = Manager("other", "Apply")


@given(OBJECTS, OBJECTS, OBJECTS)
def test_applying_twice_is_applying_once(theirs: Any, before: Any, wanted: Any) -> None:
    live, owned = apply({}, theirs, BuiltIn(), THEM, {})
    live, owned = apply(live, before, BuiltIn(), US, owned)
    once, owned = apply(live, wanted, BuiltIn(), US, owned)
    assert apply(once, wanted, BuiltIn(), US, owned) == (once, owned)
    assert owned.get(US, frozenset()) == fields(wanted, BuiltIn()).keys()
    there = {path[:depth] for path in fields(once, BuiltIn()) for depth in range(1, len(path) + 1)}
    assert all(paths <= there for paths in owned.values())
