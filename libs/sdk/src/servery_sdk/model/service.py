"""The internal InferenceService: what a dialect's manifest means, with no dialect left in it.

``Dialect.parse`` makes it, ``planning.plan`` reads it. Parts that Kubernetes owns (PodSpec, Container) stay JSON.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.manifests import Manifest, ObjectRef


class ComponentKind(enum.StrEnum):
    """What a component does to a request."""

    PREDICTOR = "predictor"
    """Computes the answer; where prefill and decoding are apart, the one that prefills."""
    DECODER = "decoder"
    """Generates tokens behind a predictor that only prefills."""
    ROUTER = "router"
    """Spreads requests over the service's own pods."""
    TRANSFORMER = "transformer"
    EXPLAINER = "explainer"


class Protocol(enum.StrEnum):
    """What a server speaks. The order of definition is KServe's order of preference."""

    V1 = "v1"
    V2 = "v2"
    GRPC_V1 = "grpc-v1"
    GRPC_V2 = "grpc-v2"
    OPENAI = "openai"


class AutoscalerClass(enum.StrEnum):
    """Who sets ``replicas``: an HPA or KEDA that we make, something outside, or nobody."""

    HPA = "hpa"
    KEDA = "keda"
    EXTERNAL = "external"
    NONE = "none"


class ScaleMetric(enum.StrEnum):
    """What the autoscaler looks at."""

    CPU = "cpu"
    MEMORY = "memory"
    CONCURRENCY = "concurrency"
    RPS = "rps"


