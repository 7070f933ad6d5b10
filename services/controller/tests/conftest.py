from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from servery_sdk import plugins
from servery_sdk.plugins import Plugins


@pytest.fixture(scope="session")
def installed() -> Plugins:
    return plugins.load()


@pytest.fixture
def make_service() -> Callable[..., dict[str, Any]]:
    def make(name: str = "iris", *, annotations: dict[str, str] | None = None, **predictor: Any) -> dict[str, Any]:
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": "demo", "annotations": annotations or {}},
            "spec": {"predictor": predictor or {"model": model}},
        }

    return make


@pytest.fixture
def make_runtime() -> Callable[..., dict[str, Any]]:
    def make(name: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {
                "containers": [{"name": "kserve-container", "image": f"acme/{name}:1", "args": ["--name={{.Name}}"]}],
                "supportedModelFormats": [{"name": "sklearn", "version": "1", "autoSelect": True}],
                **spec,
            },
        }

    return make
