"""The dialect, as Servery finds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from servery_sdk.contract import Dialect
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Json, Kind, Manifest, ObjectRef
from servery_sdk.model import Catalog, InferenceService, Runtime, ServiceStatus

from servery_dialect_kubedl import crds, inference, kinds, status
from servery_dialect_kubedl.write import write


class KubeDLDialect:
    """``serving.kubedl.io`` Inference, and the ModelVersions of ``model.kubedl.io`` that it serves."""

    name = "kubedl"
    services = frozenset({kinds.INFERENCE})
    runtimes: frozenset[Kind] = frozenset()
    models = frozenset({kinds.MODEL, kinds.MODEL_VERSION})

    def crds(self) -> Sequence[Manifest]:
        """Return the definitions of its kinds."""
        return crds.crds()

    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        """Return the ModelVersions that the predictors name."""
        return inference.references(manifest)

    def parse(self, manifest: Manifest, catalog: Catalog) -> InferenceService:
        """Return what an Inference means.

        Raises:
            Invalid: Every error at once.
        """
        return inference.parse(manifest, catalog)

    def write(self, meant: InferenceService) -> tuple[Manifest, ...]:
        """Return the Inference that means ``meant``.

        Raises:
            Invalid: Every error at once.
        """
        return write(meant)

    def parse_runtime(self, manifest: Manifest) -> Runtime:
        """Refuse: KubeDL has no runtime objects, its containers are the manifest's own.

        Raises:
            Invalid: Always.
        """
        detail = "KubeDL has no kind of runtimes"
        raise Invalid(
            [FieldError(path="kind", kind=FieldErrorKind.NOT_SUPPORTED, value=manifest.get("kind"), detail=detail)]
        )

    def status(self, found: ServiceStatus) -> Mapping[str, Json]:
        """Return KubeDL's status."""
        return status.status(found)


@hookimpl
def servery_dialects() -> Iterable[Dialect]:
    """Contribute the dialect."""
    yield KubeDLDialect()
