"""Sets a field in a manifest that is served and says what comes of it in each mode.

``samples/<dialect>.yaml`` says what the fields of a dialect are tried in:

- ``starts``: ``manifests``, the first one ``of`` a kind being the one whose fields ``below`` some paths are set, itself
  first changed by ``with``; a field is tried in the starts that say most of its path, and the best outcome counts;
- ``samples``: values of fields, by the end of their paths, where the schema alone gives none that fits;
- ``annotations``: fields that no schema has: labels and annotations that mean something;
- ``added``: keys of labels and annotations that are a dialect's own and that nobody writes;
- ``nothing``: why fields, by the end of their paths, are accepted and change no object in any mode.

``samples/modes.yaml`` says the same of fields that only some modes do nothing with, ``samples/kubernetes.yaml`` has
values of fields that Kubernetes owns.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml
from servery_controller import planning, render
from servery_controller.planning import PlanningSettings
from servery_sdk.contract import Dialect
from servery_sdk.errors import Invalid, ServeryError
from servery_sdk.kinds import CONFIG_MAP
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Capability, Catalog, DeploymentPlan, InferenceService
from servery_sdk.plugins import Plugins

from reference_pages.changes import Changes
from reference_pages.schemas import Field, Schema, fields, sample, value_at, with_value

SAMPLES = Path(__file__).parents[1] / "samples"
SETTINGS = PlanningSettings()
_SELECTION = "*selection of the runtime*"
_PLAIN = "example.com/sample]"
CAPABILITIES = frozenset(Capability)


class Refused(enum.Enum):
    """Why there is a refusal."""

    MODE = enum.auto()
    """The mode cannot do what the field says."""
    ANYHOW = enum.auto()
    """The mode refuses the manifest without the field as well."""
    DIALECT = enum.auto()
    """No mode is asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a field's value does in one mode: changes or a refusal; neither of a field that changes nothing."""

    changes: tuple[str, ...] = ()
    refusal: str = ""
    refused_by: Refused | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether it is accepted and changes nothing."""
        return not self.changes and not self.refusal


@dataclass(frozen=True, slots=True)
class Result:
    """What a field of ``kind`` does, by mode."""

    kind: str
    field: Field
    outcomes: Mapping[str, Outcome]

    @property
    def path(self) -> str:
        """The field's path behind its kind."""
        return f"{self.kind}.{self.field.path}"


@dataclass(frozen=True)
class Start:
    """Manifests that are served as they are, of which one has its fields set.

    Attributes:
        name: In words, for readers.
        below: The paths whose fields are tried in it; of several starts, those that say the longest path.
        subject: The manifest whose fields are set.
        others: What stands beside it.
    """

    name: str
    below: Sequence[str]
    subject: Manifest
    others: Sequence[Manifest]
    plugins: Plugins = field(repr=False)

    def nearness(self, path: str) -> int:
        """Return how much of ``path`` is said in ``below``, in characters; 0 where the field is not tried here."""
        fitting = (below for below in self.below if path == below or path.startswith((f"{below}.", f"{below}[")))
        return max(map(len, fitting), default=0)

    @cached_property
    def before(self) -> Made:
        """What is made without the field."""
        return made([self.subject, *self.others], self.plugins)

    def after(self, path: str, value: Json) -> Made:
        """Return what is made with ``value`` at ``path``; raises as rendering does."""
        subject = with_value(self.subject, path, value)
        if (model := render.model_dialect_of(subject, self.plugins)) is not None:
            render.check_model(subject, *model)
        if (runtime := render.runtime_dialect_of(subject, self.plugins)) is not None:
            runtime[0].parse_runtime(subject)
        return made([subject, *self.others], self.plugins)

    def asks_for(self, path: str, value: Json) -> str | None:
        """Return the mode that a service asks for with ``value`` at ``path``; raises as parsing does."""
        return _parsed([with_value(self.subject, path, value)], self._catalog, self.plugins).mode

    @property
    def own(self) -> frozenset[str]:
        """The keys of labels and annotations that are words of the dialect; raises as parsing does."""
        return _parsed([self.subject], self._catalog, self.plugins).own

    @cached_property
    def _catalog(self) -> Catalog:
        return render.catalog_from(self.others, self.plugins, CAPABILITIES)


