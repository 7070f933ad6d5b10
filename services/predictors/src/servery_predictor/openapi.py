"""The OpenAPI description of the hot routes, which FastAPI does not see.

Source: KServe v1 data plane; OpenAI API reference; Open Inference Protocol v2, "HTTP/REST".
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema
from servery_sdk.protocol import Datatype

from servery_predictor.openai_api.audio import PLAIN, SOUNDS, VTT, SpeechRequest, TranslationRequest
from servery_predictor.openai_api.requests import RequestBody
from servery_predictor.openai_api.routes import OpenAIRoutes

_JSON = "application/json"
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}


def _path(
    request: str, answer: str, *parameters: str, summary: str = "Infer", failure: str = "Error", media: str = _JSON
) -> dict[str, Any]:
    errors = {"400": "the request is wrong", "404": "no such model", "429": "too many wait", "503": "not ready"}
    return {
        "post": {
            "summary": summary,
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters
            ],
            "requestBody": {
                "required": True,
                "content": {media: {"schema": {"$ref": f"#/components/schemas/{request}"}}},
            },
            "responses": {
                "200": {
                    "description": "the answer",
                    "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{answer}"}}},
                },
                **{
                    status: {
                        "description": text,
                        "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{failure}"}}},
                    }
                    for status, text in {**errors, "500": "the model failed"}.items()
                },
            },
        }
    }


def _explained(request: str, answer: str, *parameters: str) -> dict[str, Any]:
    path = _path(request, answer, *parameters, summary="Explain")
    error = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    path["post"]["responses"]["501"] = {"description": "the model does not explain", "content": error}
    return path


def _streamed(*parameters: str) -> dict[str, Any]:
    path = _path("GenerateRequest", "Answer", *parameters, summary="Generate, piece by piece")
    path["post"]["responses"]["200"]["content"] = _EVENTS
    return path


def _openai(kind: type[RequestBody]) -> dict[str, Any]:
    takes = "multipart/form-data" if issubclass(kind, TranslationRequest) else _JSON
    path = _path(kind.__name__, "OpenAIAnswer", failure="OpenAIError", media=takes)
    content = path["post"]["responses"]["200"]["content"]
    if issubclass(kind, SpeechRequest):
        content.clear()
        content |= {media.decode(): {"schema": {"type": "string", "format": "binary"}} for media in SOUNDS.values()}
    if issubclass(kind, TranslationRequest):
        content |= {media.decode().partition(";")[0]: {"schema": {"type": "string"}} for media in (PLAIN, VTT)}
    if "stream" in kind.model_fields:
        content |= _EVENTS
    return path


_VERSIONS = {"": ("model",), "/versions/{version}": ("model", "version")}
"""What stands behind a model's name in a path, and the path's parameters."""

_TFSERVING = {
    "predict": ("TFPredictRequest", "Predict"),
    "classify": ("TFExamples", "Classify"),
    "regress": ("TFExamples", "Regress"),
}

INFERENCE_PATHS: dict[str, Any] = {
    "/v1/models/{model}:predict": _path("V1Request", "V1Response", "model"),
    "/v1/models/{model}:explain": _explained("V1Request", "V1Explanation", "model"),
    **{f"/v2/models/{{model}}{at}/infer": _path("V2Request", "V2Response", *names) for at, names in _VERSIONS.items()},
    **{
        f"/v2/models/{{model}}{at}/explain": _explained("V2Request", "V2Response", *names)
        for at, names in _VERSIONS.items()
    },
    **{
        f"/v2/models/{{model}}{at}/generate": _path("GenerateRequest", "Answer", *names, summary="Generate")
        for at, names in _VERSIONS.items()
    },
    **{f"/v2/models/{{model}}{at}/generate_stream": _streamed(*names) for at, names in _VERSIONS.items()},
    # TensorFlow Serving's, of models with signatures; :predict of no version is v1's own path.
    **{
        f"/v1/models/{{model}}{at}:{call}": _path(request, "Answer", *names, summary=summary)
        for call, (request, summary) in _TFSERVING.items()
        for at, names in _VERSIONS.items()
        if call != "predict" or at
    },
    **{path: _openai(kind) for path, kind in OpenAIRoutes.bodies_by_path().items()},
}

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": sorted(Datatype)},
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object"},
    },
}

_BODIES = models_json_schema(
    [(kind, "validation") for kind in dict.fromkeys(OpenAIRoutes.bodies_by_path().values())],
    ref_template="#/components/schemas/{model}",
)[1]["$defs"]

INFERENCE_SCHEMAS: dict[str, Any] = {
    **_BODIES,
    "OpenAIAnswer": {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}},
    "OpenAIError": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
            }
        },
    },
    "Answer": {"type": "object"},
    "GenerateRequest": {
        "type": "object",
        "description": "The model's inputs by name, a value or a list for each; and its parameters.",
        "properties": {
            "id": {"type": "string"},
            "text_input": {"type": "string"},
            "parameters": {"type": "object"},
        },
        "example": {"text_input": "What is Triton?", "parameters": {"max_tokens": 20}},
    },
    "TFPredictRequest": {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string"},
            "instances": {"type": "array", "minItems": 1, "items": {}},
            "inputs": {},
        },
        "example": {"instances": [[1.0, 2.0]]},
    },
    "TFExamples": {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {"type": "object"},
            "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        },
        "example": {"examples": [{"x": 1.0}]},
    },
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "V1Request": {
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": {"type": "array", "minItems": 1, "items": {}}},
        "example": {"instances": [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]},
    },
    "V1Response": {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": {}}},
    },
    "V1Explanation": {
        "type": "object",
        "required": ["explanations"],
        "properties": {"explanations": {"type": "array", "items": {}}},
    },
    "V2Request": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": 1, "items": _TENSOR},
            "outputs": {
                "type": "array",
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            },
        },
        "example": {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [6.8, 2.8, 4.8, 1.4]}]},
    },
    "V2Response": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
}
