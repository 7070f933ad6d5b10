"""The page of a dialect's fields: what each one becomes in each mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from servery_sdk.plugins import Plugins

from reference_pages.markdown import BREAK, code, table, words
from reference_pages.trials import Result, Trials, fitting

_PLACE = "*"
_MOST = 6
"""Lines of a cell."""
_MANY = 3
"""Fields of one object that are named one by one."""
_INTRODUCTION = """\
Found by trying: each field of the schema is set in a manifest that is served, and each mode's objects are compared with
those without it. A cell lists where they differ; `*` is the field's own name, *a* `Kind` an object that is then made,
*no* `Kind` one that is not, and *nothing* says that this mode makes the same objects, and why. `[]` is an item of a list.

All labels and annotations of a service are passed on as `example.com/sample` is; of others the table says what else they
do. The cluster has all that modes can use. `status` is written by Servery.
"""


def page(trials: Trials, name: str, plugins: Plugins) -> str:
    """Return the page of one dialect.

    Raises:
        ValueError: A field is accepted, changes nothing, and nobody says why.
    """
    sections = [f"# What the fields of dialect {name} become\n\n{_INTRODUCTION}"]
    for kinds, schema in trials.kinds():
        results = trials.results(kinds, schema)
        sections.append(f"## {', '.join(kinds)}\n\n{_section(results, trials, list(plugins.modes))}")
    pods = "".join(f"- {code(short)} stands for {code(path)}\n" for short, path in sorted(trials.pods.items()))
    return "\n".join([sections[0], pods, *sections[1:]])


def without_effect(trials: Trials) -> set[str]:
    """Return the fields that are accepted and change nothing in any mode, each behind its kind."""
    return {found.path for found in _all(trials) if _is_without_effect(found)}


def without_effect_in(trials: Trials, mode: str) -> set[str]:
    """Return the fields with which others do something and ``mode`` nothing, each behind its kind."""
    return {found.path for found in _all(trials) if not _is_without_effect(found) and found.outcomes[mode].is_nothing}


def _all(trials: Trials) -> Iterator[Result]:
    for kinds, schema in trials.kinds():
        yield from trials.results(kinds, schema)


def _is_without_effect(result: Result) -> bool:
    # A mode that runs nothing of the kind refuses it with or without the field.
    outcomes = result.outcomes.values()
    return any(found.is_nothing for found in outcomes) and not any(found.changes for found in outcomes)


def _section(results: Sequence[Result], trials: Trials, modes: Sequence[str]) -> str:
    refused = [found for found in results if len(set(found.outcomes.values())) == 1 and _all_refuse(found)]
    nothing = [found for found in results if _is_without_effect(found)]
    others = [found for found in results if found not in refused and found not in nothing]
    parts = [_alike(results)] if any(found.field.alike for found in results) else []
    if others:
        cells = [(found, tuple(_cell(found, mode, trials) for mode in modes)) for found in others]
        parts.append(table(["field", *modes], ([fields, *row] for fields, row in _grouped(cells))))
    if refused:
        cells = [(found, (words(next(iter(found.outcomes.values())).refusal),)) for found in refused]
        rows = ([fields, *row] for fields, row in _grouped(cells))
        parts.append(f"Refused, in these words:\n\n{table(['field', 'refusal'], rows)}")
    if nothing:
        reasons = [(found, (_reason(found, trials.nothing, "no mode"),)) for found in nothing]
        rows = ([fields, *row] for fields, row in _grouped(reasons))
        parts.append(f"Accepted, and changes no object:\n\n{table(['field', 'why'], rows)}")
    return "\n".join(parts)


def _reason(result: Result, reasons: Mapping[str, str], where: str) -> str:
    end = fitting(result.path, reasons)
    if end is None:
        raise ValueError(
            f"{result.path} is accepted and {where} does anything with it: mend that, or say why in samples/"
        )
    return words(reasons[end])


def _alike(results: Sequence[Result]) -> str:
    said = (found.field.alike.partition(": ") for found in results if found.field.alike)
    listed = dict.fromkeys(f"What is said of {code(path)} holds for {others} too.\n" for path, _, others in said)
    return "".join(listed)


def _all_refuse(result: Result) -> bool:
    return all(found.refusal and not found.changes for found in result.outcomes.values())


def _grouped(rows: Iterable[tuple[Result, tuple[str, ...]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the rows, fields of one outcome together: those of one parent, and the same ones of several parents."""
    by_parent: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for result, cells in rows:
        by_parent.setdefault((result.field.parent, cells), []).append(result.field.name)
    by_names: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (parent, cells), names in by_parent.items():
        by_names.setdefault((tuple(names), cells), []).append(parent)
    for (names, cells), parents in by_names.items():
        if len(names) == 1:
            yield BREAK.join(code(f"{parent}{names[0]}") for parent in parents), cells
        else:
            # What is held by its key is said with its whole path, one a line.
            together = ", " if any(parents) else BREAK
            yield BREAK.join([*(code(parent) for parent in parents if parent), together.join(map(code, names))]), cells


