"""KServe's v1: bodies put together and answers taken apart, as text wherever that can be. Pure.

``{"instances": […]}`` of numbers is never decoded: what lies between the brackets goes, as it came, between those of the
batch, so that no digit is lost; where it is long, nor is it copied. Brackets and commas alone say how many rows there
are and of which shape. Text that is no number makes the batch wrong, which has its requests asked one by one.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
from servery_sdk.manifests import Json
from servery_sdk.protocol import RequestError, batch, v1

from servery_agent.batcher import texts

_INSTANCES = "instances"
_PREDICTIONS = "predictions"
_BODY = re.compile(rb'\s*\{\s*"instances"\s*:\s*\[(.*)\]\s*\}\s*', re.DOTALL)
_OF_NUMBERS = b"0123456789+-.eE \t\r\n"
_LAST_BRACKET, _COMMA, _EXPONENT = b"],e"
_LONG_BYTES = 4096
"""Of a text that is looked through by numpy, and goes as it lies; what is shorter is copied sooner."""
_MOST_BRACKETS = 64
"""Beyond which it is quicker to drop the digits than to go from one bracket to the next."""
_SAMPLE_BYTES, _FEW_IN_SAMPLE = 1024, 4

_bits = random.Random(random.SystemRandom().getrandbits(128)).getrandbits  # noqa: S311  # ids are unique, not secret


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
    text: bytes | memoryview
    rest: bytes = b""


def part(body: bytes) -> Part | None:
    """Return what a v1 body has for a batch; None where it goes alone: it is wrong, or its rows have no common shape."""
    found = _BODY.fullmatch(body)
    if found is not None:
        start, stop = found.span(1)
        if stop - start >= _LONG_BYTES:
            text: bytes | memoryview = memoryview(body)[start:stop]
            skeleton = _of_long(body, start, stop)
        else:
            text = body[start:stop]
            skeleton = text.translate(None, _OF_NUMBERS)
            if skeleton.translate(None, b"[],"):
                skeleton = None
        if skeleton is not None:
            is_real = body.find(b".") > 0 or body.find(b"e", start) > 0 or body.find(b"E", start) > 0
            return _numbers(text, skeleton, is_real=is_real)
    return _documents(body)


def _of_long(body: bytes, start: int, stop: int) -> bytes | None:
    """Return the brackets and commas of a long text; None where there is more than numbers, or may be.

    What is neither a number nor a letter or a string is not looked for: such a text is no JSON.
    """
    characters = np.frombuffer(body, np.uint8, stop - start, start)
    last = characters.max()
    if last > _LAST_BRACKET and (last != _EXPONENT or body.find(b"N", start, stop) >= 0):
        return None
    if body.find(b'"', start, stop) >= 0:
        return None
    skeleton = None
    if body.count(b"]", start, start + _SAMPLE_BYTES) <= _FEW_IN_SAMPLE:
        skeleton = _of_few_brackets(body, start, stop, characters)
    return body[start:stop].translate(None, _OF_NUMBERS) if skeleton is None else skeleton


def _of_few_brackets(body: bytes, start: int, stop: int, characters: npt.NDArray[np.uint8]) -> bytes | None:
    """Return the same from bracket to bracket, in a third of the time; None where there are many."""
    commas = characters == _COMMA
    found: list[bytes] = []
    at, opens, closes = start, body.find(b"[", start, stop), body.find(b"]", start, stop)
    while closes >= 0:
        if len(found) > _MOST_BRACKETS * 2:
            return None
        is_open = 0 <= opens < closes
        bracket = opens if is_open else closes
        found.append(b"," * np.count_nonzero(commas[at - start : bracket - start]))
        found.append(b"[" if is_open else b"]")
        at = bracket + 1
        if is_open:
            opens = body.find(b"[", at, stop)
        else:
            closes = body.find(b"]", at, stop)
    if opens >= 0:
        return None
    found.append(b"," * np.count_nonzero(commas[at - start :]))
    return b"".join(found)


def _numbers(text: bytes | memoryview, skeleton: bytes, *, is_real: bool) -> Part | None:
    if not is_real and texts.is_wide(text):
        return None
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    if not depth:
        if b"[" in skeleton or b"]" in skeleton or not bytes(text).strip():
            return None
        return Part((is_real, 0), len(skeleton) + 1, text)
    row = skeleton[: skeleton.find(b"]" * depth) + depth]
    rows = 1
    if row != skeleton:
        rows, left = divmod(len(skeleton) + 1, len(row) + 1)
        if left or skeleton != b",".join([row] * rows):
            return None
    if (depth > 1 or len(row) == 2) and b"[]" in row and b"[]" in bytes(text).translate(None, b" \t\r\n"):
        # Brackets around one number and around none look alike without it.
        return None
    if depth == 1 and row.rfind(b"["):
        return None
    # Of a flat row its length says all.
    return Part((is_real, len(row) if depth == 1 else row), rows, text)


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


def merged(parts: Sequence[Part]) -> list[bytes | memoryview]:
    """Return the body of parts that have equal keys, in pieces: one, where it is short."""
    rest = parts[0].rest
    head = b'{%b"instances":[' % (rest + b"," if rest else b"")
    found: list[bytes | memoryview] = [head]
    for part in parts:
        found += (part.text, b",")
    found[-1] = b"]}"
    return found if sum([len(part.text) for part in parts]) >= _LONG_BYTES else [b"".join(found)]


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
    head = {"message": "", "batchId": _batch_id(), **document}
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
    ours = {"message": "", "batchId": _batch_id()}
    if b'"message"' in text or b'"batchId"' in text:
        document = texts.loaded(body)
        if document is None:
            return body
        ours = {name: value for name, value in ours.items() if name not in document}
        if not ours:
            return body
    return orjson.dumps(ours)[:-1] + b"," + text[1:]


def _batch_id() -> str:
    # As uuid4 says it, in a fifth of the time. Source: RFC 9562, 5.4.
    digits = "%030x" % _bits(120)  # noqa: UP031  # half of an f-string's time
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[15:18]}-{digits[18:]}"
