"""The descriptor of the huggingface runtime. Does not import its framework.

vLLM is a runtime of its own, a package beside this one; ``--backend`` says where it serves in this one's place.
"""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Option, OptionKind, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor
from servery_sdk.toolcalls import ToolForm

from servery_runtime_huggingface.tasks import Task

OPTIONS = (
    Option(name="task", meaning="what the model does; found from its architecture if left out", choices=tuple(Task)),
    Option(name="backend", meaning="what runs the model", choices=("auto", "huggingface", "vllm")),
    Option(name="model_id", meaning="a model of the hub, instead of the files of --model-dir"),
    Option(name="model_revision", meaning="of --model-id"),
    Option(name="tokenizer_revision", meaning="of --model-id's tokenizer"),
    Option(
        name="max_length",
        meaning="tokens of a prompt and its text together; the model's own bound if left out",
        kind=OptionKind.INTEGER,
        aliases=("max_model_len",),
    ),
    Option(
        name="dtype",
        meaning="of the weights; auto is float32 on a CPU, float16 on a GPU",
        choices=("auto", "float", "float32", "half", "float16", "bfloat16"),
    ),
    Option(
        name="add_special_tokens", meaning="whether texts get the tokenizer's special tokens", kind=OptionKind.SWITCH
    ),
    Option(name="disable_special_tokens", meaning="the same, the other way round", kind=OptionKind.SWITCH),
    Option(name="disable_lower_case", meaning="leave capitals to the tokenizer", kind=OptionKind.SWITCH),
    Option(
        name="return_probabilities", meaning="answer probabilities instead of the likeliest", kind=OptionKind.SWITCH
    ),
    Option(name="return_raw_logits", meaning="answer logits instead of the likeliest", kind=OptionKind.SWITCH),
    Option(name="return_token_type_ids", meaning="give the model token type ids", kind=OptionKind.SWITCH),
    Option(name="tensor_input_names", meaning="the tokenizer's outputs that the model gets, with commas between them"),
    Option(name="trust_remote_code", meaning="run the code that lies beside the weights", kind=OptionKind.SWITCH),
    Option(name="chat_template", meaning="a file with the template of conversations, or the template itself"),
    Option(
        name="tool_call_parser",
        meaning="how the model writes calls of tools; found from its chat template if left out",
        choices=tuple(form for form in ToolForm if form is not ToolForm.LIST),
    ),
    Option(
        name="enable_auto_tool_choice",
        meaning="refuse to serve a model whose calls of tools would stay text",
        kind=OptionKind.SWITCH,
    ),
    Option(name="max_num_seqs", meaning="texts that are generated at one time", kind=OptionKind.INTEGER),
    *(
        Option(name=name, meaning=why, kind=kind, is_ignored=True)
        for name, kind, why in (
            ("disable_log_requests", OptionKind.SWITCH, "requests are never logged"),
            ("max_log_len", OptionKind.INTEGER, "requests are never logged"),
            ("gpu_memory_utilization", OptionKind.TEXT, "memory is taken as texts grow"),
            ("enable_prefix_caching", OptionKind.SWITCH, "no prefix is kept"),
            ("swap_space", OptionKind.TEXT, "texts are not swapped out"),
        )
    ),
)


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-huggingface``, which also stands for KServe's Hugging Face server."""
    yield predictor(
        "huggingface",
        model_class="servery_runtime_huggingface.model:HuggingFaceModel",
        formats=(SupportedFormat(name="huggingface", version="1", priority=1),),
        aliases=("kserve-huggingfaceserver", "huggingfaceserver"),
        local_images=("kserve/huggingfaceserver",),
        stand_in="servery_runtime_huggingface.backends:stand_in",
        options=OPTIONS,
    )
