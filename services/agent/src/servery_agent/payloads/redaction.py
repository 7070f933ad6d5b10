"""Leaves out of a body what nobody should read: values at JSON paths. Pure.

Source: RFC 9535, of which this is the part that names values: members, elements, all of them, descendants, and elements
by one of their members.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import orjson
from servery_sdk.errors import Permanent

_STEP = re.compile(
    r"""\.\.(?P<descendant>[\w-]+)
      | \.(?P<member>[\w-]+)
      | \.\* | (?P<all>\[\*\])
      | \[(?P<index>-?\d+)\]
      | \[(?P<quoted>'[^']*'|"[^"]*")\]
      | \[\?\(?@\.(?P<key>[\w-]+)\s*==\s*(?P<value>'[^']*'|"[^"]*")\)?\]""",
    re.VERBOSE,
)
REDACTED = "[redacted]"
_JSON = "application/json"

Container = dict[str, object] | list[object]
_Place = tuple[Container, str | int]
_Step = Callable[[object], Iterator[_Place]]


class NotJson(Exception):
    """There is no telling where in the body something is."""


@dataclass(frozen=True, slots=True)
class _Path:
    steps: tuple[_Step, ...]

    def places(self, document: object) -> Iterator[_Place]:
        """Yield where in ``document`` the path leads."""
        yield from _walk(document, self.steps)


def _walk(value: object, steps: Sequence[_Step]) -> Iterator[_Place]:
    for container, key in steps[0](value):
        if len(steps) == 1:
            yield container, key
        else:
            yield from _walk(_at(container, key), steps[1:])


def _at(container: Container, key: str | int) -> object:
    return container[key]  # type: ignore[index]  # a place's key is its container's


def _member(name: str) -> _Step:
    def step(value: object) -> Iterator[_Place]:
        if isinstance(value, dict) and name in value:
            yield value, name

    return step


def _element(index: int) -> _Step:
    def step(value: object) -> Iterator[_Place]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value, index

    return step


def _all(value: object) -> Iterator[_Place]:
    if isinstance(value, dict):
        yield from ((value, name) for name in tuple(value))
    elif isinstance(value, list):
        yield from ((value, index) for index in range(len(value)))


def _descendant(name: str) -> _Step:
    def step(value: object) -> Iterator[_Place]:
        for container, key in _all(value):
            if key == name:
                yield container, key
            yield from step(_at(container, key))

    return step


def _having(name: str, wanted: str) -> _Step:
    def step(value: object) -> Iterator[_Place]:
        for container, key in _all(value):
            found = _at(container, key)
            if isinstance(found, dict) and found.get(name) == wanted:
                yield container, key

    return step


def path_of(text: str) -> _Path:
    """Return the path that ``text`` spells.

    Raises:
        Permanent: It is none that is understood; says where it stops being one.
    """
    steps: list[_Step] = []
    at = 1
    while at < len(text):
        found = _STEP.match(text, at) if text.startswith("$") else None
        if found is None:
            raise Permanent(
                f"redaction: {text!r} is no path at {text[at - 1 :]!r}; "
                "understood are $, .name, ['name'], [0], [*], ..name and [?@.name=='x']"
            )
        steps.append(_step(found))
        at = found.end()
    if not steps:
        raise Permanent(f"redaction: {text!r} names nothing; a path begins with $ and goes on, as $.instances[*].name")
    return _Path(tuple(steps))


def _step(found: re.Match[str]) -> _Step:
    named = found.groupdict()
    if named["descendant"] is not None:
        return _descendant(named["descendant"])
    if named["member"] is not None:
        return _member(named["member"])
    if named["quoted"] is not None:
        return _member(named["quoted"][1:-1])
    if named["index"] is not None:
        return _element(int(named["index"]))
    if named["key"] is not None:
        return _having(named["key"], named["value"][1:-1])
    return _all


@dataclass(frozen=True, slots=True)
class Redaction:
    """Paths whose values are replaced by ``REDACTED``."""

    paths: tuple[_Path, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Redaction:
        """Return that of the paths that ``texts`` spell.

        Raises:
            Permanent: One is none.
        """
        return cls(tuple(map(path_of, texts)))

    def __call__(self, body: bytes | memoryview, content_type: str, *, is_whole: bool) -> bytes | memoryview:
        """Return the body as others may see it; as it is where no path leads anywhere.

        Raises:
            NotJson: It is cut, compressed, or of another kind: what is in it nobody can say.
        """
        if not self.paths or not body:
            return body
        if not is_whole or content_type.partition(";")[0].strip().lower() not in {_JSON, ""}:
            raise NotJson
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise NotJson from error
        # All places first: one path may lead into what another replaces.
        places = [place for path in self.paths for place in path.places(document)]
        if not places:
            return body
        # Numbers that orjson would round are kept by the slower reader.
        document = json.loads(bytes(body))
        for path in self.paths:
            for container, key in tuple(path.places(document)):
                container[key] = REDACTED  # type: ignore[index]  # a place's key is its container's
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
