"""OME's kinds and the words that its users see."""

from __future__ import annotations

from servery_sdk.manifests import Kind
from servery_sdk.model import Protocol

GROUP = "ome.io"
VERSION = f"{GROUP}/v1beta1"
INFERENCE_SERVICE = Kind(VERSION, "InferenceService", "inferenceservices")
SERVING_RUNTIME = Kind(VERSION, "ServingRuntime", "servingruntimes")
CLUSTER_SERVING_RUNTIME = Kind(VERSION, "ClusterServingRuntime", "clusterservingruntimes", namespaced=False)
BASE_MODEL = Kind(VERSION, "BaseModel", "basemodels")
CLUSTER_BASE_MODEL = Kind(VERSION, "ClusterBaseModel", "clusterbasemodels", namespaced=False)
FINE_TUNED_WEIGHT = Kind(VERSION, "FineTunedWeight", "finetunedweights", namespaced=False)
ACCELERATOR_CLASS = Kind(VERSION, "AcceleratorClass", "acceleratorclasses", namespaced=False)

MAIN_CONTAINER = "ome-container"
SERVICE_LABEL = f"{GROUP}/inferenceservice"
COMPONENT_LABEL = "component"
RUNTIME_LABEL = "serving-runtime"

MODES = (f"{GROUP}/deploymentMode", f"{GROUP}/deployment-mode")
"""The annotation of the mode; its documentation also writes the second."""
AUTOSCALER_CLASS = f"{GROUP}/autoscalerClass"
METRICS = f"{GROUP}/metrics"
TARGET_UTILIZATION = f"{GROUP}/targetUtilizationPercentage"
SERVICE_TYPE = f"{GROUP}/service-type"
ACCELERATOR = f"{GROUP}/accelerator-class"
NO_INGRESS = f"{GROUP}/ingress-disable-creation"
VISIBILITY = ("networking.ome.io/visibility", "networking.knative.dev/visibility")
VOLCANO_QUEUE = f"{GROUP}/volcano-queue"
DEDICATED_CLUSTER = f"{GROUP}/dedicated-ai-cluster"
KUEUE = "kueue-enabled"
MODEL_CATEGORY = "models.ome.io/category"

PROTOCOLS = {
    "openAI": Protocol.OPENAI,
    "openInference-v1": Protocol.V1,
    "openInference-v2": Protocol.V2,
    "grpc-v2": Protocol.GRPC_V2,
}
"""OME's words for protocols."""

MODEL_PATH = "MODEL_PATH"
MODEL_CONFIGURATION = "MODEL_CONFIGURATION"
PARALLELISM = "PARALLELISM_SIZE"
ADAPTER_PATH = "/opt/ml/model"
"""Where OME's runtimes look for a fine-tuned adapter."""

RAW_DEPLOYMENT = "RawDeployment"
SERVERLESS = "Serverless"
PLAIN = frozenset({RAW_DEPLOYMENT, "MultiNode", "PDDisaggregated"})
"""OME's words for ways to run a service: as plain objects in some form, or by revisions that go to nothing."""

OWN = frozenset(
    {
        *("app", SERVICE_LABEL, COMPONENT_LABEL, *VISIBILITY),
        *("fine-tuned-serving", "fine-tuned-serving-with-merged-weights", "fine-tuned-weight-ft-strategy"),
        *(f"base-model-{name}" for name in ("name", "size", "type", "vendor")),
        *(*MODES, AUTOSCALER_CLASS, METRICS, TARGET_UTILIZATION, SERVICE_TYPE, ACCELERATOR, NO_INGRESS),
        *(VOLCANO_QUEUE, DEDICATED_CLUSTER, KUEUE),
        *(f"{GROUP}/base-model-{name}" for name in ("name", "vendor", "format", "format-version")),
        *(f"autoscaling.keda.sh/{name}" for name in ("prometheus.query", "prometheus.serverAddress", "threshold")),
        *(f"autoscaling.knative.dev/{bound}-scale" for bound in ("min", "max")),
        f"internal.{GROUP}/storage-initializer-sourceuri",
    }
)
"""Labels and annotations that are OME's words, not its users'."""