def made(manifests: Sequence[Manifest], plugins: Plugins) -> Made:
    """Return what is made of the first service among ``manifests``, the others beside it; raises as rendering does."""
    catalog = render.catalog_from(manifests, plugins, CAPABILITIES)
    wanted = _parsed(manifests, catalog, plugins)
    return Made(planning.plan(wanted, catalog, SETTINGS), wanted.mode, plugins)


def _parsed(manifests: Sequence[Manifest], catalog: Catalog, plugins: Plugins) -> InferenceService:
    service, dialect = next((m, found[0]) for m in manifests if (found := render.dialect_of(m, plugins)) is not None)
    return dialect.parse(service, catalog)


class Made:
    """A plan, and what each mode makes of it.

    Attributes:
        asked: The mode that the manifest asks for, None for the installation's.
    """

    def __init__(self, plan: DeploymentPlan, asked: str | None, plugins: Plugins) -> None:
        self.plan, self.asked, self._plugins = plan, asked, plugins
        self._found: dict[str, tuple[str, tuple[Manifest, ...]]] = {}

    def of(self, mode: str) -> tuple[str, tuple[Manifest, ...]]:
        """Return a mode's objection and, where it has none, its objects."""
        if mode not in self._found:
            plan = dataclasses.replace(self.plan, mode=mode)
            # Whose objection it is is plain, and would keep equal ones apart.
            whose = re.compile(rf"^({'|'.join(re.escape(workload.component) for workload in plan.workloads)}): ")
            found = self._plugins.modes[mode].objections(plan)
            objections = "; ".join(dict.fromkeys(whose.sub("", objection) for objection in found))
            objects = () if objections else (*self._plugins.modes[mode].render(plan), *planning.config_maps(plan))
            self._found[mode] = (objections, objects)
        return self._found[mode]

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What was chosen for each workload."""
        return tuple(w.selection.runtime.name for w in self.plan.workloads if w.selection is not None)


class Trials:
    """All trials of one dialect.

    Raises:
        FileNotFoundError: ``samples/`` has no file for it; the file says what its fields are tried in.
    """

    def __init__(self, dialect: Dialect, plugins: Plugins) -> None:
        data = yaml.safe_load((SAMPLES / f"{dialect.name}.yaml").read_text())
        self.nothing: Mapping[str, str] = data.get("nothing") or {}
        self.annotations: Mapping[str, Json] = data.get("annotations") or {}
        self.nothing_in: Mapping[str, Mapping[str, str]] = yaml.safe_load((SAMPLES / "modes.yaml").read_text())
        self.added: Sequence[str] = data["added"]
        self._kubernetes = yaml.safe_load((SAMPLES / "kubernetes.yaml").read_text())
        self._samples: Mapping[str, Json] = data.get("samples") or {}
        self._starts = data["starts"]
        self._results: dict[tuple[str, ...], tuple[Result, ...]] = {}
        self._dialect, self._plugins = dialect, plugins
        self._changes = Changes({CONFIG_MAP, *(kind for mode in plugins.modes.values() for kind in mode.kinds)})

    @property
    def pods(self) -> Mapping[str, str]:
        """The short words for paths of PodSpecs that were said so far, and the paths."""
        return self._changes.pods

    def kinds(self) -> Iterator[tuple[tuple[str, ...], Schema]]:
        """Yield kinds that share a schema, and the schema."""
        by_schema: list[tuple[list[str], Schema]] = []
        for crd in self._dialect.crds():
            kind, schema = crd["spec"]["names"]["kind"], crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            same = next((kinds for kinds, known in by_schema if known == schema), None)
            if same is None:
                by_schema.append(([kind], schema))
            else:
                same.append(kind)
        yield from ((tuple(kinds), schema) for kinds, schema in by_schema)

    def fields(self, kinds: Sequence[str], schema: Schema) -> Iterator[Field]:
        """Yield the fields of ``kinds`` that users write, those of the annotations and labels that mean something too."""
        yield from fields(schema)
        for kind in kinds:
            for path in self.annotations.get(kind, {}):
                yield Field(path, {"type": "string"})

    def results(self, kinds: tuple[str, ...], schema: Schema) -> tuple[Result, ...]:
        """Return what each field of ``kinds`` does."""
        if kinds not in self._results:
            self._results[kinds] = tuple(self._each(kinds, schema))
        return self._results[kinds]

    def starts(self, kinds: Sequence[str]) -> list[Start]:
        """Return what the fields of ``kinds`` are tried in."""
        return [self._start(found) for found in self._starts if found["of"] in kinds]

    def _each(self, kinds: Sequence[str], schema: Schema) -> Iterator[Result]:
        starts = self.starts(kinds)
        for found in self.fields(kinds, schema):
            nearest = max((start.nearness(found.path) for start in starts), default=0)
            yield self._result(kinds, found, [start for start in starts if 0 < nearest == start.nearness(found.path)])

    def _start(self, data: Json) -> Start:
        subject = next(manifest for manifest in data["manifests"] if manifest["kind"] == data["of"])
        others = [manifest for manifest in data["manifests"] if manifest is not subject]
        for path, value in (data.get("with") or {}).items():
            subject = with_value(subject, path, value)
        return Start(data["name"], data["below"], subject, others, self._plugins)

    def _result(self, kinds: Sequence[str], found: Field, starts: Sequence[Start]) -> Result:
        if not starts:
            raise ValueError(f"{kinds[0]}.{found.path}: no start in samples/{self._dialect.name}.yaml takes it")
        tried = [self._tried(kinds, found, start) for start in starts]
        return Result(kinds[0], found, {mode: min((o[mode] for o in tried), key=_rank) for mode in self._plugins.modes})

    def _tried(self, kinds: Sequence[str], found: Field, start: Start) -> dict[str, Outcome]:
        value = self._value(kinds, found, value_at(start.subject, found.path))
        try:
            after = start.after(found.path, value)
        except planning.NoRuntime:
            return dict.fromkeys(self._plugins.modes, Outcome(changes=(_SELECTION,)))
        except ServeryError as refusal:
            words = _in_its_words(refusal, found)
            return dict.fromkeys(self._plugins.modes, Outcome(refusal=words, refused_by=Refused.DIALECT))
        return {mode: self._outcome(mode, found, start.before, after) for mode in self._plugins.modes}

    def _outcome(self, mode: str, found: Field, before: Made, after: Made) -> Outcome:
        (held, old), (objection, new) = before.of(mode), after.of(mode)
        if objection or held:
            return Outcome(refusal=objection or held, refused_by=Refused.ANYHOW if held else Refused.MODE)
        said: list[str] = []
        if before.asked != after.asked:
            said.append(f"*asks for mode {after.asked}*")
        if before.runtimes != after.runtimes:
            said.append(_SELECTION)
        changes = self._changes.of(old, new)
        if (before.plan.url, before.plan.address) != (after.plan.url, after.plan.address):
            said.append("status.url")
        return Outcome(changes=(*said, *(change for change in changes if not _is_passed_on(change, found))))

    def _value(self, kinds: Sequence[str], found: Field, present: Json) -> Json:
        annotated = self.annotations.get(kinds[0], {})
        if found.path in annotated:
            return annotated[found.path]
        if (key := fitting(f"{kinds[0]}.{found.path}", self._samples)) is not None:
            return self._samples[key]
        known = self._kubernetes.get(found.holder, {})
        return known[found.name] if found.name in known else sample(found.schema, present)


def fitting(path: str, ends: Iterable[str]) -> str | None:
    """Return the longest of ``ends`` with which ``path`` ends, None where it has none of them."""
    return max((end for end in ends if f".{path}".endswith(f".{end}")), key=len, default=None)


def _rank(outcome: Outcome) -> int:
    """Return which of several starts' outcomes counts: a refusal may only say that the field does not go with the rest."""
    if outcome.changes:
        return 0
    return {Refused.MODE: 1, None: 2, Refused.ANYHOW: 3, Refused.DIALECT: 4}[outcome.refused_by]


def _is_passed_on(change: str, found: Field) -> bool:
    """Return whether a label or annotation that means something is found again as it is."""
    key = found.path.partition("[")[2]
    return found.path.startswith("metadata.") and bool(key) and key != _PLAIN and change.endswith(f"[{key}")


def _in_its_words(refusal: ServeryError, found: Field) -> str:
    """Return a refusal without the paths of the field and of what holds it."""
    if not isinstance(refusal, Invalid):
        return str(refusal)
    own = found.path.replace("[]", "[0]")
    said = (
        str(error).removeprefix(f"{error.path}: ") if f"{own}.".startswith(f"{error.path}.") else str(error)
        for error in refusal.errors
    )
    return "; ".join(dict.fromkeys(said))
