from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from servery_sdk.fitting import cast, fitted
from servery_sdk.protocol import Datatype, Tensor
from servery_sdk.serving import InputError


def sent_as(sent: Any) -> Tensor:
    data = np.asarray(sent)
    return Tensor(name="x", data=data, datatype=Datatype.of(data))


@pytest.mark.parametrize(
    ("sent", "datatype", "wanted"),
    [
        ([7], Datatype.FP64, [7.0]),
        ([1.0], Datatype.INT32, [1]),
        ([1], Datatype.BOOL, [True]),
        (np.array([b"a"], dtype=object), Datatype.BYTES, [b"a"]),
    ],
)
def test_what_a_type_can_hold_is_cast_to_it(sent: Any, datatype: Datatype, wanted: list[Any]) -> None:
    found = cast(sent_as(sent), datatype, owner="it")
    assert (found.dtype, found.tolist()) == (datatype.dtype, wanted)


@pytest.mark.parametrize(
    ("sent", "datatype", "words"),
    [
        ([1.5], Datatype.INT32, r"input 'x' of shape \[1\] is FP64 and holds what INT32, which it takes, cannot"),
        ([1], Datatype.BYTES, r"input 'x' of shape \[1\] is INT64; it takes BYTES"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(sent: Any, datatype: Datatype, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cast(sent_as(sent), datatype, owner="it")


@pytest.mark.parametrize("shape", [None, (2,), (None,), ("rows",)])
def test_a_shape_that_is_free_or_the_same_fits(shape: Any) -> None:
    assert fitted(sent_as([1.0, 2.0]), Datatype.FP32, shape, owner="it").dtype == np.float32


@pytest.mark.parametrize("shape", [(), (3,), (None, 2)])
def test_another_shape_is_refused(shape: Any) -> None:
    with pytest.raises(InputError, match=r"input 'x' has shape \[2\]; it takes \["):
        fitted(sent_as([1.0, 2.0]), Datatype.FP64, shape, owner="it")
