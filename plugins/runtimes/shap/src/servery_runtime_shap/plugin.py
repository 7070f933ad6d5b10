"""The descriptor of the SHAP explainer. Does not import shap."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.explainers import OPTIONS
from servery_sdk.hooks import hookimpl
from servery_sdk.model import ComponentKind, Option, OptionKind, Protocol, Runtime
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-shap``, which manifests name by its image."""
    yield predictor(
        "shap",
        kind=ComponentKind.EXPLAINER,
        model_class="servery_runtime_shap.model:SHAPExplainer",
        formats=(),
        protocols=(Protocol.V1, Protocol.V2),
        options=(
            *OPTIONS,
            Option(
                name="algorithm",
                meaning="how Shapley values are estimated; exact where there are few columns, if left out",
                choices=("auto", "exact", "permutation", "kernel"),
            ),
            Option(name="max_evals", meaning="most questions for each row", kind=OptionKind.INTEGER),
            Option(name="seed", meaning="of what is drawn; 0 if left out", kind=OptionKind.INTEGER),
        ),
    )
