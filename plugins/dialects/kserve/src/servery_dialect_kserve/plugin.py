"""The dialect, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from servery_sdk.contract import Dialect
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Json, Kind, Manifest, ObjectRef
from servery_sdk.model import Catalog, InferenceService, Runtime, ServiceStatus

from servery_dialect_kserve import crds, kinds, runtime, service, status
from servery_dialect_kserve.write import write


class KServeDialect:
    """``serving.kserve.io``: InferenceService v1beta1, ServingRuntime and ClusterServingRuntime v1alpha1."""

    name = "kserve"
    services = frozenset({kinds.INFERENCE_SERVICE})
    runtimes = frozenset({kinds.SERVING_RUNTIME, kinds.CLUSTER_SERVING_RUNTIME})
    models: frozenset[Kind] = frozenset()

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
        return service.parse(manifest)

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