def _cell(result: Result, mode: str, trials: Trials) -> str:
    outcome, name = result.outcomes[mode], result.field.name
    if outcome.is_nothing:
        return f"*nothing*: {_reason(result, trials.nothing_in.get(mode, {}), f'not mode {mode}')}"
    found = [_as_code(change) for change in _merged([_with_place(change, name) for change in outcome.changes])]
    if len(found) > _MOST:
        found = [*found[:_MOST], f"and {len(found) - _MOST} more"]
    if outcome.refusal:
        found.append(f"refused: {words(re.sub(_own(name), _PLACE, outcome.refusal))}")
    return BREAK.join(found)


def _as_code(change: str) -> str:
    if change.startswith("*"):
        return change
    article, _, kind = change.partition(" ")
    return f"*{article}* {code(kind)}" if article in {"a", "no"} else code(change)


def _with_place(change: str, name: str) -> str:
    return re.sub(rf"(?<=[. ]){re.escape(name)}(?=$|[.:\[])", _PLACE, change) if not name.endswith("]") else change


def _own(name: str) -> str:
    """Return the pattern of a field's name in a path that a refusal begins with or speaks of, not in its words."""
    return rf"(?:(?<=\.)|(?<=; )|^){re.escape(name)}(?=[:.\[])"


def _merged(changes: Sequence[str]) -> list[str]:
    """Return the changes with those that differ in one step only together: ``a.{b,c}.d``; ``a`` where these are many."""
    made: list[list[list[str]]] = []
    for change in changes:
        steps = [[step] for step in re.findall(r"\[[^\]]*\]|[^.\[]+|\.", change)]
        for known in made:
            if (place := _only_difference(known, steps)) is not None:
                known[place] += steps[place]
                break
        else:
            made.append(steps)
    return list(dict.fromkeys(_said(steps) for steps in made))


def _only_difference(known: Sequence[list[str]], steps: Sequence[list[str]]) -> int | None:
    if len(known) != len(steps):
        return None
    places = [index for index, (one, other) in enumerate(zip(known, steps, strict=True)) if one != other]
    # Kinds stay apart, and a key in brackets is no field.
    is_one = len(places) == 1 and places[0] > 0 and (known[places[0]][0][0] == "[") == (steps[places[0]][0][0] == "[")
    return places[0] if is_one else None


def _said(steps: Sequence[Sequence[str]]) -> str:
    made = ""
    for step in steps:
        if len(step) > _MANY:
            return made.rstrip(".")
        listed = ",".join(one.strip("[]") for one in step)
        made += step[0] if len(step) == 1 else f"[{{{listed}}}]" if step[0][0] == "[" else f"{{{listed}}}"
    return made
