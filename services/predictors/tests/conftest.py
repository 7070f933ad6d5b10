from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import joblib
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iris")
    features, classes = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(features, classes), folder / "model.joblib")
    return folder


@pytest.fixture
def settings(iris: Path) -> Settings:
    return Settings(
        runtime="sklearn",
        model_name="iris",
        model_dir=iris,
        host="127.0.0.1",
        http_port=0,
        grpc_port=0,
        max_body_bytes=1_000_000,
    )


@pytest.fixture
async def predictor(settings: Settings) -> AsyncIterator[Predictor]:
    runtime = plugins.load().runtimes[f"servery-{settings.runtime}"]
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()
