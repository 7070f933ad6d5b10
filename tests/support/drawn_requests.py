"""Requests of any shape, for properties of codecs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from servery_sdk.protocol import Datatype, InferRequest, Tensor

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
SHAPES = npst.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, name: str, *, finite: bool = False, json: bool = False) -> Tensor:
    datatype = draw(st.sampled_from(sorted(Datatype)))
    if json and datatype in {Datatype.FP16, Datatype.BF16}:
        datatype = Datatype.FP32
    shape = draw(SHAPES)
    if datatype is Datatype.BYTES:
        text = st.text(st.characters(codec="utf-8"), max_size=5).map(str.encode)
        data = np.empty(shape, dtype=object)
        data[...] = draw(npst.arrays(object, shape, elements=text if json else st.binary(max_size=5)))
    elif datatype is Datatype.BF16:
        data = draw(npst.arrays("<f4", shape, elements=st.floats(-8, 8, width=16))).astype(datatype.dtype)
    elif np.dtype(datatype.dtype).kind == "f" and finite:
        width = datatype.dtype.itemsize * 8
        data = draw(npst.arrays(datatype.dtype, shape, elements=st.floats(-1e3, 1e3, width=width)))
    else:
        data = draw(npst.arrays(datatype.dtype, shape))
    return Tensor(name=name, data=data, datatype=datatype)


@st.composite
def requests(draw: st.DrawFn, **options: bool) -> InferRequest:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    parameters = draw(st.dictionaries(NAMES, st.booleans() | st.integers(-(2**53), 2**53) | st.text("ab"), max_size=2))
    parameters = {name: value for name, value in parameters.items() if not name.startswith("binary")}
    return InferRequest(
        model="m",
        id=draw(st.none() | NAMES),
        inputs=tuple(draw(tensors(name, **options)) for name in names),
        parameters=parameters,
    )


def assert_same(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    assert [(t.name, t.datatype, t.data.shape, t.parameters) for t in found] == [
        (t.name, t.datatype, t.data.shape, t.parameters) for t in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        if one.datatype is Datatype.BYTES:
            assert one.data.tolist() == other.data.tolist()
        else:
            assert one.data.tobytes() == np.ascontiguousarray(other.data, one.datatype.dtype).tobytes()
