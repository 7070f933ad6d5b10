"""Where two sets of rendered objects differ, in words such as ``HorizontalPodAutoscaler.spec.minReplicas``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import yaml
from servery_sdk.manifests import Json, Kind, Manifest

_POD = re.compile(r"(?P<kind>\w+(\([^)]*\))?)(?P<rest>\.spec(\.\w+(\[\d\])?)*?(\.\w+Template|\.template)\.spec)\.")


class Changes:
    """Says differences; kinds that share a name are told apart by their group.

    Args:
        kinds: All that may be rendered.

    Attributes:
        pods: The short words for paths of PodSpecs that were said, and the paths.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._kinds = frozenset(kinds)
        self.pods: dict[str, str] = {}

    def of(self, before: Sequence[Manifest], after: Sequence[Manifest]) -> tuple[str, ...]:
        """Return what is said of each difference, once, in the order of the objects."""
        old, new = self._by_identity(before), self._by_identity(after)
        found: dict[str, None] = {}
        for key in dict.fromkeys((*old, *new)):
            word = key[0]
            if key not in new:
                found[f"no {word}"] = None
            elif key not in old:
                found[f"a {word}"] = None
            else:
                # What is named after its own object is told by its place.
                own = f"[{old[key]['metadata']['name']}]"
                found |= {change.replace(own, "[0]"): None for change in _differences(old[key], new[key], word)}
        return tuple(map(self._shortened, found))

    def _shortened(self, change: str) -> str:
        """Return ``change`` with the path to a pod in few words."""
        way = _POD.match(change)
        if way is None:
            return change
        kind, rest = way["kind"], way["rest"]
        which = re.sub(r"(\.template)?\.spec$", "", rest).rpartition(".")[2]
        short = f"{kind} {which} pod" if which not in {"", "spec"} else f"{kind} pod"
        self.pods[short] = f"{kind}{rest}"
        return f"{short}.{change[way.end() :]}"

    def _by_identity(self, objects: Sequence[Manifest]) -> dict[tuple[str, int], Manifest]:
        """Return the objects by kind and place among those of their kind: names may be what changes."""
        found: dict[tuple[str, int], Manifest] = {}
        for made in objects:
            word, place = self._word(made), 0
            while (word, place) in found:
                place += 1
            found[word, place] = made
        return found

    def _word(self, made: Manifest) -> str:
        kind, group = made["kind"], made["apiVersion"].rpartition("/")[0]
        is_shared = len({known.group for known in self._kinds if known.kind == kind}) > 1
        return f"{kind}({group})" if is_shared and group else str(kind)


def _differences(before: Json, after: Json, path: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            yield from _differences(before.get(key), after.get(key), _below(path, str(key)))
        return
    if isinstance(before, list) and isinstance(after, list) and (named := _by_name(before, after)):
        old, new = named
        for name in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(name), new.get(name), f"{path}[{name}]")
        return
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old_item, new_item) in enumerate(zip(before, after, strict=True)):
            yield from _differences(old_item, new_item, path if _is_scalar(old_item) else f"{path}[{index}]")
        return
    inner = _documents(before, after)
    if inner is not None:
        yield from (f"{path}: {found.lstrip('.')}" for found in _differences(*inner, ""))
        return
    yield path


def _below(path: str, key: str) -> str:
    return f"{path}[{key}]" if "." in key or "/" in key else f"{path}.{key}"


def _is_scalar(value: Json) -> bool:
    return not isinstance(value, Mapping | list)


def _by_name(before: list[Json], after: list[Json]) -> tuple[dict[str, Json], dict[str, Json]] | None:
    """Return the items of two lists by name, None where not all have one of their own, or none stayed."""
    made = []
    for items in (before, after):
        names = [item.get("name") for item in items if isinstance(item, Mapping)]
        if len(names) != len(items) or None in names or len(set(names)) != len(names):
            return None
        made.append(dict(zip(names, items, strict=True)))
    # A renamed item is the same item.
    is_renamed = len(before) == len(after) and not made[0].keys() & made[1].keys()
    return None if is_renamed else (made[0], made[1])


def _documents(before: Json, after: Json) -> tuple[Json, Json] | None:
    """Return what two texts say where both are YAML of more than one line."""
    if not (isinstance(before, str) and isinstance(after, str) and "\n" in before and "\n" in after):
        return None
    return yaml.safe_load(before), yaml.safe_load(after)
