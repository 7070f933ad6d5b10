"""KServe's v1: bodies put together and answers taken apart, as text wherever that can be. Pure.

``{"instances": […]}`` of numbers is never decoded: what lies between the brackets goes, as it came, between those of the
batch, so that no digit is lost and 64 KiB cost 60 microseconds. Brackets and commas alone say how many rows there are
and of which shape. Text that is no number makes the batch wrong, which has its requests asked one by one.
"""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import orjson
from servery_sdk.manifests import Json
from servery_sdk.protocol import RequestError, batch, v1

from servery_agent.batcher import texts

_INSTANCES = "instances"
_PREDICTIONS = "predictions"
_BODY = re.compile(rb'\s*\{\s*"instances"\s*:\s*\[(.*)\]\s*\}\s*', re.DOTALL)
_OF_NUMBERS = b"0123456789+-.eE \t\r\n"


@dataclass(slots=True)
class Part:
    """A request's part of a batch. Not frozen: a frozen one costs a microsecond more to make.

    Attributes:
        key: What parts that go together have equal.
        rows: Instances.
        text: Of them, without the brackets around.
        rest: What the body says beside them, as JSON, without the braces around.
    """

    key: Hashable
    rows: int
    text: bytes
    rest: bytes = b""


def part(body: bytes) -> Part | None:
    """Return what a v1 body has for a batch; None where it goes alone: it is wrong, or its rows have no common shape."""
    found = _BODY.fullmatch(body)
    if found is not None:
        text = found[1]
        skeleton = text.translate(None, _OF_NUMBERS)
        if not skeleton.translate(None, b"[],"):
            return _numbers(text, skeleton)
    return _documents(body)


def _numbers(text: bytes, skeleton: bytes) -> Part | None:
    is_real = b"." in text or b"e" in text or b"E" in text
    if not is_real and texts.is_wide(text):
        return None
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    if not depth:
        if b"[" in skeleton or b"]" in skeleton or not text.strip():
            return None
        return Part((is_real, b""), len(skeleton) + 1, text)
    row = skeleton[: skeleton.find(b"]" * depth) + depth]
    rows = 1
    if row != skeleton:
        rows, left = divmod(len(skeleton) + 1, len(row) + 1)
        if left or skeleton != b",".join([row] * rows):
            return None
    if b"[]" in row and b"[]" in text.translate(None, b" \t\r\n"):
        # Brackets around one number and around none look alike without it.
        return None
    return Part((is_real, row), rows, text)


def _documents(body: bytes) -> Part | None:
    try:
        document = v1.load(body)
        instances = document.pop(_INSTANCES, None)
        if not isinstance(instances, list) or "inputs" in document:
            return None
        key = batch.key(v1.request({_INSTANCES: instances}, model=""))
    except RequestError:
        return None
    if key is None or texts.is_wide(body):
        return None
    rest = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)[1:-1]
    return Part((key, rest), len(instances), orjson.dumps(instances)[1:-1], rest)


def merged(parts: Sequence[Part]) -> bytes:
    """Return the body of parts that have equal keys."""
    rest = parts[0].rest
    return b'{%b"instances":[%b]}' % (rest + b"," if rest else b"", b",".join([part.text for part in parts]))


def split(body: bytes, rows: Sequence[int]) -> list[bytes] | None:
    """Return the bodies of the answers, each of so many ``rows``; None where ``body`` cannot be taken apart.

    Predictions, and whatever else is a list with an element for each row, are taken apart; what is neither a list nor
    an object that may hold one, such as a model's name, goes to each. All have one ``batchId``.
    """
    document = texts.loaded(body)
    total = sum(rows)
    if document is None or not isinstance(document.get(_PREDICTIONS), list):
        return None
    by_row: dict[str, list[Json]] = {}
    for name, value in document.items():
        if isinstance(value, list):
            if len(value) != total:
                return None
            by_row[name] = value
        elif isinstance(value, dict):
            return None
    head = {"message": "", "batchId": str(uuid.uuid4()), **document}
    bodies: list[bytes] = []
    for start, stop in itertools.pairwise(itertools.accumulate(rows, initial=0)):
        for name, values in by_row.items():
            head[name] = values[start:stop]
        bodies.append(texts.dumped(head))
    return bodies


def alone(body: bytes) -> bytes:
    """Return an answer to a request that went alone with KServe's ``message`` and ``batchId``, where it is an answer."""
    text = body.strip()
    if text[:1] != b"{" or text[-1:] != b"}" or not text[1:-1].strip():
        return body
    ours = {"message": "", "batchId": str(uuid.uuid4())}
    if b'"message"' in text or b'"batchId"' in text:
        document = texts.loaded(body)
        if document is None:
            return body
        ours = {name: value for name, value in ours.items() if name not in document}
        if not ours:
            return body
    return orjson.dumps(ours)[:-1] + b"," + text[1:]