class LogMode(enum.StrEnum):
    """Which payloads are logged."""

    ALL = "all"
    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFormat:
    """``sklearn``, version ``1``. A version of None matches any."""

    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f'"{self.name}"' if self.version is None else f'"{self.name}" version "{self.version}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraits:
    """What else a runtime may ask of a model, besides its format.

    Attributes:
        architecture: Such as ``LlamaForCausalLM``.
        framework: Such as ``transformers`` version ``4.51.0``.
        quantization: Such as ``fp8``.
        parameters: How many; None where nobody says.
        accelerators: Classes of which the runtime must serve all.
    """

    architecture: str | None = None
    framework: ModelFormat | None = None
    quantization: str | None = None
    parameters: int | None = None
    accelerators: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageReference:
    """Where a credential entry, rather than a URI, says where the model is (KServe's ``storage:``).

    Attributes:
        path: Path inside the bucket or file system of the entry.
        key: Entry of the storage secret; None for the default entry.
        parameters: Overrides of the entry's fields, such as ``bucket``.
    """

    path: str = ""
    key: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model's files: from where, to where.

    Attributes:
        uri: ``s3://bucket/prefix``, or None when ``storage`` says it.
        storage: The credential entry that completes or replaces ``uri``.
        mount_path: Absolute directory in the container.
        field_path: The manifest's field, for errors.
        env: ``corev1.EnvVar`` entries of what fetches it, such as a token out of a secret.
    """

    uri: str | None
    storage: StorageReference | None = None
    mount_path: str = "/mnt/models"
    field_path: str = ""
    env: tuple[Manifest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas, and what moves the number.

    Attributes:
        target: In the metric's own unit: % (cpu), MiB (memory), requests in flight (concurrency) or per second (rps).
        metrics: ``autoscaling/v2`` style metric entries where the manifest spells them out; they win over ``metric``.
        behavior: ``autoscaling/v2`` behavior, passed through.
        initial_replicas: How many to start with where the engine can say so; the autoscaler takes over from there.
    """

    min_replicas: int = 1
    max_replicas: int | None = None
    initial_replicas: int | None = None
    autoscaler_class: AutoscalerClass = AutoscalerClass.HPA
    metric: ScaleMetric | None = None
    target: int | None = None
    metrics: tuple[Manifest, ...] = ()
    behavior: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """Requests gathered into one call; None leaves a bound to the default of who gathers.

    Attributes:
        is_in_front: By an agent in front of the server, whatever the server is: KServe's answers say which batch they
            were in. Otherwise by the server, where it can.
    """

    max_batch_rows: int | None = None
    max_latency_seconds: float | None = None
    timeout_seconds: float | None = None
    is_in_front: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadLogging:
    """Requests and responses, sent to a sink.

    Attributes:
        url: None for where the installation sends them.
        metadata_headers: Of the request, logged with both.
        metadata_annotations: Names of the service's annotations that are logged.
        marshaller_url: Who writes the objects of a store; None for the agent itself.
        batch_size: Events of an object; None for one.
        batch_interval: How long an event waits for others, as Go spells durations.
        store_path: Of the objects, below what the URL and the service's names say.
        store_format: Of the objects; None for JSON.
        account: Service account whose secrets open the store; None for the pod's, which also does where this has none.
    """

    url: str | None = None
    mode: LogMode = LogMode.ALL
    metadata_headers: tuple[str, ...] = ()
    metadata_annotations: tuple[str, ...] = ()
    marshaller_url: str | None = None
    batch_size: int | None = None
    batch_interval: str | None = None
    store_path: str | None = None
    store_format: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRequest:
    """What the manifest says about the runtime that it wants.

    Attributes:
        name: An explicit runtime; selection by format is then off.
        format: The model's format; None only together with ``name``.
        protocol: None when the manifest leaves it to the runtime.
        default_protocol: What a runtime that is not named must speak then; None for any.
        version: Image tag of the runtime, where the manifest sets it.
        field_path: The manifest's field, for errors.
    """

    name: str | None = None
    format: ModelFormat | None = None
    protocol: Protocol | None = None
    version: str | None = None
    field_path: str = ""
    traits: ModelTraits = ModelTraits()
    default_protocol: Protocol | None = Protocol.V1


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The pods that a component's own pod leads: a model on several machines.

    Attributes:
        count: Pods beside the leader.
        container: Overlay over the runtime's worker container.
        pod: PodSpec JSON, merged over the runtime's worker pod.
    """

    count: int
    container: Manifest = field(default_factory=dict)
    pod: Manifest = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A new revision beside the one that served last.

    Attributes:
        percent: Of the component's requests, for the newest revision.
        stable_revision: The revision that has the rest; None before anything was rolled out.
        tagged: The newest revision has an address of its own as well.
    """

    percent: int
    stable_revision: str | None = None
    tagged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A Service in front of the whole inference service, beside those of its components.

    Attributes:
        name: Of the Service.
        selector: Labels of the pods that answer.
        labels: Of the Service itself.
        type: ``corev1`` ServiceType.
    """

    name: str
    selector: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    type: str = "ClusterIP"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldModel:
    """One of the models that a component holds beside others, and that come and go while it runs.

    Attributes:
        ref: Its own object; its name is the model's in URLs.
        framework: Its format.
        memory: What it needs of the component's memory, as its manifest writes it; a quantity.
        created: RFC 3339; the first have the memory, where it is not enough for all.
    """

    ref: ObjectRef
    uri: str
    framework: str
    memory: str
    created: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One server of the service.

    Attributes:
        name: The dialect's own word for it, unique in the service: ``predictor``, ``engine``, ``model-a``.
        object_name: Name of everything made for it, such as ``iris-predictor``; at most 63 characters.
        object_names: By kind, the names of those objects whose names the dialect spells in another way.
        runtime: None for a custom component, whose ``pod`` then holds the main container.
        main_container: Name of the container that answers requests.
        container: Overlay over the runtime's main container (``corev1.Container`` JSON, no name).
        pod: PodSpec JSON, merged over the runtime's.
        labels: For every object of the component, the dialect's own included.
        annotations: For the pod template, the dialect's own included.
        selector: Labels that tell this component's pods from all others; a subset of the pods' labels.
        env: Variables that the dialect promises to every main container.
        flags: What the main container is told behind its own arguments, of what they do not say: ``predictor_host``.
        accelerators_env: A variable that holds how many GPUs the pod and its workers have together.
        default_resources: What the main container of each pod asks for of what neither the runtime's nor its own names.
        replaced: Lists that come in the runtime's place, where they would join them: ``args``, ``tolerations``.
        timeout_seconds: For one request; None for the installation's default.
        strategy: ``apps/v1`` DeploymentStrategy.
        traffic_percent: Share of the service's requests that come to this component first; those of a service sum to
            100.
        exposed_as: Numbers of its Service's ports, in the order of the container's; the others keep the container's.
        spoken_ports: Those container ports that the server listens on by itself, whether or not anybody asks for them.
        workers: None for a component of one pod a replica.
        canary: None where the newest revision has all requests.
        disruption_budget: ``minAvailable`` or ``maxUnavailable``; None for one pod at a time where there are several.
        reads_pods: It looks at the pods of its namespace, as a router that finds its servers does.
        merges_metrics: One page tells the metrics of everything in its pod.
        held: Models that come and go while it runs, oldest first; None where it has its artifacts, and nothing else.
    """

    kind: ComponentKind
    name: str
    object_name: str
    main_container: str
    runtime: RuntimeRequest | None = None
    artifacts: tuple[Artifact, ...] = ()
    container: Manifest = field(default_factory=dict)
    pod: Manifest = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    scaling: Scaling = Scaling()
    batching: Batching | None = None
    logging: PayloadLogging | None = None
    timeout_seconds: int | None = None
    container_concurrency: int | None = None
    strategy: Manifest | None = None
    field_path: str = ""
    object_names: Mapping[str, str] = field(default_factory=dict)
    traffic_percent: int = 100
    exposed_as: tuple[int, ...] = (80,)
    spoken_ports: frozenset[int] = frozenset()
    workers: Workers | None = None
    canary: Canary | None = None
    disruption_budget: Manifest | None = None
    reads_pods: bool = False
    accelerators_env: str | None = None
    default_resources: Mapping[str, str] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    merges_metrics: bool = False
    held: tuple[HeldModel, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceService:
    """What the user wants served.

    Attributes:
        ref: The manifest's object.
        metadata: Its ObjectMeta (name, namespace, labels, annotations, uid, generation): placeholders read it.
        mode: The deployment mode that the manifest asks for; None for the installation's default.
        components: A predictor first.
        owned_labels: Select everything that was made for this service and nothing else.
        own: Keys of labels and annotations, the service's and its components', that are words of the dialect: what it
            adds by itself, and settings whose meaning is in this value.
        entry: A Service of the whole; None where the components' own are all.
        stopped: The user wants no pods for now.
        cluster_local: The user wants no route from outside.
        defaults: ``field path: value and where it comes from``, for ``servery explain``.
        warnings: Accepted, but worth a word at admission.
    """

    ref: ObjectRef
    metadata: Manifest
    components: tuple[Component, ...]
    owned_labels: Mapping[str, str]
    mode: str | None = None
    entry: Entry | None = None
    stopped: bool = False
    cluster_local: bool = False
    own: frozenset[str] = frozenset()
    defaults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def predictor(self) -> Component:
        """The component that holds the model."""
        return self.components[0]
