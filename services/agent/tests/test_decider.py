"""The puller's decisions: they end with what is assigned, never need more memory than there is, and never act twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_agent.puller.assignments import Assignment
from servery_agent.puller.decider import (
    Action,
    Bounds,
    Served,
    ServedState,
    Setback,
    Snapshot,
    State,
    Verb,
    decide,
    fitting,
)

RED = Assignment(name="red", uri="s3://b/red", framework="sklearn", memory_bytes=40)
BLUE = Assignment(name="blue", uri="s3://b/blue", framework="sklearn", memory_bytes=50)
NEW_RED = replace(RED, uri="s3://b/red2")


def served(*assignments: Assignment) -> dict[str, Served]:
    return {one.name: Served(state=ServedState.LOADED, tag=one.tag) for one in assignments}


def seen(*assigned: Assignment, stored: Any = (), **more: Any) -> Snapshot:
    stored = {one.name: one.uri for one in stored}
    return Snapshot(**{"assigned": assigned, "stored": stored, "served": {}, **more})


def steps(snapshot: Snapshot) -> list[tuple[str, str]]:
    return [(action.verb.value, action.name) for action in decide(snapshot).actions]


@pytest.mark.parametrize(
    ("snapshot", "wanted"),
    [
        pytest.param(seen(RED), [("fetch", "red")], id="nothing there"),
        pytest.param(seen(RED, stored=[RED]), [("load", "red")], id="fetched"),
        pytest.param(seen(RED, stored=[RED], served=None), [], id="no server yet"),
        pytest.param(seen(RED, BLUE, stored=[RED], served=served(RED)), [("fetch", "blue")], id="one of two there"),
        pytest.param(seen(RED, stored=[RED], served=served(RED)), [], id="all there"),
        pytest.param(seen(NEW_RED, stored=[RED], served=served(RED)), [("fetch", "red")], id="another artifact"),
        pytest.param(
            seen(NEW_RED, stored=[NEW_RED], served=served(RED)), [("load", "red")], id="loaded beside the old"
        ),
        pytest.param(seen(stored=[RED], served=served(RED)), [("unload", "red")], id="not assigned any more"),
        pytest.param(seen(stored=[RED]), [("release", "red")], id="unloaded"),
        pytest.param(seen(stored=[RED], served=None), [], id="a server that is away may hold its files"),
        pytest.param(seen(RED, doing={"red": Action(verb=Verb.FETCH, name="red", assignment=RED)}), [], id="under way"),
        pytest.param(replace(seen(stored=[RED], served=served(RED)), assigned=None), [], id="nobody has said anything"),
        pytest.param(
            seen(RED, stored=[RED], served={"red": Served(state=ServedState.LOADING)}), [], id="somebody loads it"
        ),
    ],
)
def test_each_model_goes_its_way(snapshot: Snapshot, wanted: list[tuple[str, str]]) -> None:
    assert steps(snapshot) == wanted


def test_no_more_is_done_at_once_than_may_be() -> None:
    models = [replace(RED, name=name) for name in "abcdef"]
    bounds = Bounds(fetches=2, loads=1)
    assert steps(
        seen(*models, bounds=bounds, doing={"a": Action(verb=Verb.FETCH, name="a", assignment=models[0])})
    ) == [("fetch", "b")]
    assert steps(seen(*models, stored=models, bounds=bounds)) == [("load", "a")]


def test_first_models_have_the_memory_and_what_lacks_it_stays_on_disk() -> None:
    bounds = Bounds(memory_bytes=60)
    both = seen(RED, BLUE, stored=[RED, BLUE], served=served(RED), bounds=bounds)
    assert steps(both) == []
    assert [(told.name, told.state) for told in decide(both).told] == [("red", State.LOADED), ("blue", State.UNFIT)]
    turned = seen(BLUE, RED, stored=[RED, BLUE], served=served(RED), bounds=bounds, memory={"red": 40})
    assert steps(turned) == [("unload", "red")]
    assert steps(replace(turned, served={})) == [("load", "blue")]


def test_new_version_waits_for_the_old_one_to_go_only_where_both_have_no_room() -> None:
    changed = seen(NEW_RED, stored=[NEW_RED], served=served(RED), memory={"red": 40})
    assert steps(replace(changed, bounds=Bounds(memory_bytes=80))) == [("load", "red")]
    assert steps(replace(changed, bounds=Bounds(memory_bytes=79))) == [("unload", "red")]


def test_new_words_about_what_a_model_needs_count_at_once() -> None:
    bounds = Bounds(memory_bytes=60)
    small = replace(RED, memory_bytes=10)
    there = seen(small, BLUE, stored=[RED, BLUE], served=served(RED), memory={"red": 40}, bounds=bounds)
    assert steps(there) == [("load", "blue")]
    loading = seen(NEW_RED, BLUE, stored=[NEW_RED, BLUE], bounds=Bounds(memory_bytes=90))
    old = {"red": Action(verb=Verb.LOAD, name="red", assignment=replace(RED, memory_bytes=50))}
    assert steps(replace(loading, doing=old)) == []


def test_failure_rests_and_is_told_and_another_artifact_begins_at_once() -> None:
    back = Setback(tag=RED.tag, reason="no such bucket", attempts=3, retry_at=10.0)
    resting = seen(RED, setbacks={"red": back}, now=9.0)
    decision = decide(resting)
    assert (decision.actions, decision.look_at) == ((), 10.0)
    assert [(told.state, told.reason) for told in decision.told] == [(State.FAILED, "no such bucket")]
    assert steps(replace(resting, now=10.0)) == [("fetch", "red")]
    assert steps(replace(resting, assigned=(NEW_RED,))) == [("fetch", "red")]


models = st.builds(
    Assignment,
    name=st.sampled_from("abcde"),
    uri=st.sampled_from(["u1", "u2"]),
    memory_bytes=st.integers(0, 50),
)
assigned = st.lists(models, max_size=5, unique_by=lambda one: one.name).map(tuple)


class World:
    """What the actions act on; some fail, and all take a while."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.assigned: tuple[Assignment, ...] = ()
        self.stored: dict[str, str] = {}
        self.loaded: dict[str, Assignment] = {}
        self.memory: dict[str, int] = {}
        self.doing: dict[str, Action] = {}
        self.setbacks: dict[str, Setback] = {}
        self.now = 0.0

    def snapshot(self) -> Snapshot:
        return Snapshot(
            assigned=self.assigned,
            stored=self.stored,
            served=served_of(self.loaded),
            doing=self.doing,
            setbacks=self.setbacks,
            memory=self.memory,
            bounds=self.bounds,
            now=self.now,
        )

    def begin(self) -> None:
        actions = decide(self.snapshot()).actions
        for action in actions:
            assert action.name not in self.doing
            self.doing[action.name] = action
        if self.bounds.memory_bytes and any(action.verb is Verb.LOAD for action in actions):
            loading = [action.assignment for action in self.doing.values() if action.verb is Verb.LOAD]
            held = [*self.loaded.values(), *(one for one in loading if one is not None)]
            assert sum(self.needed(one) for one in held) <= self.bounds.memory_bytes
        assert sum(action.verb is Verb.FETCH for action in self.doing.values()) <= self.bounds.fetches
        assert sum(action.verb is Verb.LOAD for action in self.doing.values()) <= self.bounds.loads

    def needed(self, one: Assignment) -> int:
        """What is said now of an artifact, if anything is, else what was said when it was loaded."""
        return next((said for said in self.assigned if (said.name, said.tag) == (one.name, one.tag)), one).memory_bytes

    def end(self, name: str, *, works: bool) -> None:
        action = self.doing.pop(name)
        one = action.assignment
        if not works:
            tag = one.tag if one is not None else ""
            self.setbacks[name] = Setback(tag=tag, reason="no", attempts=1, retry_at=self.now + 5)
        elif action.verb is Verb.FETCH and one is not None:
            self.stored[name] = one.uri
        elif action.verb is Verb.LOAD and one is not None:
            self.loaded[name], self.memory[name] = one, one.memory_bytes
        elif action.verb is Verb.UNLOAD:
            del self.loaded[name], self.memory[name]
        else:
            del self.stored[name]


