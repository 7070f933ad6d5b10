"""The descriptor of the ONNX runtime. Does not import onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-onnx``; KServe leaves this format to Triton."""
    yield predictor(
        "onnx",
        model_class="servery_runtime_onnx.model:ONNXModel",
        formats=(SupportedFormat(name="onnx", version="1", priority=2),),
    )
