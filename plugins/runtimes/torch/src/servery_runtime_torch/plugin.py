"""The descriptor of the torch runtime. Does not import its framework."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Option, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-torch``, which also stands for TorchServe."""
    yield predictor(
        "torch",
        model_class="servery_runtime_torch.model:TorchModel",
        formats=(
            SupportedFormat(name="pytorch", version="2", priority=1),
            SupportedFormat(name="pytorch", version="1", priority=1),
        ),
        aliases=("kserve-torchserve",),
        local_images=("pytorch/torchserve-kfs", "pytorch/torchserve", "kserve/pytorchserver"),
        # An explainer that has the model itself: Captum's gradients cannot be asked for over REST.
        options=(Option(name="predictor_host", meaning="the model is here, nobody else is asked", is_ignored=True),),
        local_flags={
            "model-store": "model-dir",
            # The configuration lies beside the model store, and is found there.
            "ts-config": "",
            "start": "",
            "foreground": "",
            "ncs": "",
            "no-config-snapshots": "",
            "disable-token-auth": "",
            "enable-model-api": "",
        },
    )
