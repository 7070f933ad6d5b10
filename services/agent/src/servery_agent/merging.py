"""Metrics of several programs as one page: families together, series apart, no number read.

Source: Prometheus' text format 0.0.4; what KServe's qpext does for a container and Knative's queue-proxy, which says a
family of both twice. ``prometheus_client`` reads and writes pages, too, but calls each counter ``_total``, which Knative's
are not: dashboards would lose them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_COMMENT = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*)(?: (.*))?")
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"(?:[^"\\]|\\.)*+"'
_LABELS = r"[ \t]*+(?:" + _LABEL.replace("(", "(?:", 1) + r"[ \t]*+(?:,[ \t]*+|(?=\})))*+"
_VALUE = r"[-+]?(?:[0-9.][0-9.eE+-]*+|(?i:nan|inf))(?:[ \t]+-?\d+)?"
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*+)[ \t]*+(?:\{(" + _LABELS + r")\})?[ \t]*+(" + _VALUE + r")\s*+")
_LABEL_NAME = re.compile(_LABEL)
_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count"), "counter": ("_total",)}


class NotMetrics(Exception):
    """A page is not in the text format; the line that is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one program tells.

    Attributes:
        source: Its name, which tells its series from another's of the same name and labels.
        labels: That each of its series gets, unless it has one of that name.
    """

    source: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A page taken apart.

    Attributes:
        comments: Family, HELP or TYPE, and the line.
        samples: Family, name, labels, and value with what may follow it.
    """

    source: str
    comments: tuple[tuple[str, str, str], ...]
    samples: tuple[tuple[str, str, str, str], ...]


@dataclass(slots=True)
class _Family:
    comments: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[str, str], str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        yield from self.comments.values()
        for (name, labels), value in self.samples.items():
            yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def parsed(page: Page) -> Parsed:
    """Return what a page says.

    Raises:
        NotMetrics: A line is none of the text format.
    """
    types: dict[str, str] = {}
    comments: list[tuple[str, str, str]] = []
    samples: list[tuple[str, str, str, str]] = []
    for line in page.text.split("\n"):
        comment = _COMMENT.fullmatch(line)
        sample = None if line.startswith("#") else _SAMPLE.fullmatch(line)
        if comment is not None:
            word, name, rest = comment.groups()
            comments.append((name, word, line))
            if word == "TYPE":
                types[name] = rest or ""
        elif sample is not None:
            name, labels, value = sample.groups()
            labels = _labelled((labels or "").strip().rstrip(","), page.labels)
            samples.append((_family_of(name, types), name, labels, value))
        elif line.strip() and not line.startswith("#"):
            raise NotMetrics(f"no metric: {line[:100]!r}")
    return Parsed(source=page.source, comments=tuple(comments), samples=tuple(samples))


def merged(pages: Iterable[Parsed]) -> str:
    """Return one page: help and type of a family are those of the first page that has it, its samples those of all."""
    families: dict[str, _Family] = {}
    for page in pages:
        for name, word, line in page.comments:
            families.setdefault(name, _Family()).comments.setdefault(word, line)
        for family, name, labels, value in page.samples:
            had = families.setdefault(family, _Family()).samples
            key = (name, labels) if (name, labels) not in had else (name, _labelled(labels, {"source": page.source}))
            had[key] = value
    return "".join(line + "\n" for family in families.values() for line in family.lines())


def _family_of(name: str, types: Mapping[str, str]) -> str:
    if name in types:
        return name
    for kind, endings in _PARTS.items():
        for ending in endings:
            base = name.removesuffix(ending)
            if base != name and types.get(base) == kind:
                return base
    return name


def _labelled(labels: str, more: Mapping[str, str]) -> str:
    has = set(_LABEL_NAME.findall(labels))
    added = [f'{name}="{_escaped(value)}"' for name, value in more.items() if name not in has]
    return ",".join([labels, *added] if labels else added)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
