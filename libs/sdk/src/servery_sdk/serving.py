"""What a runtime's model must and may do. Small abilities are found by ``isinstance``."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata


class LoadError(ServeryError):
    """The artifact cannot be served. Says the file, what was expected and the cause's own words."""

    code = ErrorCode.NOT_READY


class InputError(ServeryError):
    """The request does not fit the model. Says the input's name and shape; becomes a 400."""

    code = ErrorCode.INVALID_ARGUMENT


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
class ClosableModel(Protocol):
    """A model that holds something to be given back."""

    def close(self) -> None:
        """Release it; called once after the last ``predict``."""


@runtime_checkable
class HoldingModel(Protocol):
    """A model that finds out when it loads what it is: its abilities are those of what it holds."""

    @property
    def held(self) -> object:
        """What was loaded."""


def held(model: object) -> object:
    """Return what has the abilities of ``model``: itself, or what it holds."""
    return model.held if isinstance(model, HoldingModel) else model
