"""Arrays that frameworks hand out, as the tensors that protocols send."""

from __future__ import annotations

from typing import Any

import numpy as np
from servery_sdk.protocol import Datatype, Tensor
from servery_sdk.protocol.elements import as_bytes, as_text


def tensor(name: str, data: Any) -> Tensor:
    """Return an array as a tensor; texts become bytes."""
    if data.dtype.kind in "USO":
        data = mapped(as_bytes, data)
    return Tensor(name=name, data=data, datatype=Datatype.of(data))


def texts(data: Any) -> Any:
    """Return an array of bytes as one of texts."""
    return mapped(as_text, data)


def mapped(element: Any, data: Any) -> Any:
    """Return ``element`` of each element, as an array of objects of the same shape."""
    made = np.empty(data.shape, dtype=object)
    # tolist, since an array of fixed width hands out numpy's own scalars.
    made.ravel()[:] = [element(one) for one in data.ravel().tolist()]
    return made
