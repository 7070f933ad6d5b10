"""The predictor: exactly one of a model in some format, a field named after one, or containers of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk.errors import FieldError, FieldErrorKind
from servery_sdk.manifests import Manifest
from servery_sdk.model import Component, ComponentKind, HeldModel, ModelFormat, Protocol, RuntimeRequest

from servery_dialect_kserve import kinds
from servery_dialect_kserve.extension import Extension, container_errors, overlay
from servery_dialect_kserve.kinds import FRAMEWORKS
from servery_dialect_kserve.trained import is_multi_model


class Predictor(Extension):
    """Reads ``spec.predictor``."""

    kind = ComponentKind.PREDICTOR

    @property
    def suffix(self) -> str:
        """Return what the objects' names have behind the service's."""
        own = self.spec.get("name")
        return f"-{own}-predictor" if own else "-predictor"

    @property
    def is_custom(self) -> bool:
        """Return whether the manifest's own container answers requests."""
        return self.model_field is None

    @property
    def _implementations(self) -> list[str]:
        found = [name for name in FRAMEWORKS if self.spec.get(name) is not None]
        if self.spec.get("model") is not None:
            found.append("model")
        # Containers beside a model are sidecars of the runtime; alone they are the predictor.
        if not found and self.spec.get("containers"):
            found.append("containers")
        return found

    @property
    def model_field(self) -> str | None:
        """Return the field that holds the model, None where there is none."""
        found = self._implementations
        return found[0] if found and found[0] != "containers" else None

    @property
    def _model(self) -> Manifest:
        return self.spec[self.model_field] if self.model_field else {}

    def errors(self) -> Iterator[FieldError]:
        """Yield everything that is wrong with it."""
        choices = ", ".join((*FRAMEWORKS, "model", "containers"))
        if len(self._implementations) != 1:
            found = ", ".join(self._implementations) or "none"
            yield FieldError(
                path=self.path,
                kind=FieldErrorKind.INVALID,
                value=found,
                detail=f"exactly one of [{choices}] must be specified in PredictorSpec",
            )
        # All at once: what is wrong inside of each that was given, too.
        for field in self._implementations:
            yield from self._model_errors(field)
            yield from self.source_errors(field)
        yield from self.pod_errors()
        yield from self.scaling_errors()

    def _model_errors(self, field: str) -> Iterator[FieldError]:
        model = self.spec[field]
        if not isinstance(model, dict):
            return
        path = f"{self.path}.{field}"
        yield from container_errors(path, model)
        if field == "model" and model.get("modelFormat") is None:
            yield FieldError(path=f"{path}.modelFormat", kind=FieldErrorKind.REQUIRED, detail="the model's format")
        if model.get("name") is not None:
            yield FieldError(
                path=f"{path}.name",
                kind=FieldErrorKind.FORBIDDEN,
                detail="the 'name' field is not allowed in standard predictor",
            )
        if model.get("confidential") is not None:
            yield FieldError(
                path=f"{path}.confidential",
                kind=FieldErrorKind.FORBIDDEN,
                detail="confidential models: not supported by Servery yet",
            )

    @property
    def is_multi_model(self) -> bool:
        """Return whether its models come from TrainedModels."""
        return is_multi_model(self.spec, self.model_field)

    def component(
        self, of_service: Mapping[str, str], *, traffic_percent: int, held: tuple[HeldModel, ...] | None
    ) -> Component:
        """Return what it means."""
        return Component(
            **self.shared(of_service),
            runtime=self.request() if self.model_field else None,
            artifacts=self.artifacts(self.model_field),
            container=overlay(self._model),
            env={"INFERENCE_SERVICE_NAME": self.name},
            field_path=f"{self.path}.{self.model_field or 'containers'}",
            traffic_percent=traffic_percent,
            held=held,
        )

    def request(self) -> RuntimeRequest:
        """Return what the model asks of a runtime."""
        model, field = self._model, self.model_field
        assert field is not None
        protocol = model.get("protocolVersion")
        if field == "model":
            found = model["modelFormat"]
            wanted = ModelFormat(name=found["name"], version=found.get("version"))
            by_default = found["name"] in kinds.V2_MODELS
        else:
            wanted = ModelFormat(name=field)
            by_default = field in kinds.V2_BY_DEFAULT
        if protocol is None and by_default:
            protocol = Protocol.V2
        return RuntimeRequest(
            name=model.get("runtime"),
            format=wanted,
            protocol=Protocol(protocol) if protocol else None,
            version=model.get("runtimeVersion"),
            field_path=f"{self.path}.{field}",
        )

    def defaults(self) -> Iterator[str]:
        """Yield what KServe would have said in the manifest's place."""
        if self.model_field in FRAMEWORKS:
            yield f"{self.path}.model.modelFormat.name: {self.model_field} (from the field {self.model_field})"
        yield from super().defaults()
        if self.model_field and not self._model.get("protocolVersion"):
            implied = self.request().protocol
            yield f"{self.path}.{self.model_field}.protocolVersion: " + (
                f"{implied} (KServe's default for the format)" if implied else "the runtime's first"
            )
