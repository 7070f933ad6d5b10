"""The descriptor of the vllm runtime. Does not import vLLM."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from servery_sdk.hooks import hookimpl
from servery_sdk.model import ComponentKind, Option, OptionKind, Part, Protocol, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor

from servery_runtime_vllm.flags import TASKS

OPTIONS = (
    Option(name="task", meaning="what the model does; vLLM finds it out if left out", choices=tuple(TASKS)),
    Option(name="backend", meaning="KServe's word for what runs the model", choices=("auto", "vllm")),
    Option(name="model_id", meaning="a model of the hub, instead of the files of --model-dir"),
    Option(name="model_revision", meaning="of --model-id"),
    Option(name="max_length", meaning="vLLM's --max-model-len", kind=OptionKind.INTEGER),
    *(
        Option(name=name, meaning=why, kind=kind, is_ignored=True)
        for name, kind, why in (
            ("disable_log_requests", OptionKind.SWITCH, "requests are logged with --enable-log-requests only"),
            ("disable_lower_case", OptionKind.SWITCH, "vLLM leaves capitals to the tokenizer"),
            ("disable_special_tokens", OptionKind.SWITCH, "requests say it: add_special_tokens"),
            ("add_special_tokens", OptionKind.SWITCH, "requests say it: add_special_tokens"),
            ("return_token_type_ids", OptionKind.SWITCH, "vLLM answers in its own forms"),
            ("return_probabilities", OptionKind.SWITCH, "vLLM answers in its own forms"),
            ("return_raw_logits", OptionKind.SWITCH, "vLLM answers in its own forms"),
            ("tensor_input_names", OptionKind.TEXT, "vLLM has no tensors to name"),
            ("swap_space", OptionKind.TEXT, "vLLM computes anew what does not fit"),
            ("preemption_mode", OptionKind.TEXT, "vLLM computes anew what does not fit"),
        )
    ),
    Option(
        name="arguments",
        meaning="all other flags are vLLM's: --tensor-parallel-size, --enable-lora, --tool-call-parser and so on",
        kind=OptionKind.UNKNOWN,
    ),
)

_LOCAL_FLAGS = {
    "port": "http_port",
    "host": "host",
    "model": "model_dir",
    # Of OME's own image, which is not here.
    "middleware": "",
}
_LOCAL_COPIES = {"served-model-name": "model_name", "served_model_name": "model_name"}

_ENV = (
    # The root file system is read-only; vLLM compiles, and downloads what it is told to.
    {"name": "HF_HOME", "value": "/tmp"},  # noqa: S108  # a volume of the pod
    {"name": "VLLM_CACHE_ROOT", "value": "/tmp/vllm"},  # noqa: S108  # likewise
    {"name": "VLLM_CONFIG_ROOT", "value": "/tmp/vllm"},  # noqa: S108  # likewise
    {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
)
_SHARED_MEMORY = "devshm"
_START_SECONDS = 1800
"""KServe's own: weights of hundreds of gigabytes are read, and kernels compiled."""


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-vllm``, which also stands for KServe's and OME's vLLM servers."""
    made = predictor(
        "vllm",
        model_class="servery_runtime_vllm.model:VLLMModel",
        formats=(
            SupportedFormat(name="vLLM", version="1", priority=1),
            # Transformers' own runtime comes first; this one is asked for by name.
            SupportedFormat(name="huggingface", version="1", auto_select=False),
        ),
        protocols=(Protocol.V1, Protocol.V2, Protocol.GRPC_V2, Protocol.OPENAI),
        aliases=("kserve-vllmserver", "vllmserver"),
        local_images=("vllm/vllm-openai", "vllm/vllm-openai-cpu"),
        local_flags=_LOCAL_FLAGS,
        local_programs=("vllm.entrypoints.openai.api_server", "serve"),
        options=OPTIONS,
    )
    part = made.parts[ComponentKind.PREDICTOR]
    yield replace(made, local_copies=_LOCAL_COPIES, parts={ComponentKind.PREDICTOR: _with_room(part)})


def _with_room(part: Part) -> Part:
    """Return the part with what vLLM wants beside a predictor's: caches, memory that its processes share, time to start.

    GPUs are the service's to ask for, as ``nvidia.com/gpu`` in ``resources``.
    """
    container = part.container
    probe = container["startupProbe"]
    return replace(
        part,
        container={
            **container,
            "env": list(_ENV),
            "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": _START_SECONDS // 5},
            "volumeMounts": [*container["volumeMounts"], {"name": _SHARED_MEMORY, "mountPath": "/dev/shm"}],  # noqa: S108
        },
        pod={**part.pod, "volumes": [*part.pod["volumes"], {"name": _SHARED_MEMORY, "emptyDir": {"medium": "Memory"}}]},
    )
