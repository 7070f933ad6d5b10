"""One service manifest in the words of another dialect, and the proof that the same will run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from servery_sdk.contract import Dialect
from servery_sdk.errors import ErrorCode, Invalid, ServeryError
from servery_sdk.manifests import Manifest
from servery_sdk.model import Catalog, DeploymentPlan
from servery_sdk.plugins import Plugins

from servery_controller import render
from servery_controller.planning import NoPlan, PlanningSettings
from servery_controller.planning.essence import differences, essence, spelled_out


class Different(ServeryError):
    """What a dialect wrote would run otherwise than what it was written from."""

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(self, dialect: str, found: Sequence[str]) -> None:
        self.differences = tuple(found)
        listed = "\n".join(f"  {difference}" for difference in found)
        super().__init__(f"in the words of {dialect}, another plan would come out (as it is, and then):\n{listed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a dialect wrote.

    Attributes:
        manifests: The service first.
        spelled_out: Why whole pods are written; empty where runtime and files are said as such.
    """

    manifests: tuple[Manifest, ...]
    spelled_out: tuple[str, ...] = ()


def convert(
    manifest: Manifest, dialect: Dialect, catalog: Catalog, plugins: Plugins, settings: PlanningSettings
) -> Converted:
    """Return ``manifest``, a service, in the words of ``dialect``.

    Where it has no words for a runtime or for files to fetch, or no runtime of that name, whole pods are written in
    their place.

    Raises:
        Invalid: The manifest is wrong, or says what ``dialect`` has no words for.
        NoPlan: Nothing can serve it, in its own words or in those of ``dialect``.
        Different: What was written would run otherwise.
    """
    service = render.parse(manifest, catalog, plugins)
    before = render.planned(service, catalog, plugins, settings)

    def proven(written: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
        objects = {**catalog.objects, **render.catalog_from(written, plugins).objects}
        found = replace(catalog, objects=objects)
        again = dialect.parse(written[0], found)
        after = render.planned(again, found, plugins, settings)
        compared = differences(essence(service, before), essence(again, after))
        if different := [*compared, *_scaled_otherwise(before, after, plugins)]:
            raise Different(dialect.name, different)
        return written

    try:
        return Converted(manifests=proven(dialect.write(service)))
    except (Invalid, NoPlan, Different) as refusal:
        try:
            whole = proven(dialect.write(spelled_out(service, before)))
        except (NoPlan, Different):
            if isinstance(refusal, Invalid):
                raise
            # Of two proofs that fail, the plainer one's words say more.
            raise refusal from None
        return Converted(manifests=whole, spelled_out=tuple(str(refusal).splitlines()))


def _scaled_otherwise(before: DeploymentPlan, after: DeploymentPlan, plugins: Plugins) -> Iterator[str]:
    """Yield where the mode makes other objects of the other plan's numbers: only it knows what saying no most means."""
    mode = plugins.modes[before.mode]
    for index, (one, other) in enumerate(zip(before.workloads, after.workloads, strict=False)):
        workloads = list(before.workloads)
        workloads[index] = replace(one, scaling=other.scaling)
        if mode.render(replace(before, workloads=tuple(workloads))) != mode.render(before):
            yield f"workloads[{index}].scaling in mode {mode.name}: {one.scaling}, and {other.scaling}"
