"""The descriptor of the PaddlePaddle runtime. Does not import paddle."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-paddle``, which also stands for KServe's Paddle server."""
    yield predictor(
        "paddle",
        model_class="servery_runtime_paddle.model:PaddleModel",
        formats=tuple(SupportedFormat(name="paddle", version=version, priority=1) for version in ("3", "2")),
        aliases=("kserve-paddleserver",),
        local_images=("kserve/paddleserver",),
    )
