"""The descriptor of the vllm runtime. Does not import vLLM."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Option, OptionKind, Protocol, Runtime, SupportedFormat
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


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-vllm``, which also stands for KServe's and OME's vLLM servers."""
    yield predictor(
        "vllm",
        model_class="servery_runtime_vllm.model:VLLMModel",
        formats=(
            SupportedFormat(name="vLLM", version="1", priority=1),
            SupportedFormat(name="vllm", version="1", priority=1),
            # As KServe's server is asked for by name, or with --backend vllm; transformers' own runtime comes first.
            SupportedFormat(name="huggingface", version="1", auto_select=False),
        ),
        protocols=(Protocol.V1, Protocol.V2, Protocol.GRPC_V2),
        aliases=("kserve-vllmserver", "vllmserver"),
        local_images=("vllm/vllm-openai", "vllm/vllm-openai-cpu"),
        local_flags=_LOCAL_FLAGS,
        local_programs=("vllm.entrypoints.openai.api_server", "serve"),
        options=OPTIONS,
    )
