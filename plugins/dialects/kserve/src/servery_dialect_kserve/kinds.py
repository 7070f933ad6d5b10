"""KServe's kinds and the words that its users see."""

from __future__ import annotations

from servery_sdk.manifests import Kind

GROUP = "serving.kserve.io"
INFERENCE_SERVICE = Kind(f"{GROUP}/v1beta1", "InferenceService", "inferenceservices")
SERVING_RUNTIME = Kind(f"{GROUP}/v1alpha1", "ServingRuntime", "servingruntimes")
CLUSTER_SERVING_RUNTIME = Kind(f"{GROUP}/v1alpha1", "ClusterServingRuntime", "clusterservingruntimes", namespaced=False)
TRAINED_MODEL = Kind(f"{GROUP}/v1alpha1", "TrainedModel", "trainedmodels")

MAIN_CONTAINER = "kserve-container"
SERVICE_LABEL = f"{GROUP}/inferenceservice"

MODE = f"{GROUP}/deploymentMode"
AUTOSCALER_CLASS = f"{GROUP}/autoscalerClass"
METRICS = (f"{GROUP}/metrics", f"{GROUP}/metric")
"""Both spellings are met; the second is that of courses."""
TARGET_UTILIZATION = f"{GROUP}/targetUtilizationPercentage"
STOP = f"{GROUP}/stop"
TAG_ROUTING = f"{GROUP}/enable-tag-routing"
MERGED_METRICS = f"{GROUP}/enable-metric-aggregation"
SERVER_TYPE = f"{GROUP}/server-type"
VISIBILITY = ("networking.kserve.io/visibility", "networking.knative.dev/visibility")

FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
"""Fields of a predictor that name a format."""

V2_BY_DEFAULT = frozenset({"triton", "onnx", "huggingface"})
"""Framework fields whose protocol is v2 where none is given."""

V2_MODELS = frozenset({"triton", "vLLM"})
"""Formats of the field ``model`` whose protocol is v2 where none is given."""

NOT_COPIED = frozenset(
    {
        "autoscaling.knative.dev/min-scale",
        "autoscaling.knative.dev/max-scale",
        "internal.serving.kserve.io/storage-initializer-sourceuri",
        "kubectl.kubernetes.io/last-applied-configuration",
        "modelFormat",
    }
)
"""Annotations of a service that its pods do not get (KServe's own list)."""

OWN = frozenset(
    {
        *(SERVICE_LABEL, "component", *VISIBILITY),
        *(MODE, AUTOSCALER_CLASS, *METRICS, TARGET_UTILIZATION, STOP, TAG_ROUTING, MERGED_METRICS),
        *NOT_COPIED,
    }
)
"""Labels and annotations that are KServe's words, not its users'."""
