"""The deployment plan: every decision taken, no engine named. A mode renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.manifests import Kind, Manifest, ObjectRef
from servery_sdk.model.catalog import Capability
from servery_sdk.model.runtime import Runtime
from servery_sdk.model.service import Batching, Canary, ComponentKind, HeldModel, Protocol, Scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A runtime that was not chosen, and why: ``triton (format)``."""

    runtime: str
    reason: str

    def __str__(self) -> str:
        return f"{self.runtime} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The runtime that was chosen, why, and why not the others."""

    runtime: Runtime
    protocol: Protocol | None
    reason: str
    rejected: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of the component's Service; ``asked`` where the manifest names it, not only its server's runtime."""

    name: str
    port: int
    target_port: int
    app_protocol: str | None = None
    asked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPods:
    """The pods that each replica of a workload leads: ``count`` of the complete PodSpec ``pod``.

    ``labels`` lack those that select the leader, which alone answers requests.
    """

    count: int
    pod: Manifest
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnedAway:
    """A held model that its component does not get, and why; ``condition`` is KServe's word for what it fails."""

    model: HeldModel
    condition: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The models that a workload's pods hold.

    Attributes:
        config_map: Name of the object that says them to the pods.
        assigned: Those that they get, in the order in which they have the memory.
        memory_bytes: Of all together; 0 for any.
    """

    config_map: str
    assigned: tuple[HeldModel, ...] = ()
    turned_away: tuple[TurnedAway, ...] = ()
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One component, decided down to its pod.

    Attributes:
        component: The dialect's own word for it; conditions and status speak of it by this name.
        pod_labels: A superset of ``selector``.
        pod: The complete PodSpec, storage initializer and sidecars included.
        replicas: Fixed number; None where an autoscaler owns it.
        scaling: What the autoscaler is told.
        ports: Of the Service, the one that users call first.
        strategy: ``apps/v1`` DeploymentStrategy.
        object_names: By kind, names that are not ``name``.
        workers: None for one pod a replica.
        traffic_percent: Of the service's requests, those that come to it first.
        concurrency: Requests at once in one pod; None for no bound.
        reads_pods: Its service account may look at the pods of the namespace.
        held: None where its pods hold what they are made with.
        merges_metrics: Name of the container that tells the metrics of all in the pod; a mode that adds a program to it
            names that one's port.
    """

    kind: ComponentKind
    component: str
    name: str
    selector: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    pod_labels: Mapping[str, str]
    pod_annotations: Mapping[str, str]
    pod: Manifest
    main_container: str
    model_name: str
    scaling: Scaling
    ports: tuple[Port, ...]
    strategy: Manifest
    replicas: int | None = None
    selection: Selection | None = None
    timeout_seconds: int | None = None
    object_names: Mapping[str, str] = field(default_factory=dict)
    workers: WorkerPods | None = None
    canary: Canary | None = None
    traffic_percent: int = 100
    concurrency: int | None = None
    batching: Batching | None = None
    disruption_budget: Manifest | None = None
    reads_pods: bool = False
    held: Held | None = None
    merges_metrics: str | None = None

    @property
    def condition(self) -> str:
        """The type of the condition that says whether it is ready: ``PredictorReady``."""
        return "".join(word[:1].upper() + word[1:] for word in self.component.split("-")) + "Ready"

    def name_of(self, kind: Kind) -> str:
        """Return the name of the workload's object of ``kind``."""
        return self.object_names.get(kind.kind, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A share of a route's traffic. Weights of one route sum to 100."""

    workload: str
    port: int
    weight: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanations:
    """Where requests for explanations go, ``/v1/models/{m}:explain`` and ``/v2/models/{m}/explain``.

    Attributes:
        models: The names that are asked for, of routers that match no patterns.
        timeout_seconds: For one request.
    """

    backend: Backend
    models: tuple[str, ...]
    timeout_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Hosts and where their requests go.

    Attributes:
        name: Of the route object.
        timeout_seconds: For one request.
        explanations: None where those requests go with all others.
    """

    name: str
    hosts: tuple[str, ...]
    backends: tuple[Backend, ...]
    timeout_seconds: int
    request_headers: Mapping[str, str] = field(default_factory=dict)
    explanations: Explanations | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryService:
    """A Service in front of the whole; ``ports`` are those of the workload that most requests come to first."""

    name: str
    selector: Mapping[str, str]
    ports: tuple[Port, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    type: str = "ClusterIP"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteParent:
    """What routes hang on: a Gateway, or an ingress class where there is no Gateway API."""

    gateway_namespace: str = ""
    gateway_name: str = ""
    ingress_class: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    """What is to run.

    Attributes:
        ref: The service's object; it owns all that is rendered.
        owner: Its owner reference, see ``manifests.owner_reference``.
        mode: The mode that renders it.
        owned_labels: On every rendered object.
        url: What users call from outside; None where no route is wanted.
        address: What users call from inside the cluster.
        cluster_domain: DNS domain of the cluster.
        entry: A Service of the whole, or None.
        capabilities: Of the cluster, so that a mode picks its objects (HTTPRoute or Ingress).
        explanations: One sentence a decision, for ``servery explain``.
    """

    ref: ObjectRef
    owner: Manifest
    generation: int
    mode: str
    owned_labels: Mapping[str, str]
    workloads: tuple[Workload, ...]
    entry: EntryService | None = None
    routes: tuple[Route, ...] = ()
    route_parent: RouteParent = RouteParent()
    url: str | None = None
    address: str | None = None
    cluster_domain: str = "cluster.local"
    capabilities: frozenset[Capability] = frozenset()
    stopped: bool = False
    explanations: tuple[str, ...] = ()
