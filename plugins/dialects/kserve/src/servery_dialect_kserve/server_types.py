"""What KServe's controller adds for the servers that it knows by type.

Source: KServe SetRuntimeDefaults; the type is an annotation of the runtime, or follows from the shipped runtime's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from servery_sdk.model import Adaptation, Protocol

BY_NAME: Mapping[str, str] = {
    "kserve-mlserver": "mlserver",
    "kserve-tritonserver": "tritonserver",
    "kserve-torchserve": "torchserve",
}

_MODEL_CLASSES = {
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "mlflow": "mlserver_mlflow.MLflowRuntime",
}
_ENVELOPES = {Protocol.V1: "kserve", Protocol.V2: "kservev2", Protocol.GRPC_V2: "kservev2"}

ADAPTATIONS: Mapping[str, tuple[Adaptation, ...]] = {
    "mlserver": (
        *(Adaptation(formats=frozenset({name}), labels={"modelClass": made}) for name, made in _MODEL_CLASSES.items()),
        Adaptation(has_artifact=True, env={"MLSERVER_MODEL_NAME": "{{.Name}}", "MLSERVER_MODEL_URI": "/mnt/models"}),
        Adaptation(has_artifact=False, env={"MLSERVER_LOAD_MODELS_AT_STARTUP": "false"}),
    ),
    "tritonserver": (Adaptation(has_artifact=False, args=("--model-control-mode=explicit",)),),
    "torchserve": tuple(
        Adaptation(
            protocols=frozenset({protocol}),
            labels={"serviceEnvelope": envelope},
            env={"PROTOCOL_VERSION": str(protocol)},
        )
        for protocol, envelope in _ENVELOPES.items()
    ),
}
