"""The descriptor of the MLflow runtime. Does not import MLflow."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-mlflow``; KServe leaves this format to MLServer, by MLflow's versions 1 and 2."""
    yield predictor(
        "mlflow",
        model_class="servery_runtime_mlflow.model.pyfunc:MLflowModel",
        formats=tuple(SupportedFormat(name="mlflow", version=version, priority=1) for version in ("3", "2", "1")),
    )
