"""The descriptor of the LightGBM runtime. Does not import LightGBM."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-lightgbm``, which also stands for KServe's LightGBM server."""
    yield predictor(
        "lightgbm",
        model_class="servery_runtime_lightgbm.model:LightGBMModel",
        formats=tuple(SupportedFormat(name="lightgbm", version=version, priority=1) for version in ("4", "3", "2")),
        aliases=("kserve-lgbserver",),
        local_images=("kserve/lgbserver",),
    )
