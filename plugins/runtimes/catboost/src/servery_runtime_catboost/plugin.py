"""The descriptor of the CatBoost runtime. Does not import CatBoost."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-catboost``; KServe has no server of its own for these models."""
    yield predictor(
        "catboost",
        model_class="servery_runtime_catboost.model:CatBoostModel",
        formats=tuple(SupportedFormat(name="catboost", version=version, priority=1) for version in ("1", "0")),
    )
