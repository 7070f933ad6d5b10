"""The dialect, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from servery_sdk.contract import Dialect
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Catalog, HeldStatus, InferenceService, Runtime, ServiceStatus

from servery_dialect_kserve import crds, kinds, runtime, service, status, trained
from servery_dialect_kserve.write import write


class KServeDialect:
    """``serving.kserve.io``: InferenceService v1beta1; ServingRuntime, ClusterServingRuntime, TrainedModel v1alpha1."""

    name = "kserve"
    services = frozenset({kinds.INFERENCE_SERVICE})
    runtimes = frozenset({kinds.SERVING_RUNTIME, kinds.CLUSTER_SERVING_RUNTIME})
    models = held = frozenset({kinds.TRAINED_MODEL})

    def crds(self) -> Sequence[Manifest]:
        """Return the definitions of its kinds."""
        return crds.crds()

    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        """Return the service account whose secrets open the model's storage."""
        return service.references(manifest)

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        """Return what an InferenceService means.

        Raises:
            Invalid: Every error at once.
        """
        return service.parse(manifest, catalog)

    def holder(self, manifest: Manifest) -> ObjectRef:
        """Return the InferenceService whose predictor holds a TrainedModel."""
        return trained.holder(manifest)

    def held_status(self, found: HeldStatus) -> Mapping[str, Json]:
        """Return a TrainedModel's status."""
        return trained.status(found)

    def write(self, meant: InferenceService) -> tuple[Manifest, ...]:
        """Return the InferenceService that means ``meant``.

        Raises:
            Invalid: Every error at once.
        """
        return write(meant)

    def parse_runtime(self, manifest: Manifest) -> Runtime:
        """Return what a runtime object means.

        Raises:
            Invalid: Every error at once.
        """
        return runtime.parse(manifest)

    def status(self, found: ServiceStatus) -> Mapping[str, Json]:
        """Return KServe's status."""
        return status.status(found)


@hookimpl
def servery_dialects() -> Iterable[Dialect]:
    """Contribute the dialect."""
    yield KServeDialect()
