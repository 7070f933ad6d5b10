"""The whole decision about one manifest, without a cluster: what ``servery render``, ``explain`` and ``validate`` call."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.contract import Dialect
from servery_sdk.errors import Invalid, ServeryError, unsupported
from servery_sdk.manifests import Kind, Manifest
from servery_sdk.model import Capability, Catalog, DeploymentPlan, Runtime
from servery_sdk.plugins import Plugins

from servery_controller import planning
from servery_controller.planning import NoPlan, PlanningSettings


class UnknownKind(ServeryError):
    """No dialect understands the manifest."""


def dialect_of(manifest: Manifest, plugins: Plugins) -> tuple[Dialect, Kind] | None:
    """Return who understands ``manifest`` as a service, or None."""
    return _owner(manifest, ((dialect, dialect.services) for dialect in plugins.dialects.values()))


def runtime_dialect_of(manifest: Manifest, plugins: Plugins) -> tuple[Dialect, Kind] | None:
    """Return who understands ``manifest`` as a runtime, or None."""
    return _owner(manifest, ((dialect, dialect.runtimes) for dialect in plugins.dialects.values()))


def _owner(manifest: Manifest, kinds: Iterable[tuple[Dialect, frozenset[Kind]]]) -> tuple[Dialect, Kind] | None:
    for dialect, owned in kinds:
        for kind in owned:
            if (manifest.get("apiVersion"), manifest.get("kind")) == (kind.api_version, kind.kind):
                return dialect, kind
    return None


def catalog_from(
    manifests: Iterable[Manifest], plugins: Plugins, capabilities: frozenset[Capability] = frozenset()
) -> Catalog:
    """Return the catalog of the runtimes among ``manifests`` and those that plugins bring."""
    found: list[Runtime] = []
    broken: dict[str, str] = {}
    for manifest in manifests:
        owner = runtime_dialect_of(manifest, plugins)
        if owner is None:
            continue
        try:
            found.append(owner[0].parse_runtime(manifest))
        except Invalid as error:
            broken[str(manifest.get("metadata", {}).get("name", ""))] = str(error)
    return Catalog(runtimes=(*found, *plugins.runtimes.values()), broken_runtimes=broken, capabilities=capabilities)


def plan(manifest: Manifest, catalog: Catalog, plugins: Plugins, settings: PlanningSettings) -> DeploymentPlan:
    """Return the plan of one service manifest.

    Raises:
        UnknownKind: No dialect understands it.
        Invalid: It is wrong, or asks for a mode that is not installed.
        NoPlan: Nothing can serve it, or its mode cannot run it.
    """
    owner = dialect_of(manifest, plugins)
    if owner is None:
        known = sorted(str(kind) for dialect in plugins.dialects.values() for kind in dialect.services)
        found = f"{manifest.get('kind')}.{manifest.get('apiVersion')}"
        raise UnknownKind(f"no dialect understands {found}; known services: {', '.join(known)}")
    service = owner[0].parse(manifest, catalog)
    made = planning.plan(service, catalog, settings)
    if made.mode not in plugins.modes:
        raise Invalid([unsupported("deployment mode", made.mode, plugins.modes, what="installed modes")])
    if objections := plugins.modes[made.mode].objections(made):
        raise NoPlan(f"mode {made.mode!r} cannot run it: {'; '.join(objections)}")
    return made


def render(
    manifest: Manifest, catalog: Catalog, plugins: Plugins, settings: PlanningSettings
) -> tuple[DeploymentPlan, tuple[Manifest, ...]]:
    """Return the plan of one service manifest and its objects; raises as ``plan`` does."""
    made = plan(manifest, catalog, plugins, settings)
    return made, plugins.modes[made.mode].render(made)
