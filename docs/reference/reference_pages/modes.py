"""The page of dialects and modes: what there is, how a service asks for a mode, which examples run where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from servery_controller import render
from servery_sdk.contract import Dialect, Mode
from servery_sdk.errors import FieldErrorKind, Invalid, ServeryError
from servery_sdk.manifests import Json, Kind, Manifest
from servery_sdk.model import AutoscalerClass, Backend, DeploymentPlan, WorkerPods
from servery_sdk.plugins import Plugins

from reference_pages.markdown import BREAK, code, table, words
from reference_pages.schemas import Field, Schema, fields, value_at
from reference_pages.trials import Start, Trials, made

ROOT = Path(__file__).parents[3]
_UNKNOWN = "?"
"""A value that no closed set has: its refusal lists those that it has."""


def page(trials: Mapping[str, Trials], plugins: Plugins) -> str:
    """Return the page."""
    examples = sorted((ROOT / "examples").glob("**/*.yaml"))
    return "\n".join(
        [
            "# Dialects and modes\n",
            "A dialect is a language of manifests, a mode a way of running them. Every dialect goes with every mode.\n",
            f"## Dialects\n\n{_dialects(plugins)}",
            f"## Modes\n\n{_modes(plugins, _plain(trials))}",
            "What each field becomes in each mode: "
            + ", ".join(f"[{name}](fields-{name}.md)" for name in plugins.dialects)
            + ".\n",
            f"## How a service asks for a mode\n\n{_words(trials, plugins)}",
            f"## Examples\n\n{runs(examples, ROOT / 'examples', [], plugins)}",
        ]
    )


def _dialects(plugins: Plugins) -> str:
    rows = [
        [dialect.name, *(_kinds(found) for found in (dialect.services, dialect.runtimes, dialect.models))]
        for dialect in plugins.dialects.values()
    ]
    return table(["dialect", "services", "runtimes", "what they point at"], rows)


def _kinds(kinds: Iterable[Kind]) -> str:
    return BREAK.join(code(f"{kind.kind} {kind.api_version}") for kind in sorted(kinds)) or "none"


def _modes(plugins: Plugins, plain: DeploymentPlan) -> str:
    plans = {
        "a cluster must have": plain,
        "for shares of the traffic": _weighted(plain),
        "for several machines": _led(plain),
        "for KEDA": _scaled_by_keda(plain),
    }
    rows = []
    for mode in plugins.modes.values():
        needs = [_needs(mode, plan, plain if plan is not plain else None) for plan in plans.values()]
        rows.append([mode.name, _kinds(mode.kinds), *needs])
    return table(["mode", "renders", *plans], rows)


def _needs(mode: Mode, plan: DeploymentPlan, plain: DeploymentPlan | None) -> str:
    if objections := mode.objections(plan):
        return f"refused: {words('; '.join(objections))}"
    asked = mode.requires(plan) - (mode.requires(plain) if plain is not None else frozenset())
    return ", ".join(capability.product for capability in sorted(asked)) or "nothing more"


def _plain(trials: Mapping[str, Trials]) -> DeploymentPlan:
    """Return the plan of the first manifest that any dialect is tried in."""
    found = next(iter(trials.values()))
    kinds, _ = next(found.kinds())
    return found.starts(kinds)[0].before.plan


def _weighted(plan: DeploymentPlan) -> DeploymentPlan:
    route = plan.routes[0]
    shares = tuple(Backend(workload=plan.workloads[0].name, port=80, weight=weight) for weight in (90, 10))
    halves = (replace(plan.workloads[0], traffic_percent=90), replace(plan.workloads[0], traffic_percent=10))
    return replace(plan, routes=(replace(route, backends=shares),), workloads=halves)


def _led(plan: DeploymentPlan) -> DeploymentPlan:
    (workload,) = plan.workloads
    main, *others = workload.pod["containers"]
    pod = {**workload.pod, "containers": [{**main, "command": ["serve"]}, *others]}
    return replace(plan, workloads=(replace(workload, pod=pod, workers=WorkerPods(count=1, pod=pod)),))


def _scaled_by_keda(plan: DeploymentPlan) -> DeploymentPlan:
    (workload,) = plan.workloads
    scaling = replace(workload.scaling, autoscaler_class=AutoscalerClass.KEDA)
    return replace(plan, workloads=(replace(workload, scaling=scaling),))


def _words(trials: Mapping[str, Trials], plugins: Plugins) -> str:
    parts = [
        "Found by trying all fields. A service that says none of this has the installation's mode: `default_mode` of the "
        "controller, `--mode` of the command line.\n"
    ]
    for name, found in trials.items():
        asked: dict[str, dict[str, list[str]]] = {}
        for path, value, mode in _asked(found, plugins.dialects[name]):
            asked.setdefault(path, {}).setdefault(mode, []).append(code(_text(value)))
        rows = [[code(path), *(", ".join(by.get(mode, ())) for mode in plugins.modes)] for path, by in asked.items()]
        said = table(["field", *plugins.modes], rows) if rows else "Its services have no words for modes.\n"
        parts.append(f"### {name}\n\n{said}")
    return "\n".join(parts)


def _text(value: Json) -> str:
    return "given" if isinstance(value, dict) else str(value)


def _asked(trials: Trials, dialect: Dialect) -> Iterator[tuple[str, Json, str]]:
    """Yield paths and values by which a service of a dialect asks for a mode, and the mode."""
    kinds, schema = next(found for found in trials.kinds() if {kind.kind for kind in dialect.services} & {*found[0]})
    kind = kinds[0]
    seen: dict[str, list[Json]] = {}
    for start in trials.starts(kinds):
        if start.before.asked is not None:
            continue
        tried = (found for found in _candidates(trials, kind, schema, start) if start.nearness(found[0]))
        for path, value in sorted(tried, key=lambda found: found[0].count(".")):
            mode = _mode(start, path, value)
            # What stands below a part that asks asks by that part.
            is_below = any(path.startswith((f"{part}.", f"{part}[")) for part in seen)
            if mode is not None and not is_below and value not in seen.setdefault(path, []):
                seen[path].append(value)
                yield path, value, mode


def _candidates(trials: Trials, kind: str, schema: Schema, start: Start) -> Iterator[tuple[str, Json]]:
    for path in trials.annotations.get(kind, {}):
        for value in _allowed(start, path):
            yield path, value
    keys = [path.partition("[")[2] for path in trials.annotations.get(kind, {}) if path.startswith("metadata.ann")]
    for found in fields(schema):
        if "[]" in found.path and value_at(start.subject, found.path.rpartition("[]")[0]) is None:
            continue
        if found.name == "annotations":
            yield from (
                (f"{found.path}[{key}", value) for key in keys for value in _allowed(start, f"{found.path}[{key}")
            )
        for part in _parts(found):
            if value_at(start.subject, part) is None:
                yield part, {}
        yield from ((found.path, value) for value in (*found.schema.get("enum", ()), *_least(found.schema)))


def _parts(found: Field) -> Iterator[str]:
    steps = found.path.split(".")
    yield from (".".join(steps[:length]) for length in range(2, len(steps)) if not steps[length - 1].endswith("]"))


def _least(schema: Schema) -> tuple[Json, ...]:
    return (schema["minimum"],) if "minimum" in schema else ()


def _allowed(start: Start, path: str) -> tuple[str, ...]:
    """Return the values of a closed set, as the refusal of one that is not among them lists them."""
    try:
        start.asks_for(path, _UNKNOWN)
    except Invalid as refusal:
        listed = (error.detail for error in refusal.errors if error.kind is FieldErrorKind.NOT_SUPPORTED)
        return tuple(value for detail in listed for value in re.findall(r'"([^"]+)"', detail))
    except ServeryError:
        return ()
    return ()


def _mode(start: Start, path: str, value: Json) -> str | None:
    try:
        return start.asks_for(path, value)
    except ServeryError:
        return None


def runs(paths: Sequence[Path], folder: Path, catalogue: Sequence[Manifest], plugins: Plugins) -> str:
    """Return the table of what each mode makes of the services in ``paths``, beside the runtimes of a catalogue."""
    rows = []
    for path in paths:
        manifests = [found for found in yaml.safe_load_all(path.read_text()) if found]
        services = [found for found in manifests if render.dialect_of(found, plugins) is not None]
        for service in services:
            others = [found for found in manifests if found not in services]
            name = str(path.relative_to(folder))
            rows.append([code(name), *_outcomes([service, *others, *catalogue], plugins)])
    return table(["manifest", "asks for", *plugins.modes], rows)


def _outcomes(manifests: Sequence[Manifest], plugins: Plugins) -> list[str]:
    try:
        found = made(manifests, plugins)
    except ServeryError as refusal:
        return ["", f"refused: {words(str(refusal))}", *[""] * (len(plugins.modes) - 1)]
    return [found.asked or "", *(_told(found.of(mode)[0]) for mode in plugins.modes)]


def _told(objection: str) -> str:
    return f"refused: {words(objection)}" if objection else "renders"
