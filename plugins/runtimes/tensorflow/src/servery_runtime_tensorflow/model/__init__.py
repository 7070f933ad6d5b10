"""A SavedModel, run as TensorFlow Serving runs it: its signatures, fed and fetched through a session of its own."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from servery_sdk.fitting import Array, fitted, named
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.signatures import DEFAULT, PARAMETER, Signature, SignatureTensor

# Read when the library is loaded: errors only. Its remarks on the processor are no business of a server's log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from servery_runtime_tensorflow.model.saved import is_batchable, signatures
from servery_runtime_tensorflow.versions import Found, found

logger = logging.getLogger(__name__)
tf.get_logger().setLevel(logging.ERROR)

_WRONG_INPUT = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError)
_TAG = "serve"


class TensorFlowModel:
    """Loads the highest version in the artifact; requests name a signature, or get ``serving_default``.

    A session takes 90 microseconds a call where ``tf.saved_model.load``'s functions take 290, its threads are the model's
    own, and what is not asked for is not computed. Requests are merged where axis 0 of every input and output is free.
    """

    def __init__(self) -> None:
        self.threads = 1
        self.batchable = False
        self._session: Any = None
        self._version = ""
        self._signatures: Mapping[str, Signature] = {}
        self._calls: dict[str, Callable[..., list[Any]]] = {}

    def load(self, artifact: Path) -> None:
        """Read the model of the highest version below ``artifact``: a SavedModel, or Keras' file.

        Raises:
            LoadError: None, or one that TensorFlow does not take; says the path and the cause's own words.
        """
        where = found(artifact)
        try:
            if where.is_keras:
                with tempfile.TemporaryDirectory(prefix="servery-keras-") as folder:
                    _export(where.path, folder)
                    self._read(where, folder)
            else:
                self._read(where, str(where.path))
        except LoadError:
            self.close()
            raise
        except Exception as error:
            self.close()
            # Those of TensorFlow, protobuf, h5py and of the Python that a Keras file may bring have no common root.
            raise LoadError(
                f"{where.path}: cannot be loaded by TensorFlow {tf.__version__}: {type(error).__name__}: {error}"
            ) from error
        logger.info("model loaded", extra={"path": str(where.path), "signatures": sorted(self._signatures)})

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the outputs that ``request`` names, all where it names none or one that is not there.

        Raises:
            InputError: Names the input, its shape and what the signature takes.
        """
        name, signature = self._signature(request)
        feeds = _feeds(name, signature, request)
        wanted = [output for output in signature.outputs if output.name in request.outputs]
        is_part = 0 < len(wanted) == len(set(request.outputs)) < len(signature.outputs)
        outputs = tuple(wanted) if is_part else signature.outputs
        try:
            if is_part:
                nodes = {put.node: data for put, data in zip(signature.inputs, feeds, strict=True)}
                values = self._session.run([output.node for output in outputs], nodes)
            else:
                values = self._calls[name](*feeds)
        except _WRONG_INPUT as error:
            # The shapes passed the signature's own declaration; a node inside could not use them.
            shapes = {put.name: list(data.shape) for put, data in zip(signature.inputs, feeds, strict=True)}
            raise InputError(f"inputs {shapes}: {_cause(error.message)}") from error
        answered = tuple(_output(output, value) for output, value in zip(outputs, values, strict=True))
        return InferResponse(model=request.model, version=self._version, outputs=answered)

    def metadata(self) -> ModelMetadata:
        """Return what the default signature declares."""
        default = self._signatures.get(self._default or "")
        return ModelMetadata(
            name="",
            platform=f"tensorflow-{tf.__version__}",
            versions=(self._version,),
            inputs=tuple(put.metadata for put in default.inputs) if default else (),
            outputs=tuple(put.metadata for put in default.outputs) if default else (),
        )

    def signatures(self) -> Mapping[str, Signature]:
        """Return what the model declares, by name."""
        return self._signatures

    def close(self) -> None:
        """Give the session's threads and variables back."""
        if self._session is not None:
            self._session.close()

    @property
    def _default(self) -> str | None:
        if DEFAULT in self._signatures:
            return DEFAULT
        return next(iter(self._signatures)) if len(self._signatures) == 1 else None

    def _read(self, where: Found, directory: str) -> None:
        graph = tf.Graph()
        options = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=self.threads, inter_op_parallelism_threads=1, use_per_session_threads=True
        )
        options.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        with graph.as_default():
            saved = tf.compat.v1.saved_model.load(self._session, [_TAG], directory)
        self._signatures = signatures(where.path, saved.signature_def)
        self._version = where.version
        self.batchable = all(is_batchable(signature) for signature in self._signatures.values())
        self._calls = {
            name: self._session.make_callable(
                [output.node for output in signature.outputs], feed_list=[put.node for put in signature.inputs]
            )
            for name, signature in self._signatures.items()
        }

    def _signature(self, request: InferRequest) -> tuple[str, Signature]:
        asked = request.parameters.get(PARAMETER) or self._default
        signature = self._signatures.get(asked) if isinstance(asked, str) else None
        if signature is None:
            known = ", ".join(sorted(self._signatures))
            raise InputError(f"{PARAMETER} {asked!r}: the model has no such signature; it has: {known}")
        return str(asked), signature


def _export(file: Path, folder: str) -> None:
    """Write Keras' ``file`` as a SavedModel; code inside it is refused by Keras."""
    tf.keras.models.load_model(str(file), compile=False).export(folder, verbose=False)


def _feeds(name: str, signature: Signature, request: InferRequest) -> list[Array]:
    tensors = named(request.inputs, [put.name for put in signature.inputs], owner=f"signature {name!r}")
    return [_fed(put, tensor) for put, tensor in zip(signature.inputs, tensors, strict=True)]


def _fed(put: SignatureTensor, tensor: Tensor) -> Array:
    shape = None if put.shape is None else [None if length < 0 else length for length in put.shape]
    return fitted(tensor, put.datatype, shape, owner="the graph")


def _cause(message: str) -> str:
    # Where the graph is quoted before and behind it, what went wrong is the line before the first node in brackets.
    return message.partition("\n\t [[")[0].rpartition("\n")[2]


def _output(put: SignatureTensor, value: Any) -> Tensor:
    # A string without axes comes as bytes, which numpy would make an array of fixed width.
    data = np.asarray(value, dtype=object) if put.datatype is Datatype.BYTES else np.asarray(value)
    return Tensor(name=put.name, data=data, datatype=put.datatype)
