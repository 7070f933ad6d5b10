"""Which models are asked in TensorFlow Serving's words, and what is said of their versions."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import grpc
from servery_sdk.errors import ErrorCode
from servery_sdk.model import ModelState
from servery_sdk.protos.tensorflow_serving import apis_pb2 as pb
from servery_sdk.serving import Unimplemented
from servery_sdk.signatures import SignatureModel

from servery_predictor.errors import GRPC
from servery_predictor.repository import Entry, Repository

_STATES = {
    ModelState.PENDING: pb.ModelVersionStatus.START,
    ModelState.LOADING: pb.ModelVersionStatus.LOADING,
    ModelState.LOADED: pb.ModelVersionStatus.AVAILABLE,
}
"""All others are the end of a version."""


@dataclass(frozen=True, slots=True)
class VersionState:
    """How a model's one version is, in TensorFlow Serving's words.

    Attributes:
        version: 0 where the model was never loaded.
        message: Why it cannot be served.
    """

    version: int
    state: pb.ModelVersionStatus.State
    code: grpc.StatusCode
    message: str


def has_signatures(entry: Entry) -> bool:
    """Return whether a model is asked in TensorFlow Serving's words; False while it is not loaded."""
    return entry.model is not None and _is_signature_model(type(entry.model))


def signature_model(repository: Repository, name: str, version: str | None) -> SignatureModel:
    """Return a model that answers now.

    Raises:
        UnknownModel: No such model or version.
        ModelNotReady: It cannot answer; says why.
        Unimplemented: It has no signatures.
    """
    model = repository.ready(name, version).model
    if isinstance(model, SignatureModel):
        return model
    raise Unimplemented(f"model {name!r} has no signatures, which TensorFlow Serving's calls ask for")


def version_state(entry: Entry) -> VersionState:
    """Return the state of what ``entry`` serves."""
    versions = entry.metadata.versions if entry.metadata is not None else ()
    return VersionState(
        version=int(versions[-1]) if versions and versions[-1].isdigit() else 0,
        state=_STATES.get(entry.state, pb.ModelVersionStatus.END),
        code=GRPC[ErrorCode.NOT_READY] if entry.reason else grpc.StatusCode.OK,
        message=entry.reason,
    )


@functools.cache
def _is_signature_model(kind: type[object]) -> bool:
    # Asked for each request; a check against a protocol takes microseconds.
    return issubclass(kind, SignatureModel)
