"""The whole decision about one manifest, without a cluster: what ``servery render``, ``explain`` and ``validate`` call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from servery_sdk import schema
from servery_sdk.contract import Dialect
from servery_sdk.errors import Invalid, ServeryError, unsupported
from servery_sdk.manifests import CLUSTER, Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import Capability, Catalog, DeploymentPlan, InferenceService, Runtime
from servery_sdk.plugins import Plugins

from servery_controller import planning
from servery_controller.planning import NoPlan, PlanningSettings, products


class UnknownKind(ServeryError):
    """No dialect understands the manifest."""


def dialect_of(manifest: Manifest, plugins: Plugins) -> tuple[Dialect, Kind] | None:
    """Return who understands ``manifest`` as a service, or None."""
    return _owner(manifest, ((dialect, dialect.services) for dialect in plugins.dialects.values()))


def runtime_dialect_of(manifest: Manifest, plugins: Plugins) -> tuple[Dialect, Kind] | None:
    """Return who understands ``manifest`` as a runtime, or None."""
    return _owner(manifest, ((dialect, dialect.runtimes) for dialect in plugins.dialects.values()))


def model_dialect_of(manifest: Manifest, plugins: Plugins) -> tuple[Dialect, Kind] | None:
    """Return whose services point at ``manifest``, or None."""
    return _owner(manifest, ((dialect, dialect.models) for dialect in plugins.dialects.values()))


def _owner(manifest: Manifest, kinds: Iterable[tuple[Dialect, frozenset[Kind]]]) -> tuple[Dialect, Kind] | None:
    for dialect, owned in kinds:
        for kind in owned:
            if (manifest.get("apiVersion"), manifest.get("kind")) == (kind.api_version, kind.kind):
                return dialect, kind
    return None


def catalog_from(
    manifests: Iterable[Manifest], plugins: Plugins, capabilities: frozenset[Capability] = frozenset()
) -> Catalog:
    """Return the catalog of the runtimes and models among ``manifests`` and the runtimes that plugins bring."""
    found: list[Runtime] = []
    objects: dict[ObjectRef, Manifest] = {}
    broken: dict[str, str] = {}
    for manifest in manifests:
        if (model := model_dialect_of(manifest, plugins)) is not None:
            objects[_ref(model[1], manifest)] = manifest
        owner = runtime_dialect_of(manifest, plugins)
        if owner is None:
            continue
        try:
            found.append(_as_installed(owner[0].parse_runtime(manifest), plugins))
        except Invalid as error:
            broken[str(manifest.get("metadata", {}).get("name", ""))] = str(error)
    return Catalog(
        runtimes=(*found, *plugins.runtimes.values()),
        broken_runtimes=broken,
        objects=objects,
        capabilities=capabilities,
    )


def _as_installed(runtime: Runtime, plugins: Plugins) -> Runtime:
    """Return ``runtime`` with its model class, where it is the object that installs a plugin's runtime in a cluster."""
    known = plugins.runtimes.get(runtime.name)
    # Installations keep images in registries of their own, and move their tags.
    is_same = known is not None and _program(known.image) == _program(runtime.image)
    return replace(runtime, model_class=known.model_class) if known is not None and is_same else runtime


def _program(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def check_model(manifest: Manifest, dialect: Dialect, kind: Kind) -> None:
    """Check an object that services point at against its definition, as an API server does.

    Raises:
        Invalid: Every error at once.
    """
    errors = [
        error
        for crd in dialect.crds()
        for version in crd["spec"]["versions"]
        if (crd["spec"]["names"]["kind"], f"{crd['spec']['group']}/{version['name']}") == (kind.kind, kind.api_version)
        for error in schema.check(manifest, version["schema"]["openAPIV3Schema"])
    ]
    if errors:
        raise Invalid(sorted(errors, key=lambda error: error.path))


def _ref(kind: Kind, manifest: Manifest) -> ObjectRef:
    metadata = manifest.get("metadata") or {}
    namespace = Namespace(metadata.get("namespace") or "default") if kind.namespaced else CLUSTER
    return ObjectRef(kind, namespace, str(metadata.get("name", "")))


def parse(manifest: Manifest, catalog: Catalog, plugins: Plugins) -> InferenceService:
    """Return what one service manifest means.

    Raises:
        UnknownKind: No dialect understands it.
        Invalid: It is wrong.
    """
    owner = dialect_of(manifest, plugins)
    if owner is None:
        known = sorted(str(kind) for dialect in plugins.dialects.values() for kind in dialect.services)
        found = f"{manifest.get('kind')}.{manifest.get('apiVersion')}"
        raise UnknownKind(f"no dialect understands {found}; known services: {', '.join(known)}")
    return owner[0].parse(manifest, catalog)


def plan(manifest: Manifest, catalog: Catalog, plugins: Plugins, settings: PlanningSettings) -> DeploymentPlan:
    """Return the plan of one service manifest; raises as ``parse`` and ``planned`` do."""
    return planned(parse(manifest, catalog, plugins), catalog, plugins, settings)


def planned(
    service: InferenceService, catalog: Catalog, plugins: Plugins, settings: PlanningSettings
) -> DeploymentPlan:
    """Return the plan of one service.

    Raises:
        Invalid: It asks for a mode that is not installed, or for a source that no provider knows.
        NoPlan: Nothing can serve it, or its mode cannot run it.
    """
    made = planning.plan(service, catalog, settings)
    if made.mode not in plugins.modes:
        raise Invalid([unsupported("deployment mode", made.mode, plugins.modes, what="installed modes")])
    made = _here(made, plugins, settings)
    if objections := plugins.modes[made.mode].objections(made):
        raise NoPlan(f"mode {made.mode!r} cannot run it: {'; '.join(objections)}")
    return made


def _here(made: DeploymentPlan, plugins: Plugins, settings: PlanningSettings) -> DeploymentPlan:
    """Return the plan in the mode that the installation falls back on, where its own cannot be had."""
    missing = plugins.modes[made.mode].requires(made) - made.capabilities
    if not missing or settings.fallback_mode is None:
        return made
    why = f"mode {settings.fallback_mode}: {made.mode} needs {products(missing)}, and this place has it not"
    return replace(made, mode=settings.fallback_mode, explanations=(*made.explanations, why))


def render(
    manifest: Manifest, catalog: Catalog, plugins: Plugins, settings: PlanningSettings
) -> tuple[DeploymentPlan, tuple[Manifest, ...]]:
    """Return the plan of one service manifest and its objects; raises as ``plan`` does."""
    made = plan(manifest, catalog, plugins, settings)
    return made, (*plugins.modes[made.mode].render(made), *planning.config_maps(made))
