"""One service manifest in the words of another dialect, and the proof that the same will run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from servery_sdk.contract import Dialect
from servery_sdk.errors import ErrorCode, Invalid, ServeryError
from servery_sdk.manifests import Manifest
from servery_sdk.model import Catalog
from servery_sdk.plugins import Plugins

from servery_controller import render
from servery_controller.planning import PlanningSettings
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

    Where it has no words for a runtime or for files to fetch, whole pods are written in their place.

    Raises:
        Invalid: The manifest is wrong, or says what ``dialect`` has no words for.
        NoPlan: Nothing can serve it, in its own words or in those of ``dialect``.
        Different: What was written would run otherwise.
    """
    owner = render.dialect_of(manifest, plugins)
    before = render.plan(manifest, catalog, plugins, settings)
    assert owner is not None, "without a dialect there is no plan"
    service = owner[0].parse(manifest, catalog)
    try:
        made = Converted(manifests=dialect.write(service))
    except Invalid as refused:
        whole = spelled_out(service, before)
        made = Converted(manifests=dialect.write(whole), spelled_out=tuple(map(str, refused.errors)))
    after_catalog = _with(catalog, made.manifests, plugins)
    after = render.plan(made.manifests[0], after_catalog, plugins, settings)
    again = dialect.parse(made.manifests[0], after_catalog)
    if found := [*differences(essence(service, before), essence(again, after))]:
        raise Different(dialect.name, found)
    return made


def _with(catalog: Catalog, written: Iterable[Manifest], plugins: Plugins) -> Catalog:
    return replace(catalog, objects={**catalog.objects, **render.catalog_from(written, plugins).objects})
