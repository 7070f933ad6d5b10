"""What is observed, and the status computed from it. Computed whole every time, never accumulated."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model.service import ComponentKind


class ConditionStatus(enum.StrEnum):
    """Kubernetes' three values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition, positive polarity; ``last_transition_time`` (RFC 3339) moves only with ``status``."""

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    severity: str = ""
    last_transition_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a service: what ``kubectl describe`` lists. ``type`` is Normal or Warning."""

    type: str
    reason: str
    message: str


class ModelState(enum.StrEnum):
    """How far a model is."""

    PENDING = "Pending"
    STANDBY = "Standby"
    LOADING = "Loading"
    LOADED = "Loaded"
    FAILED_TO_LOAD = "FailedToLoad"


class TransitionStatus(enum.StrEnum):
    """Whether what serves is what is wanted."""

    UP_TO_DATE = "UpToDate"
    IN_PROGRESS = "InProgress"
    BLOCKED_BY_FAILED_LOAD = "BlockedByFailedLoad"
    INVALID_SPEC = "InvalidSpec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the model does not serve, in the failure's own words; ``location`` is a pod and container."""

    reason: str
    message: str
    location: str = ""
    exit_code: int | None = None
    time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """The model of the predictor."""

    transition: TransitionStatus
    target: ModelState
    active: ModelState | None = None
    failure: Failure | None = None
    total_copies: int = 0
    failed_copies: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """What an engine with revisions says of a component's.

    Attributes:
        rolled_out: The last one that had all requests and was ready.
        traffic: Entries of the engine's own form: revision, percent, tag, URL.
    """

    latest_created: str | None = None
    latest_ready: str | None = None
    rolled_out: str | None = None
    traffic: tuple[Manifest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What a mode reads from its engine's objects about one workload.

    Attributes:
        status: TRUE serves requests, FALSE cannot, UNKNOWN is on its way.
        url: Where the engine itself says that it answers, if it does.
        address: Likewise, inside the cluster.
        revisions: None where the engine has none; empty while it has not said yet.
        parts: What the engine's readiness is made of; their types are words such as ``Route``.
    """

    status: ConditionStatus
    reason: str = ""
    message: str = ""
    url: str | None = None
    address: str | None = None
    revisions: Revisions | None = None
    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStatus:
    """One component; ``url`` is set only once it is ready. ``name`` is the dialect's own word."""

    kind: ComponentKind
    name: str
    url: str | None = None
    address: str | None = None
    replicas: int = 0
    ready_replicas: int = 0
    traffic_percent: int = 0
    revisions: Revisions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """What ``Dialect.status`` writes in its own words.

    Attributes:
        conditions: One ``<Component>Ready`` for each component and ``<Component><Part>Ready`` for each of its parts,
            ``IngressReady``, ``Stopped``, ``Ready``.
        runtime: The chosen ServingRuntime's name and whether it is cluster-scoped; None for custom containers.
        previous: The status that the manifest carries now, in the dialect's own words: some of them remember.
    """

    observed_generation: int
    conditions: tuple[Condition, ...]
    mode: str | None = None
    url: str | None = None
    address: str | None = None
    components: tuple[ComponentStatus, ...] = ()
    model: ModelStatus | None = None
    runtime: str | None = None
    runtime_is_cluster_scoped: bool = False
    previous: Manifest = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The cluster's answer.

    Attributes:
        objects: Everything that carries the service's ``owned_labels``, pods excluded.
        pods: The pods of the service, any order.
        previous: The status that the manifest carries now, in the dialect's own words.
    """

    objects: Mapping[ObjectRef, Manifest] = field(default_factory=dict)
    pods: tuple[Manifest, ...] = ()
    previous: Manifest = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldReport:
    """How far a pod says that a model is; ``uri`` is where the artifact came from that this is about."""

    pod: str
    state: ModelState
    reason: str = ""
    uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStatus:
    """What a dialect writes of a model that a service holds beside others.

    Attributes:
        url: Where users ask it; None before it answers.
        address: Where the cluster asks it.
    """

    observed_generation: int
    conditions: tuple[Condition, ...]
    url: str | None = None
    address: str | None = None
