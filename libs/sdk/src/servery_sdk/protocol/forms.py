"""v2 bodies that came before, but for their numbers: what stands around the numbers is not read again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import orjson

from servery_sdk.manifests import Json
from servery_sdk.protocol import batch, elements, v2
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.shared import NoRegions, Regions
from servery_sdk.protocol.tensors import InferRequest, Tensor

_DATA = b'"data":'
_STAND_IN = "\0data"
_MOST = 64
_MOST_BYTES = 1024
_NO_REGIONS = NoRegions()


@dataclass(frozen=True, slots=True)
class _Input:
    """What a form says of a tensor; ``size`` are its bytes behind the JSON, None where its data stand in it."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    parameters: Mapping[str, Json]
    size: int | None


@dataclass(frozen=True, slots=True)
class _Form:
    """A body without its numbers.

    Attributes:
        suffix: Of JSON, what stands behind the data of its one input.
        body_bytes: Of a body with binary tensors.
        likeness: As ``batch`` has it.
    """

    inputs: tuple[_Input, ...]
    outputs: tuple[str, ...]
    id: str | None
    parameters: Mapping[str, Json]
    likeness: Hashable
    suffix: bytes = b""
    body_bytes: int = 0


_SEEN = _Form((), (), None, {}, None)
"""In a form's place: it came once. Those with a request's own id never come again, and are not worth a look."""
_NONE = _Form((), (), None, {}, None)
"""Likewise: it came again, and has no form."""


class Forms:
    """Decodes the v2 bodies of one model as ``v2.decode_request`` does, those of a known form in less time.

    A client repeats all but the numbers. Decoding two rows of four so takes 2.1 microseconds instead of 3.6 as JSON,
    2.0 instead of 5.2 as bytes. Forgets all where there are more than 64, of 1024 bytes at most.
    """

    def __init__(self, *, model: str, version: str | None = None, regions: Regions = _NO_REGIONS) -> None:
        self._model, self._version, self._regions = model, version, regions
        self._known: dict[bytes, _Form] = {}

    def decode(self, body: bytes, json_length: int | None = None) -> InferRequest:
        """Return the request that ``body`` spells.

        Raises:
            RequestError: As ``v2.decode_request`` does.
            ServeryError: Likewise.
        """
        start = body.find(_DATA) + len(_DATA) if json_length is None else json_length
        prefix = body[:start]
        form = self._known.get(prefix)
        if form is not None and form.inputs:
            if json_length is not None:
                if form.body_bytes == len(body):
                    return self._from_bytes(form, memoryview(body)[start:])
            elif body.endswith(form.suffix):
                try:
                    data = orjson.loads(body[start : len(body) - len(form.suffix)])
                except orjson.JSONDecodeError:
                    # To be said of the whole body.
                    pass
                else:
                    (one,) = form.inputs
                    array = elements.from_json(one.name, one.datatype, one.shape, data)
                    return self._request(form, (Tensor(one.name, array, one.datatype, {**one.parameters}),))
        request = v2.decode_request(
            body, model=self._model, version=self._version, json_length=json_length, regions=self._regions
        )
        if form is None:
            self._remember(prefix, _SEEN)
        elif form is _SEEN and type(request) is InferRequest:
            self._remember(prefix, _form(request, body, start, is_binary=json_length is not None) or _NONE)
        return request

    def _from_bytes(self, form: _Form, raw: memoryview) -> InferRequest:
        inputs, at = [], 0
        for one in form.inputs:
            end = at + (one.size or 0)
            array = elements.from_raw(one.name, one.datatype, one.shape, raw[at:end])
            inputs.append(Tensor(one.name, array, one.datatype, {**one.parameters}))
            at = end
        return self._request(form, tuple(inputs))

    def _request(self, form: _Form, inputs: tuple[Tensor, ...]) -> InferRequest:
        # Models are given dictionaries of their own.
        request = InferRequest(self._model, inputs, self._version, form.id, form.outputs, {**form.parameters})
        request.likeness = form.likeness
        return request

    def _remember(self, prefix: bytes, form: _Form) -> None:
        if len(prefix) <= _MOST_BYTES:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[prefix] = form


def _form(request: InferRequest, body: bytes, start: int, *, is_binary: bool) -> _Form | None:
    """Return the form of ``body``, whose data start at ``start``; None where it is of no form."""
    document = orjson.loads(body[:start] if is_binary else body)
    sizes = [tensor.get("parameters", {}).get(v2.BINARY_SIZE) for tensor in document["inputs"]]
    inputs = tuple(
        [
            _Input(tensor.name, tensor.datatype, tensor.data.shape, tensor.parameters, size)
            for tensor, size in zip(request.inputs, sizes, strict=True)
        ]
    )
    said = (inputs, request.outputs, request.id, request.parameters, batch.likeness(request))
    if is_binary:
        return _Form(*said, body_bytes=len(body)) if None not in sizes else None
    suffix = _suffix(body, start, document)
    return _Form(*said, suffix) if len(inputs) == 1 and suffix is not None else None


def _suffix(body: bytes, start: int, document: dict[str, Json]) -> bytes | None:
    """Return what stands behind the list of numbers at ``start``; None where that is not the first input's data.

    Where a value of JSON stands, any other may: between the same prefix and suffix, whatever reads as JSON by itself
    is this input's data, and all else stays as it was.
    """
    ends = [end for end in (body.find(b'"', start), body.find(b"}", start)) if end >= 0]
    if not ends:
        return None
    suffix = body[body.rfind(b"]", start, min(ends)) + 1 :]
    try:
        changed = orjson.loads(body[:start] + orjson.dumps(_STAND_IN) + suffix)
    except orjson.JSONDecodeError:
        return None
    # The last of several of one name is what counts: it may be another.
    document["inputs"][0]["data"] = _STAND_IN
    return suffix if changed == document else None
