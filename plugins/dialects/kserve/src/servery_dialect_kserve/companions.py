"""The components beside the predictor: the transformer in front of it, and the explainer that asks it.

Source: KServe transformer_custom.go, explainer_custom.go, explainer_art.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.manifests import Manifest
from servery_sdk.model import Component, ComponentKind, ModelFormat, RuntimeRequest
from servery_sdk.runtimes import HTTP_PORT

from servery_dialect_kserve.extension import Extension, container_errors, overlay
from servery_dialect_kserve.kinds import MAIN_CONTAINER

RESOURCES: Mapping[str, str] = {"cpu": "1", "memory": "2Gi"}
"""What KServe's configuration has a companion ask for of what it does not name."""

TOLD = frozenset({"model_name", "predictor_host", "http_port"})
"""Flags that every companion gets."""

ART = "art"
GONE = ("alibi", "aix")
"""Explainers that KServe had; manifests of its own documentation still say them."""


class _Companion(Extension):
    """A component that is told where the predictor is."""

    def __init__(self, manifest: Manifest, predictor: str) -> None:
        super().__init__(manifest)
        self._predictor = predictor

    @property
    def _choices(self) -> tuple[str, ...]:
        return ("containers",)

    @property
    def field(self) -> str:
        """Return the field that says what runs."""
        return "containers"

    def errors(self) -> Iterator[FieldError]:
        """Yield everything that is wrong with it."""
        # Containers beside ``art`` are its sidecars, as they are beside a model.
        if self.is_custom and not self.spec.get("containers") and not any(self.spec.get(name) for name in GONE):
            yield FieldError(
                path=self.path,
                kind=FieldErrorKind.INVALID,
                value="none",
                detail=f"exactly one of [{', '.join(self._choices)}] must be specified in {self.kind.capitalize()}Spec",
            )
        yield from self.pod_errors()
        yield from self.scaling_errors()

    def flags(self) -> Mapping[str, str]:
        """Return what KServe tells every program of this kind, where the manifest does not."""
        return {"model_name": self.name, "predictor_host": self._predictor, "http_port": str(self._http_port())}

    def _http_port(self) -> int:
        """Return the port that its Service leads to: KServe says 8080 whatever the container declares."""
        listed = self.spec.get("containers") or ()
        named = [found for found in listed if found.get("name") == MAIN_CONTAINER]
        ports = [port for main in (*named, *listed)[:1] for port in main.get("ports") or ()]
        return ports[0]["containerPort"] if ports else HTTP_PORT


class Transformer(_Companion):
    """Reads ``spec.transformer``."""

    kind = ComponentKind.TRANSFORMER

    def errors(self) -> Iterator[FieldError]:
        """Yield everything that is wrong with it."""
        yield from super().errors()
        yield from self.source_errors(None)

    def component(self, of_service: Mapping[str, str]) -> Component:
        """Return what it means: every request comes to it first."""
        return Component(
            **self.shared(of_service),
            artifacts=self.artifacts(None),
            env={"INFERENCE_SERVICE_NAME": self.name},
            flags=self.flags(),
            default_resources=RESOURCES,
            field_path=f"{self.path}.containers",
            traffic_percent=100,
        )


class Explainer(_Companion):
    """Reads ``spec.explainer``."""

    kind = ComponentKind.EXPLAINER

    @property
    def is_custom(self) -> bool:
        """Return whether the manifest's own container answers requests."""
        return self.spec.get(ART) is None

    @property
    def _choices(self) -> tuple[str, ...]:
        return (ART, "containers")

    @property
    def field(self) -> str:
        """Return the field that says what runs."""
        return "containers" if self.is_custom else ART

    def errors(self) -> Iterator[FieldError]:
        """Yield everything that is wrong with it."""
        yield from super().errors()
        yield from self.source_errors(None if self.is_custom else ART)
        found = self.spec.get(ART)
        if isinstance(found, dict):
            yield from container_errors(f"{self.path}.{ART}", found)
            if not found.get("type"):
                detail = "which attack is tried"
                yield FieldError(path=f"{self.path}.{ART}.type", kind=FieldErrorKind.REQUIRED, detail=detail)

    def component(self, of_service: Mapping[str, str]) -> Component:
        """Return what it means: requests for explanations alone come to it."""
        found: Manifest = {} if self.is_custom else self.spec[ART]
        return Component(
            **self.shared(of_service),
            runtime=None if self.is_custom else self._request(found),
            artifacts=self.artifacts(None if self.is_custom else ART),
            container={key: value for key, value in overlay(found).items() if key != "name"},
            flags={**self.flags(), **({} if self.is_custom else _settings(found))},
            default_resources=RESOURCES,
            field_path=f"{self.path}.{self.field}",
            traffic_percent=0,
        )

    def _request(self, found: Manifest) -> RuntimeRequest:
        return RuntimeRequest(
            format=ModelFormat(name=ART), version=found.get("runtimeVersion"), field_path=f"{self.path}.{ART}"
        )


def _settings(found: Manifest) -> Mapping[str, str]:
    """Return the flags that ``art`` stands for; the settings in the order of their names, as KServe has them."""
    return {"adversary_type": found["type"], **dict(sorted((found.get("config") or {}).items()))}
