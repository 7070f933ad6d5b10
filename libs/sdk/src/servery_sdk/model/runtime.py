"""A serving runtime: one statement that selection, rendering, the predictor's flags and local mode all read."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model.service import ComponentKind, ModelFormat, Protocol


class RuntimeScope(enum.StrEnum):
    """Where a runtime comes from; the order of definition is the order of preference."""

    NAMESPACE = "namespace"
    CLUSTER = "cluster"
    BUILT_IN = "built-in"


class VersionRule(enum.StrEnum):
    """How a runtime's version of a format answers a model's."""

    IF_ASKED = "IfAsked"
    """Equal where the model names one; a model without a version takes any."""
    EQUAL = "Equal"
    GREATER = "GreaterThan"
    GREATER_OR_EQUAL = "GreaterThanOrEqual"
    """The runtime's version is at least the model's. With this and the two above, one that is missing fits none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportedFormat:
    """A format that a runtime serves.

    Attributes:
        auto_select: May be chosen for a service that names no runtime.
        priority: Higher wins among runtimes of one scope; None loses to any number.
        weight: Multiplies ``priority``: a format that says more of the model counts for more.
        rule: How ``version`` answers the model's.
        framework: The framework that the model must be of; as ``architecture`` and ``quantization`` it is compared only
            where ``is_exact``.
        is_exact: What the model has and this does not name, or the other way round, does not fit.
    """

    name: str
    version: str | None = None
    auto_select: bool = True
    priority: int | None = None
    weight: int = 1
    rule: VersionRule = VersionRule.IF_ASKED
    framework: ModelFormat | None = None
    framework_rule: VersionRule = VersionRule.EQUAL
    architecture: str | None = None
    quantization: str | None = None
    is_exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRange:
    """How many parameters the models of a runtime have; None for no bound."""

    fewest: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a runtime runs for one kind of component.

    Attributes:
        container: The main container (``corev1.Container`` JSON), with its name where the dialect's is not to be used.
        pod: The rest of the PodSpec, other containers included.
        worker_container: Of the pods that the main one leads; None where a runtime has none.
        worker_pod: The rest of their PodSpec.
        worker_labels: Of those pods, beside ``labels``; likewise ``worker_annotations``.
        worker_count: Where the service says nothing.
    """

    container: Manifest = field(default_factory=dict)
    pod: Manifest = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    worker_container: Manifest | None = None
    worker_pod: Manifest = field(default_factory=dict)
    worker_labels: Mapping[str, str] = field(default_factory=dict)
    worker_annotations: Mapping[str, str] = field(default_factory=dict)
    worker_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """What a runtime's pod gets for some services only.

    Attributes:
        formats: Names of the formats that it is for; empty for any.
        protocols: Likewise; a service without a protocol has the runtime's.
        has_artifact: For services with a model to fetch, without one, or both (None).
        labels: For the pods, and for placeholders that name a label.
        env: For the main container; placeholders are filled.
        args: Behind those of the main container.
    """

    formats: frozenset[str] = frozenset()
    protocols: frozenset[Protocol] = frozenset()
    has_artifact: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()


class OptionKind(enum.StrEnum):
    """What the value of an option is."""

    TEXT = "text"
    INTEGER = "integer"
    SWITCH = "switch"
    """A flag without a value is true."""
    LEFTOVER = "leftover"
    """No flag: all those that nobody else knows, as they came; the artifact's own program reads them."""
    UNKNOWN = "unknown"
    """Likewise, but without flags of KServe's that change nothing here: the model reads them, and refuses what it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A setting of a runtime's own model: a flag of the predictor, a variable, and a keyword of the model class.

    Attributes:
        name: ``return_probabilities``; the flag may have dashes for the underscores.
        meaning: For ``--help``.
        choices: The only texts; empty for any.
        aliases: Other names of the flag.
        is_ignored: Accepted since manifests say it, and changes nothing; ``meaning`` says why.
    """

    name: str
    meaning: str
    kind: OptionKind = OptionKind.TEXT
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    is_ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A frozen descriptor. Importing one must not import the ML framework.

    Attributes:
        name: ``servery-sklearn``, or the name of the ServingRuntime object.
        aliases: Other names that mean this runtime, such as ``kserve-sklearnserver``.
        formats: Empty for runtimes that are only chosen by name.
        protocols: Empty means any.
        model_class: ``servery_runtime_sklearn.model:SKLearnModel``; None for a foreign server.
        options: What ``model_class`` takes as keywords; each has a default there.
        image: Of the main container.
        local_images: Repositories (no tag) of known images that this runtime stands in for on a machine without containers.
        local_flags: Flags of those images' programs that the predictor spells in another way, by theirs, both without
            dashes: ``rest_api_port`` is ``http_port``; empty for one that means nothing here.
            A program's own name in front of its flags is such a one.
        local_copies: Flags of those programs, without dashes, whose first value one of the predictor's flags gets, too:
            ``served-model-name`` has names of its own, and the first is the predictor's ``model_name``.
        local_programs: Last words of those images' commands: what a ``command`` has behind one is the program's arguments.
        stand_in: Import string of what says which other runtime serves in this one's place; it gets the flags as texts
            and the artifact, and returns a name or None. It does not import the framework.
        parts: What is run, by kind of component; a kind that is missing is not served.
        parameters: How large its models are.
        accelerators: Classes that it runs on; empty where it says nothing.
        scope: Where it comes from.
        adaptations: Applied in order where they fit the service.
        disabled: Present, but not to be used.
        multi_model: Serves several services from one pod; not chosen for a single model.
        multi_node: Has a worker spec.
        created: RFC 3339; the newest wins among equals.
    """

    name: str
    formats: tuple[SupportedFormat, ...] = ()
    protocols: frozenset[Protocol] = frozenset()
    aliases: tuple[str, ...] = ()
    model_class: str | None = None
    options: tuple[Option, ...] = ()
    image: str = ""
    local_images: tuple[str, ...] = ()
    local_flags: Mapping[str, str] = field(default_factory=dict)
    local_copies: Mapping[str, str] = field(default_factory=dict)
    local_programs: tuple[str, ...] = ()
    stand_in: str | None = None
    parts: Mapping[ComponentKind, Part] = field(default_factory=dict)
    parameters: ParameterRange = ParameterRange()
    accelerators: frozenset[str] = frozenset()
    scope: RuntimeScope = RuntimeScope.BUILT_IN
    ref: ObjectRef | None = None
    adaptations: tuple[Adaptation, ...] = ()
    disabled: bool = False
    multi_model: bool = False
    multi_node: bool = False
    created: str = ""
