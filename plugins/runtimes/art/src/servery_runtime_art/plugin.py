"""The descriptor of the ART explainer. Does not import the toolbox."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.explainers import OPTIONS
from servery_sdk.hooks import hookimpl
from servery_sdk.model import ComponentKind, Option, OptionKind, Protocol, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-art``, for KServe's ``explainer.art`` and its image."""
    yield predictor(
        "art",
        kind=ComponentKind.EXPLAINER,
        model_class="servery_runtime_art.model:ARTExplainer",
        formats=(SupportedFormat(name="art", priority=1),),
        protocols=(Protocol.V1, Protocol.V2),
        local_images=("kserve/art-explainer",),
        local_flags={"storage_uri": "model_dir"},
        options=(
            *OPTIONS,
            Option(name="adversary_type", meaning="the attack", choices=("SquareAttack", "squareattack")),
            Option(name="nb_classes", meaning="how many classes the predictor knows", kind=OptionKind.INTEGER),
            Option(name="max_iter", meaning="most steps of the attack", kind=OptionKind.INTEGER),
            Option(
                name="keep_shape",
                meaning="ask the predictor with images in their shape, where KServe's explainer makes rows of them",
                kind=OptionKind.SWITCH,
            ),
        ),
    )
