"""The descriptor of the PMML runtime. Does not import JPMML."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-pmml``, which also stands for KServe's PMML server."""
    yield predictor(
        "pmml",
        model_class="servery_runtime_pmml.model:PMMLModel",
        formats=tuple(SupportedFormat(name="pmml", version=version, priority=1) for version in ("4", "3")),
        aliases=("kserve-pmmlserver",),
        local_images=("kserve/pmmlserver",),
    )
