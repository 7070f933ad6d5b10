"""The dialect, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from servery_sdk.contract import Dialect
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Catalog, InferenceService, Runtime, ServiceStatus

from servery_dialect_ome import crds, kinds, runtime, service, status
from servery_dialect_ome.write import write


class OMEDialect:
    """``ome.io`` v1beta1: InferenceService, runtimes, base models, fine-tuned weights, accelerator classes."""

    name = "ome"
    services = frozenset({kinds.INFERENCE_SERVICE})
    runtimes = frozenset({kinds.SERVING_RUNTIME, kinds.CLUSTER_SERVING_RUNTIME})
    models = frozenset({kinds.BASE_MODEL, kinds.CLUSTER_BASE_MODEL, kinds.FINE_TUNED_WEIGHT, kinds.ACCELERATOR_CLASS})

    def crds(self) -> Sequence[Manifest]:
        """Return the definitions of its kinds."""
        return crds.crds()

    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        """Return the models, weights, accelerator classes and service accounts that a service names."""
        return service.references(manifest)

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        """Return what an InferenceService means.

        Raises:
            Invalid: Every error at once.
        """
        return service.parse(manifest, catalog)

    def write(self, meant: InferenceService) -> tuple[Manifest, ...]:
        """Return the InferenceService that means ``meant``, and the BaseModel that it names.

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
        """Return OME's status."""
        return status.status(found)


@hookimpl
def servery_dialects() -> Iterable[Dialect]:
    """Contribute the dialect."""
    yield OMEDialect()
