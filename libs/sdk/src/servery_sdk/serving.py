"""What a runtime's model must and may do. Small abilities are found by ``isinstance``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.routes import Host, Listener


class LoadError(ServeryError):
    """The artifact cannot be served. Says the file, what was expected and the cause's own words."""

    code = ErrorCode.NOT_READY


class InputError(ServeryError):
    """The request does not fit the model. Says the input's name and shape; becomes a 400."""

    code = ErrorCode.INVALID_ARGUMENT


class Unimplemented(ServeryError):
    """The model has not the ability that was asked for."""

    code = ErrorCode.UNIMPLEMENTED


@runtime_checkable
class Model(Protocol):
    """A loaded model. Called off the event loop, one call at a time."""

    def load(self, artifact: Path) -> None:
        """Read the model from the directory ``artifact``.

        Raises:
            LoadError: It cannot be served.
        """

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer one request, which may be several users' merged along axis 0.

        Raises:
            InputError: The request does not fit the model.
        """


@runtime_checkable
class DescribedModel(Protocol):
    """A model that knows its inputs and outputs."""

    def metadata(self) -> ModelMetadata:
        """Return what the fitted model says of itself; called after ``load``."""


@runtime_checkable
class UnbatchedModel(Protocol):
    """A model whose requests must not be merged."""

    batchable: bool
    """False: axis 0 is not a batch."""


@runtime_checkable
class ThreadedModel(Protocol):
    """A model whose framework can be told how many threads a call may use."""

    threads: int
    """Set before ``load``; 1 unless the server is told otherwise."""


@runtime_checkable
class NamedModel(Protocol):
    """A model that tells clients its own name."""

    served_name: str
    """Set before ``load``: the name under which the server knows it."""


@runtime_checkable
class ForkableModel(Protocol):
    """A model that may be loaded before worker processes part, and then shares its memory between them.

    Not one that starts threads or opens devices when it loads: those do not come along.
    """

    forkable: bool
    """True: what ``load`` has made answers in a forked process."""


@runtime_checkable
class SequencedModel(Protocol):
    """A model whose answers depend on what it was asked before, and so on the process that was asked."""

    is_sequenced: bool
    """True: several workers, each with a state of its own, would answer wrongly, and refuse to serve it."""


@runtime_checkable
class ClosableModel(Protocol):
    """A model that holds something to be given back."""

    def close(self) -> None:
        """Release it; called once after the last ``predict``."""


@runtime_checkable
class Explainer(Protocol):
    """A model that can say what its answers come from."""

    def explain(self, request: InferRequest) -> InferResponse:
        """Return attributions, such as a number for each pixel; called alone, like ``predict`` one call at a time.

        Raises:
            InputError: The request does not fit the model.
            Unimplemented: This one cannot, although others of its class can.
        """


@runtime_checkable
class ModelStore(Protocol):
    """A class of models whose artifact may bring several of them, under names of their own."""

    @classmethod
    def stored(cls, artifact: Path, **options: Any) -> Mapping[str, Callable[[], Model]]:
        """Return what makes each model, by name; each is then given ``artifact`` to load itself from.

        Empty where the artifact is one model, which is served under the name that the server was given.

        Args:
            artifact: Its directory.
            options: The runtime's own.

        Raises:
            LoadError: The artifact cannot be read.
        """


@runtime_checkable
class ModelProgram(Protocol):
    """A class of models whose artifact may be a program: which models it makes, only running it tells."""

    @classmethod
    def program(cls, artifact: Path, name: str, **options: Any) -> Callable[[], Mapping[str, Callable[[], Any]]] | None:
        """Return what runs the program of ``artifact`` and returns what makes each of its models, by name.

        None where it is none. Nothing is run before what is returned is called, once and in a thread; that may raise
        LoadError.

        Args:
            artifact: Its directory.
            name: That the server was given.
            options: The runtime's own.
        """


@runtime_checkable
class ReservedStore(Protocol):
    """A store that holds more models than it serves by itself."""

    @classmethod
    def reserved(cls, artifact: Path) -> Mapping[str, Callable[[], Model]]:
        """Return what makes each model that is served only once somebody asks for it to be loaded, by name.

        Raises:
            LoadError: The artifact cannot be read.
        """


@runtime_checkable
class RoutedModel(Protocol):
    """A class of models whose users know paths, or ports, of another server's."""

    @classmethod
    def listeners(cls, artifact: Path, host: Host) -> Sequence[Listener]:
        """Return those paths, and where they are answered; called once, before anything is loaded.

        Raises:
            LoadError: The artifact says where, but cannot be read.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """How a model wants to be called.

    Attributes:
        max_rows: Upper bound on the rows of one call; None for the server's.
        preferred_rows: A call of so many rows goes at once, and a larger one is cut down to the largest of them.
        max_delay_seconds: How long a request may wait for a call of preferred size; 0 waits only while the model computes.
        max_requests: That may wait; None for the server's.
        parallel_calls: That may run at once; above 1, the model takes calls from several threads.
        together: A call of a model that gathers takes requests whatever their shapes and parameters, each as one row.
        waits: A call waits for work that is done elsewhere, on the event loop perhaps: it is never made there.
    """

    max_rows: int | None = None
    preferred_rows: tuple[int, ...] = ()
    max_delay_seconds: float = 0.0
    max_requests: int | None = None
    parallel_calls: int = 1
    together: bool = False
    waits: bool = False


@runtime_checkable
class ScheduledModel(Protocol):
    """A model with wishes of its own for the queue in front of it."""

    def scheduling(self) -> Scheduling:
        """Return them; called once, after ``load``."""


@runtime_checkable
class GatheringModel(Protocol):
    """A model that takes the requests of one call as they are, instead of merged along axis 0."""

    gathers: bool
    """False: this one takes them merged, although others of its class do not."""

    def predict_many(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ServeryError]:
        """Answer each request, in order: an error is the answer of one, and what is raised is the answer of all."""


@runtime_checkable
class RecallableModel(Protocol):
    """A gathering model that can stop what it was asked for."""

    def recall(self, request: InferRequest) -> None:
        """Learn that nobody waits any more for the answer to one of the requests that ``predict_many`` has now.

        Called on the event loop; ``predict_many`` returns an answer for it none the less, which nobody reads.
        """


Send: TypeAlias = Callable[[InferResponse | ServeryError | None, bool], None]
"""Takes a response, or what is wrong, and whether it is the last one; None where only that is told."""


@runtime_checkable
class DecoupledModel(Protocol):
    """A model that may answer a request with any number of responses, each when it is there."""

    is_decoupled: bool
    """False: this one gives one response to each request, although others of its class do not."""

    def stream(self, request: InferRequest, send: Send) -> None:
        """Give every response to ``send``, from any thread, and return after the last one.

        Raises:
            ServeryError: There will be no more.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a client loads a model with, in place of what its artifact has.

    Attributes:
        configuration: JSON, as the runtime's configurations are; None for the artifact's own.
        files: Contents by path below the model's directory; where there are any, the directory has these alone.
    """

    configuration: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


@runtime_checkable
class OverridableModel(Protocol):
    """A model that can be loaded with something else than its artifact."""

    def override(self, overrides: Overrides) -> None:
        """Take what ``load``, which comes next, is to use."""


@runtime_checkable
class ConfiguredModel(Protocol):
    """A model with a configuration that clients may read."""

    def configuration(self) -> Mapping[str, Json]:
        """Return what ``GET /v2/models/{m}/config`` answers; called after ``load``."""


@runtime_checkable
class HoldingModel(Protocol):
    """A model that finds out when it loads what it is: its abilities are those of what it holds."""

    @property
    def held(self) -> object:
        """What was loaded."""


def held(model: object) -> object:
    """Return what has the abilities of ``model``: itself, or what it holds."""
    return model.held if isinstance(model, HoldingModel) else model
