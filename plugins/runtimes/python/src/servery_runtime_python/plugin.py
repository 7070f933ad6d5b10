"""The descriptor of the runtime for models of one's own."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-python``."""
    yield predictor(
        "python",
        model_class="servery_runtime_python.model:PythonModel",
        formats=(SupportedFormat(name="python", version="1", priority=1),),
    )
