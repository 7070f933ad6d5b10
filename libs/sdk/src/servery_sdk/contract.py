"""The plugin contract for the control plane: what a dialect and a mode must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from servery_sdk.manifests import Json, Kind, Manifest, ObjectRef
from servery_sdk.model import (
    Capability,
    Catalog,
    DeploymentPlan,
    HeldStatus,
    InferenceService,
    Readiness,
    Runtime,
    ServiceStatus,
    Workload,
)


class Dialect(Protocol):
    """A language of manifests. Pure functions and its schemas."""

    @property
    def name(self) -> str:
        """``kserve``."""

    @property
    def services(self) -> frozenset[Kind]:
        """The kinds that it turns into an InferenceService."""

    @property
    def runtimes(self) -> frozenset[Kind]:
        """The kinds that it turns into a Runtime."""

    @property
    def models(self) -> frozenset[Kind]:
        """Its other kinds, which services point at: ``parse`` finds them in the catalog's ``objects``."""

    def crds(self) -> Sequence[Manifest]:
        """Return the CustomResourceDefinitions of all its kinds, printed from its schemas."""

    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        """Return the objects other than runtimes that ``parse`` will look for in the catalog. Total: never raises."""

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        """Return what ``manifest`` means.

        Raises:
            Invalid: With every error at once, at the dialect's own field paths.
        """

    def write(self, service: InferenceService) -> tuple[Manifest, ...]:
        """Return the manifests that mean ``service``, the service's own first: the inverse of ``parse``.

        ``service`` may come from any dialect. Its user's labels and annotations are said again; names, labels and
        variables that dialects invent by themselves are not (``servery_sdk.intent``).

        Raises:
            Invalid: The dialect has no words for something, every error at once, at the paths that ``service`` carries.
        """

    def parse_runtime(self, manifest: Manifest) -> Runtime:
        """Return what a runtime object means.

        Raises:
            Invalid: With every error at once.
        """

    def status(self, status: ServiceStatus) -> Mapping[str, Json]:
        """Return ``.status`` in the dialect's own words, beside ``observedGeneration`` and ``conditions`` in Kubernetes'."""


@runtime_checkable
class HoldingDialect(Protocol):
    """A dialect whose services may hold many models, each with an object of its own that names the service."""

    @property
    def held(self) -> frozenset[Kind]:
        """Those of its ``models``; ``parse`` finds those of the service's namespace in the catalog's ``objects``."""

    def holder(self, manifest: Manifest) -> ObjectRef:
        """Return the service that a model's object names. Total: never raises."""

    def held_status(self, status: HeldStatus) -> Mapping[str, Json]:
        """Return the model's ``.status`` in the dialect's own words."""


class Mode(Protocol):
    """An engine's way of running a plan. Pure functions."""

    @property
    def name(self) -> str:
        """``raw``."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of all objects that it may render."""

    def requires(self, plan: DeploymentPlan) -> frozenset[Capability]:
        """Return what a cluster must offer for this plan; planning's choices go by ``plan.capabilities``."""

    def objections(self, plan: DeploymentPlan) -> tuple[str, ...]:
        """Return why this plan cannot be run in this way, whatever the cluster offers; empty where it can."""

    def render(self, plan: DeploymentPlan) -> tuple[Manifest, ...]:
        """Return the engine's objects for ``plan``: deterministic, each with owner reference and ``owned_labels``."""

    def readiness(self, workload: Workload, objects: Mapping[ObjectRef, Manifest]) -> Readiness:
        """Return how far a workload is, from the service's objects as they are. Total: never raises."""
