"""Acme's own manifests: a Model says where its files are, what they are, and between which numbers of servers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from servery_sdk import crds, intent, kinds, lenient, model, names, openapi, schema, statuses
from servery_sdk.contract import Dialect
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid
from servery_sdk.hooks import hookimpl
from servery_sdk.manifests import Json, Kind, Manifest, Namespace, ObjectRef

MODEL = Kind("acme.example/v1", "Model", "models")
LABEL = "acme.example/model"
PHASES = {"True": "Serving", "False": "Broken", "Unknown": "Starting"}

_FIELDS = {
    "files": openapi.string("URI of the model's files.", minLength=1),
    "format": openapi.string("What they are: sklearn, or sklearn@1.", pattern=r"^[^@]+(@[^@]+)?$"),
    "paused": {"type": "boolean", "description": "No servers for now."},
    "account": openapi.string("Service account whose secrets open the files."),
    "servers": openapi.record("How many.", dict.fromkeys(("least", "most"), openapi.integer("A number.", minimum=1))),
}
_SAID = {
    "phase": openapi.string("In a word.", enum=[*PHASES.values(), "Paused"]),
    "because": openapi.string("Why it does not serve."),
    "address": openapi.string("Where it answers."),
    "observedGeneration": openapi.integer("Of the spec that this speaks of."),
    "conditions": openapi.CONDITIONS,
}


def _definition(metadata: Json) -> Json:
    spec, status = openapi.record("Wanted.", _FIELDS, "files", "format"), openapi.record("Found.", _SAID)
    fields = {"apiVersion": openapi.TEXT, "kind": openapi.TEXT, "metadata": metadata, "spec": spec, "status": status}
    return openapi.record("A model.", fields, "metadata", "spec")


class AcmeModels:
    """``acme.example/v1`` Model."""

    name = "acme"
    services = frozenset({MODEL})
    runtimes: frozenset[Kind] = frozenset()
    models: frozenset[Kind] = frozenset()

    def crds(self) -> Sequence[Manifest]:
        return (crds.definition(MODEL, _definition({"type": "object"}), [crds.column("Phase", ".status.phase")]),)

    def references(self, manifest: Manifest) -> frozenset[ObjectRef]:
        account = lenient.text(lenient.mapping(manifest, "spec"), "account")
        return frozenset({ObjectRef(kinds.SERVICE_ACCOUNT, _namespace(manifest), account)} if account else ())

    def parse(self, manifest: Manifest, catalog: model.Catalog) -> model.InferenceService:
        if errors := [*schema.check(manifest, _definition(openapi.METADATA)), *_rules(manifest)]:
            raise Invalid(sorted(errors, key=lambda error: error.path))
        name, spec, owned = manifest["metadata"]["name"], manifest["spec"], {LABEL: manifest["metadata"]["name"]}
        (least, most), (family, _, version) = _servers(spec), spec["format"].partition("@")
        wanted = model.ModelFormat(name=family, version=version or None)
        scaler = model.AutoscalerClass.HPA if most > least else model.AutoscalerClass.NONE
        served = model.Component(
            kind=model.ComponentKind.PREDICTOR,
            name="model",
            object_name=f"{name}-model",
            main_container="server",
            runtime=model.RuntimeRequest(format=wanted, field_path="spec.format"),
            artifacts=(model.Artifact(uri=spec["files"], field_path="spec.files"),),
            pod={"serviceAccountName": spec["account"]} if spec.get("account") else {},
            labels=owned,
            selector=owned,
            scaling=model.Scaling(min_replicas=least, max_replicas=most, autoscaler_class=scaler),
        )
        return model.InferenceService(
            ref=ObjectRef(MODEL, _namespace(manifest), name),
            metadata={**manifest["metadata"], "namespace": _namespace(manifest)},
            components=(served,),
            owned_labels=owned,
            own=frozenset(owned),
            stopped=bool(spec.get("paused")),
        )

    def write(self, service: model.InferenceService) -> tuple[Manifest, ...]:
        served, wanted = service.predictor, service.predictor.runtime and service.predictor.runtime.format
        spec = {
            "files": served.artifacts[0].uri if served.artifacts else "",
            "format": f"{wanted.name}@{wanted.version}".removesuffix("@None") if wanted else "",
            "paused": service.stopped,
            "account": served.pod.get("serviceAccountName"),
            "servers": {"least": served.scaling.min_replicas, "most": served.scaling.max_replicas},
        }
        written = {"apiVersion": MODEL.api_version, "kind": MODEL.kind, "metadata": service.metadata, "spec": spec}
        if not (wanted and served.artifacts) or self.parse(written, model.Catalog()) != service:
            raise Invalid([intent.refusal("spec", "Acme", "all that this service is")])
        return (written,)

    def parse_runtime(self, manifest: Manifest) -> model.Runtime:
        raise Invalid([FieldError(path="kind", kind=FieldErrorKind.INVALID, value=manifest.get("kind"))])

    def status(self, found: model.ServiceStatus) -> Mapping[str, Json]:
        said = {condition.type: condition for condition in found.conditions}
        ready = said.get("Ready", model.Condition(type="Ready", status=model.ConditionStatus.UNKNOWN))
        is_paused = "Stopped" in said and said["Stopped"].status == "True"
        written = {
            "phase": "Paused" if is_paused else PHASES[ready.status],
            "because": ready.message or None,
            "address": found.address,
            "observedGeneration": found.observed_generation,
            "conditions": [statuses.condition(condition) for condition in found.conditions],
        }
        return {key: value for key, value in written.items() if value is not None}


def _rules(manifest: Manifest) -> Iterator[FieldError]:
    metadata, (least, most) = lenient.mapping(manifest, "metadata"), _servers(lenient.mapping(manifest, "spec"))
    if wrong := names.objection(metadata.get("name"), "metadata.name", suffix="-model"):
        yield wrong
    if isinstance(least, int) and isinstance(most, int) and most < least:
        yield FieldError(path="spec.servers.most", kind=FieldErrorKind.INVALID, value=most, detail=f"least is {least}")


def _servers(spec: Manifest) -> tuple[Json, Json]:
    given = {"least": 1, **{name: n for name, n in lenient.mapping(spec, "servers").items() if n is not None}}
    return given["least"], given.get("most", given["least"])


def _namespace(manifest: Manifest) -> Namespace:
    return Namespace(lenient.text(lenient.mapping(manifest, "metadata"), "namespace") or "default")


@hookimpl
def servery_dialects() -> Iterable[Dialect]:
    yield AcmeModels()