def served_of(loaded: dict[str, Assignment]) -> dict[str, Served]:
    return served(*loaded.values())


@given(
    st.lists(
        st.tuples(assigned, st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=12)), min_size=1
    ),
    st.builds(Bounds, fetches=st.integers(1, 3), loads=st.integers(1, 2), memory_bytes=st.sampled_from([0, 60, 120])),
)
def test_whatever_is_assigned_and_fails_it_ends_with_what_fits_and_nothing_else(
    history: list[tuple[tuple[Assignment, ...], list[tuple[str, bool]]]], bounds: Bounds
) -> None:
    world = World(bounds)
    for wanted, ends in history:
        world.assigned = wanted
        for name, works in ends:
            world.begin()
            world.now += 1
            if name in world.doing:
                world.end(name, works=works)
    for _ in range(100):
        world.begin()
        world.now += 10
        for name in list(world.doing):
            world.end(name, works=True)
    fit, _ = fitting(world.assigned, bounds.memory_bytes)
    assert {name: (one.uri, one.framework) for name, one in world.loaded.items()} == {
        one.name: (one.uri, one.framework) for one in fit
    }
    assert world.stored.keys() <= {one.name for one in world.assigned}
    assert {told.state for told in decide(world.snapshot()).told} <= {State.LOADED, State.UNFIT}
