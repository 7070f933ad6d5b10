"""The descriptor of the runtime for models of one's own."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Option, OptionKind, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor

OPTIONS = (
    Option(name="model_file", meaning="the artifact's Python file; model.py, or the only one, if left out"),
    Option(
        name="arguments",
        meaning="all other flags, --predictor_host among them, go to a file that is a program of KServe's",
        kind=OptionKind.LEFTOVER,
    ),
)


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-python``."""
    yield predictor(
        "python",
        model_class="servery_runtime_python.model:PythonModel",
        formats=(SupportedFormat(name="python", version="1", priority=1),),
        options=OPTIONS,
    )
