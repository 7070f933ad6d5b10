"""The descriptor of the XGBoost runtime. Does not import XGBoost."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-xgboost``, which also stands for KServe's XGBoost server."""
    yield predictor(
        "xgboost",
        model_class="servery_runtime_xgboost.model:XGBoostModel",
        formats=tuple(SupportedFormat(name="xgboost", version=version, priority=1) for version in ("3", "2", "1")),
        aliases=("kserve-xgbserver",),
        local_images=("kserve/xgbserver",),
    )
