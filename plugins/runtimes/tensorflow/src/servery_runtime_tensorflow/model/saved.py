"""A SavedModel's signatures as values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servery_sdk.protocol import Datatype
from servery_sdk.protocol.tfserving.tensors import DATATYPES
from servery_sdk.serving import LoadError
from servery_sdk.signatures import Signature, SignatureTensor

logger = logging.getLogger(__name__)

_OWN = "__saved_model_"
"""Begins the names of signatures that TensorFlow itself keeps in the file."""


class _Unservable(Exception):
    """A signature takes or gives what no protocol carries."""


def signatures(path: Path, saved: Mapping[str, Any]) -> Mapping[str, Signature]:
    """Return the signatures that can be served, by name, sorted.

    Args:
        path: Of the model, for messages.
        saved: TensorFlow's ``SignatureDef`` messages.

    Raises:
        LoadError: There is none; says why each was left out.
    """
    made: dict[str, Signature] = {}
    refused: list[str] = []
    for name in sorted(saved):
        if name.startswith(_OWN):
            continue
        try:
            made[name] = _signature(saved[name])
        except _Unservable as error:
            refused.append(f"{name!r}: {error}")
            logger.warning("signature left out", extra={"signature": name, "reason": str(error)})
    if not made:
        raise LoadError(
            f"{path}: holds no signature that can be served; {'; '.join(refused) or 'it has none'}; save the model with "
            "tf.saved_model.save(model, path, signatures=…) or Keras' model.export(path)"
        )
    return made


def is_batchable(signature: Signature) -> bool:
    """Return whether axis 0 of every input and output is free."""
    return all(put.shape and put.shape[0] == -1 for put in (*signature.inputs, *signature.outputs))


def _signature(saved: Any) -> Signature:
    if not saved.outputs:
        raise _Unservable("it has no outputs")
    return Signature(inputs=_tensors(saved.inputs), outputs=_tensors(saved.outputs), method=saved.method_name)


def _tensors(saved: Mapping[str, Any]) -> tuple[SignatureTensor, ...]:
    return tuple(_tensor(name, saved[name]) for name in sorted(saved))


def _tensor(name: str, info: Any) -> SignatureTensor:
    if info.WhichOneof("encoding") != "name":
        raise _Unservable(f"{name!r} is sparse or composite, which no protocol carries")
    datatype: Datatype | None = DATATYPES.get(info.dtype)
    if datatype is None:
        raise _Unservable(f"{name!r} is of TensorFlow's type {info.dtype}, which no protocol carries")
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return SignatureTensor(name=name, node=info.name, datatype=datatype, shape=shape)
