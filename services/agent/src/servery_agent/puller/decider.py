"""What to do next for the models of a pod. Pure: what is there goes in, what is to be done and told comes out.

Each model goes its way alone: fetched, loaded, and, once it is no longer assigned, unloaded and let go.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from servery_agent.puller.assignments import Assignment


class Verb(enum.StrEnum):
    """What can be done for a model."""

    FETCH = "fetch"
    LOAD = "load"
    UNLOAD = "unload"
    RELEASE = "release"


class State(enum.StrEnum):
    """How far an assigned model is."""

    PENDING = "Pending"
    FETCHING = "Fetching"
    LOADING = "Loading"
    LOADED = "Loaded"
    FAILED = "Failed"
    UNFIT = "Unfit"


class ServedState(enum.StrEnum):
    """What the server says of a model that it knows."""

    PENDING = "pending"
    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model of the server; ``tag`` is of what answers, empty where nothing does."""

    state: ServedState
    tag: str = ""
    reason: str = ""

    @property
    def takes_memory(self) -> bool:
        """Whether it answers, or is about to."""
        return bool(self.tag) or self.state in {ServedState.LOADING, ServedState.LOADED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """The last thing that did not work for a model.

    Attributes:
        tag: Of the assignment; another one begins anew.
        retry_at: Monotonic seconds.
    """

    tag: str
    reason: str
    attempts: int
    retry_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do. ``assignment`` is what to fetch or load."""

    verb: Verb
    name: str
    assignment: Assignment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How far a model is, for who assigned it; ``uri`` is where the artifact came from that this is about."""

    name: str
    state: State
    reason: str = ""
    uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may be done at once.

    Attributes:
        fetches: Models fetched at a time.
        loads: Models loaded at a time.
        memory_bytes: Of all models together; 0 is no bound.
    """

    fetches: int = 4
    loads: int = 2
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that decides.

    Attributes:
        assigned: The first have the memory, where it is not enough for all; None before anybody has said.
        stored: URIs of what the storage daemon holds whole, by name; None while it has not been asked.
        served: What the server says, by name; None while it is not there.
        doing: What is under way, by name.
        memory: Bytes that were said of the models that were loaded, by name.
        now: Monotonic seconds.
    """

    assigned: tuple[Assignment, ...] | None
    stored: Mapping[str, str] | None
    served: Mapping[str, Served] | None
    doing: Mapping[str, Action] = field(default_factory=dict)
    setbacks: Mapping[str, Setback] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    bounds: Bounds = Bounds()
    now: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, what to tell, and when to look again by the clock alone: None for never."""

    actions: tuple[Action, ...] = ()
    told: tuple[Told, ...] = ()
    look_at: float | None = None


def decide(seen: Snapshot) -> Decision:
    """Return what brings the pod closer to what is assigned. Once it is there, nothing."""
    if seen.assigned is None:
        return Decision()
    wanted, unfit = fitting(seen.assigned, seen.bounds.memory_bytes)
    steps = [*_leaving(seen, {assignment.name for assignment in wanted}), *_coming(seen, wanted)]
    waits = [back.retry_at for back in _waiting(seen, wanted)]
    told = tuple(_told(seen, assignment, is_unfit=assignment in unfit) for assignment in seen.assigned)
    return Decision(actions=tuple(steps), told=told, look_at=min(waits, default=None))


def fitting(assigned: Sequence[Assignment], memory_bytes: int) -> tuple[tuple[Assignment, ...], frozenset[Assignment]]:
    """Return those that have room together, the first first, and the others; a small one may fit where a large one did not."""
    wanted: list[Assignment] = []
    used = 0
    for assignment in assigned:
        if not memory_bytes or used + assignment.memory_bytes <= memory_bytes:
            wanted.append(assignment)
            used += assignment.memory_bytes
    return tuple(wanted), frozenset(assigned) - frozenset(wanted)


def _leaving(seen: Snapshot, wanted: set[str]) -> Iterator[Action]:
    served, stored = seen.served or {}, seen.stored or {}
    assigned = {assignment.name for assignment in seen.assigned or ()}
    for name in sorted(({*served, *stored}) - wanted - seen.doing.keys()):
        if _is_resting(seen, name, ""):
            continue
        if name in served:
            yield Action(verb=Verb.UNLOAD, name=name)
        elif seen.served is not None and name not in assigned:
            # A server that is away may hold its files still. What only lacks memory stays on disk.
            yield Action(verb=Verb.RELEASE, name=name)


def _coming(seen: Snapshot, wanted: Sequence[Assignment]) -> Iterator[Action]:
    if seen.stored is None:
        return
    fetches = seen.bounds.fetches - _under_way(seen, Verb.FETCH)
    loads = seen.bounds.loads - _under_way(seen, Verb.LOAD)
    free = _free_bytes(seen)
    spare = seen.bounds.memory_bytes - sum(assignment.memory_bytes for assignment in wanted)
    for one in wanted:
        if one.name in seen.doing or _is_resting(seen, one.name, one.tag):
            continue
        if seen.stored.get(one.name) != one.uri:
            if fetches > 0:
                fetches -= 1
                yield Action(verb=Verb.FETCH, name=one.name, assignment=one)
        elif seen.served is None or _is_served(seen, one) or _is_loading(seen, one.name):
            continue
        elif one.memory_bytes <= free:
            if loads > 0:
                loads -= 1
                free -= one.memory_bytes
                yield Action(verb=Verb.LOAD, name=one.name, assignment=one)
        elif one.name in seen.served and _held_bytes(seen, one.name) > spare:
            # There will never be room for the old one and the new: nothing answers in between.
            yield Action(verb=Verb.UNLOAD, name=one.name)


def _free_bytes(seen: Snapshot) -> float:
    """Return the bytes that no model has, nor will have by what is under way."""
    if not seen.bounds.memory_bytes:
        return float("inf")
    begun = [action.assignment for action in seen.doing.values() if action.verb is Verb.LOAD and action.assignment]
    # The server may say already that one answers, or is loading, that is under way here.
    coming = {one.name: one for one in begun if not _is_served(seen, one)}
    held = sum(
        _held_bytes(seen, name) for name, model in (seen.served or {}).items() if model.tag or name not in coming
    )
    return seen.bounds.memory_bytes - held - sum(_needed_bytes(seen, one) for one in coming.values())


def _held_bytes(seen: Snapshot, name: str) -> int:
    """Return what a model of the server has: as said when it was loaded, unless more recent words are of the same artifact."""
    there, said = (seen.served or {}).get(name), _said(seen, name)
    if there is None or not there.takes_memory:
        return 0
    if said is None or (there.tag != said.tag and name in seen.memory):
        return seen.memory.get(name, 0)
    return said.memory_bytes


def _needed_bytes(seen: Snapshot, begun: Assignment) -> int:
    said = _said(seen, begun.name)
    return (said if said is not None and said.tag == begun.tag else begun).memory_bytes


def _said(seen: Snapshot, name: str) -> Assignment | None:
    return next((one for one in seen.assigned or () if one.name == name), None)


def _under_way(seen: Snapshot, verb: Verb) -> int:
    return sum(action.verb is verb for action in seen.doing.values())


def _is_served(seen: Snapshot, one: Assignment) -> bool:
    there = (seen.served or {}).get(one.name)
    return there is not None and there.state is ServedState.LOADED and there.tag == one.tag


def _is_loading(seen: Snapshot, name: str) -> bool:
    there = (seen.served or {}).get(name)
    return there is not None and there.state is ServedState.LOADING


def _is_resting(seen: Snapshot, name: str, tag: str) -> bool:
    back = seen.setbacks.get(name)
    return back is not None and back.tag == tag and back.retry_at > seen.now


def _waiting(seen: Snapshot, wanted: Sequence[Assignment]) -> Iterator[Setback]:
    tags = {assignment.name: assignment.tag for assignment in wanted}
    for name, back in seen.setbacks.items():
        if back.tag == tags.get(name, "") and back.retry_at > seen.now:
            yield back


def _told(seen: Snapshot, one: Assignment, *, is_unfit: bool) -> Told:
    back, doing = seen.setbacks.get(one.name), seen.doing.get(one.name)
    state, reason = State.PENDING, ""
    if is_unfit:
        state = State.UNFIT
        reason = f"needs {one.memory_bytes} bytes, and the models before it leave too few of {seen.bounds.memory_bytes}"
    elif _is_served(seen, one):
        state = State.LOADED
    elif back is not None and back.tag == one.tag:
        state, reason = State.FAILED, back.reason
    elif doing is not None and doing.verb is Verb.FETCH:
        state = State.FETCHING
    elif (doing is not None and doing.verb is Verb.LOAD) or _is_loading(seen, one.name):
        state = State.LOADING
    elif seen.served is None:
        reason = "the server does not answer yet"
    return Told(name=one.name, state=state, reason=reason, uri=one.uri)
