"""The descriptor of the scikit-learn runtime. Does not import scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-sklearn``, which also stands for KServe's and MLServer's scikit-learn servers."""
    yield predictor(
        "sklearn",
        model_class="servery_runtime_sklearn.model:SKLearnModel",
        formats=(
            SupportedFormat(name="sklearn", version="1", priority=1),
            SupportedFormat(name="sklearn", version="0", priority=1),
        ),
        aliases=("kserve-sklearnserver",),
        local_images=("kserve/sklearnserver",),
    )
