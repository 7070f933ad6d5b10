"""The descriptor of the TensorFlow runtime. Does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Protocol, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor

_FLAGS = {
    "port": "grpc_port",
    "rest_api_port": "http_port",
    "model_base_path": "model_dir",
    "tensorflow_intra_op_parallelism": "threads",
    # Of the server's own threads, batches and files; what they would change is measured here, or has no counterpart.
    **dict.fromkeys(
        (
            "batching_parameters_file",
            "enable_batching",
            "enable_cors_support",
            "enable_model_warmup",
            "enable_signature_method_name_check",
            "file_system_poll_wait_seconds",
            "flush_filesystem_caches",
            "grpc_channel_arguments",
            "grpc_max_threads",
            "load_retry_interval_micros",
            "max_num_load_retries",
            "monitoring_config_file",
            "num_load_threads",
            "num_unload_threads",
            "per_process_gpu_memory_fraction",
            "rest_api_enable_cors_support",
            "rest_api_num_threads",
            "rest_api_timeout_in_ms",
            "tensorflow_inter_op_parallelism",
            "tensorflow_session_parallelism",
        ),
        "",
    ),
}
"""Of ``tensorflow_model_server``."""


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-tensorflow``, which also stands for TensorFlow Serving on a machine without containers."""
    yield predictor(
        "tensorflow",
        model_class="servery_runtime_tensorflow.model:TensorFlowModel",
        formats=(
            SupportedFormat(name="tensorflow", version="1", priority=2),
            SupportedFormat(name="tensorflow", version="2", priority=2),
            SupportedFormat(name="keras", priority=2),
        ),
        protocols=(Protocol.V1, Protocol.V2, Protocol.GRPC_V1, Protocol.GRPC_V2),
        # KServe's catalogue calls the image by the runtime alone until its installer replaces it.
        aliases=("kserve-tensorflow-serving", "tensorflow-serving"),
        local_images=("tensorflow/serving",),
        local_flags=_FLAGS,
    )
