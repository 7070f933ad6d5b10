"""Decisions about manifests without a platform: what ``render``, ``explain`` and ``validate`` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from servery_controller import render
from servery_controller.planning import PlanningSettings
from servery_kube.port import Rejected
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model import Capability, Catalog
from servery_sdk.plugins import Plugins

from servery.local.configuration import as_stored
from servery.sources import DEFAULT_NAMESPACE, NAMED, examine, read, reference


@dataclass(frozen=True, slots=True)
class Offline:
    """The manifests of a command and everything that decides about them."""

    plugins: Plugins
    catalog: Catalog
    settings: PlanningSettings
    manifests: tuple[Manifest, ...]
    problems: tuple[str, ...] = ()
    """What is wrong with files and documents that hold no manifest."""

    def services(self) -> Iterator[Manifest]:
        """Yield the manifests that a dialect takes for services."""
        return (manifest for manifest in self.manifests if render.dialect_of(manifest, self.plugins))


def offline(
    sources: Sequence[str],
    catalogs: Sequence[str] = (),
    *,
    mode: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    capabilities: Sequence[Capability] = (Capability.GATEWAY_API,),
    lenient: bool = False,
) -> Offline:
    """Read everything once.

    Raises:
        Unreadable: A catalogue cannot be read; without ``lenient``, nor can a source.
    """
    found = plugins.load()
    as_written, problems = examine(sources) if lenient else (read(sources), [])
    manifests = tuple(_in_namespace(manifest, namespace) for manifest in as_written)
    schemes = {scheme for provider in found.storage_providers.values() for scheme in provider.schemes}
    settings = PlanningSettings()
    settings = replace(
        settings, storage_schemes=settings.storage_schemes | schemes, default_mode=mode or settings.default_mode
    )
    catalog = render.catalog_from([*manifests, *read(catalogs)], found, frozenset(capabilities))
    catalog = replace(catalog, objects={**catalog.objects, **dict(_named(manifests))})
    return Offline(found, catalog, settings, manifests, tuple(problems))


def _named(manifests: Sequence[Manifest]) -> Iterator[tuple[ObjectRef, Manifest]]:
    for manifest in manifests:
        if kind := NAMED.get((str(manifest["apiVersion"]), str(manifest["kind"]))):
            # A broken one is not there, as on an API server; ``objections`` says what is wrong with it.
            with contextlib.suppress(Rejected):
                yield reference(kind, manifest), as_stored(manifest)


def _in_namespace(manifest: Manifest, namespace: str) -> Manifest:
    metadata = manifest["metadata"]
    if str(manifest["kind"]).startswith("Cluster"):
        return manifest
    return {**manifest, "metadata": {**metadata, "namespace": metadata.get("namespace", namespace)}}


def objections(manifest: Manifest, decisions: Offline) -> str | None:
    """Return everything that is wrong with one manifest, a line each, or None."""
    try:
        if render.dialect_of(manifest, decisions.plugins):
            render.plan(manifest, decisions.catalog, decisions.plugins, decisions.settings)
        elif owner := render.runtime_dialect_of(manifest, decisions.plugins):
            owner[0].parse_runtime(manifest)
        elif owner := render.model_dialect_of(manifest, decisions.plugins):
            render.check_model(manifest, *owner)
        elif (manifest["apiVersion"], manifest["kind"]) in NAMED:
            as_stored(manifest)
        else:
            return f"no dialect understands {manifest['kind']}.{manifest['apiVersion']}"
    except ServeryError as error:
        return str(error)
    return None
