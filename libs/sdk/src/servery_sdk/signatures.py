"""Models of several named functions, as TensorFlow saves them: signatures, each with inputs and outputs of its own.

A request says which with the parameter ``signature_name``, whatever protocol it comes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from servery_sdk.protocol import Datatype, TensorMetadata

PARAMETER = "signature_name"
DEFAULT = "serving_default"
"""The signature of requests that name none. Source: tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY."""

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureTensor:
    """An input or an output of a signature.

    Attributes:
        node: The graph's own name of it, ``serving_default_x:0``.
        shape: -1 is any length; None, any shape.
    """

    name: str
    node: str
    datatype: Datatype
    shape: tuple[int, ...] | None

    @property
    def metadata(self) -> TensorMetadata:
        """What clients of the Open Inference Protocol are told of it, which knows no free rank."""
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=(-1,) if self.shape is None else self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A function of a model.

    Attributes:
        inputs: By name, sorted; likewise ``outputs``.
        method: What it is for: ``PREDICT``, ``CLASSIFY``, ``REGRESS`` or words of its author.
    """

    inputs: tuple[SignatureTensor, ...]
    outputs: tuple[SignatureTensor, ...]
    method: str = PREDICT


@runtime_checkable
class SignatureModel(Protocol):
    """A model that is asked in TensorFlow Serving's words: its v1 answers are TensorFlow Serving's."""

    def signatures(self) -> Mapping[str, Signature]:
        """Return its functions by name; called after ``load``."""
