"""KubeDL's kinds and the words that its users see."""

from __future__ import annotations

from servery_sdk.manifests import Kind

INFERENCE = Kind("serving.kubedl.io/v1alpha1", "Inference", "inferences")
MODEL = Kind("model.kubedl.io/v1alpha1", "Model", "models")
MODEL_VERSION = Kind("model.kubedl.io/v1alpha1", "ModelVersion", "modelversions")

INFERENCE_LABEL = "kubedl.io/inference-name"
PREDICTOR_LABEL = "kubedl.io/predictor-name"
VERSION_LABEL = "kubedl.io/model-version"
OWN = frozenset({INFERENCE_LABEL, PREDICTOR_LABEL, VERSION_LABEL})
"""Labels that are KubeDL's words, not its users'."""

MAIN_CONTAINER = "predictor"
"""Of several containers, the one of this name answers requests; without one, the first."""

LOADER = "kubedl-model-loader"
"""Name of the model's volume, and of the init container that fills it."""

MODEL_DIRECTORY = "/kubedl-model"
"""In an image that holds a model; and below it, by name, where a predictor finds its model."""

HTTP_PORT = 8080
GRPC_PORT = 9000
"""Of every Service that KubeDL makes, whatever the container listens on."""

PORT_NAMES = {"predictor-http-port": "http", "predictor-grpc-port": "grpc"}
"""KubeDL's names of a container's ports, and names in the fifteen characters that Kubernetes takes."""

WEIGHTS = ("trafficWeight", "trafficPercent", "trafficPercentage")
"""Spellings of one field: of v0.4.0 and later, of the releases before, and of the public introduction."""
