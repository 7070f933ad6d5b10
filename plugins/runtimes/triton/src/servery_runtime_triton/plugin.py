"""The descriptor of the triton runtime. Does not import its framework."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.model import Option, Protocol, Runtime, SupportedFormat
from servery_sdk.runtimes import predictor

_FLAGS = {
    "model-store": "model_dir",
    "model-repository": "model_dir",
    "http-port": "http_port",
    "grpc-port": "grpc_port",
    "allow-grpc": "enable_grpc",
    "allow-client-shm": "allow_client_shm",
    "trace-file": "trace_file",
    # Not a flag, but the first argument of KServe's catalogue and of Triton's own documentation.
    "tritonserver": "",
    **dict.fromkeys(
        (
            "allow-cpu-metrics",
            "allow-gpu-metrics",
            "allow-http",
            "allow-metrics",
            "backend-config",
            "backend-directory",
            "buffer-manager-thread-count",
            "cache-config",
            "cuda-memory-pool-byte-size",
            "disable-auto-complete-config",
            "exit-on-error",
            "exit-timeout-secs",
            "grpc-address",
            "http-address",
            "http-thread-count",
            "load-model",
            "log-error",
            "log-format",
            "log-info",
            "log-verbose",
            "log-warning",
            "metrics-port",
            "min-supported-compute-capability",
            "model-control-mode",
            "model-load-thread-count",
            "pinned-memory-pool-byte-size",
            "rate-limit",
            "repository-poll-secs",
            "strict-model-config",
            "strict-readiness",
        ),
        "",
    ),
}
"""Of ``tritonserver``; the spellings with underscores, which it takes as well, follow below."""


@hookimpl
def servery_runtimes() -> Iterable[Runtime]:
    """Contribute ``servery-triton``, which also stands for Triton's own server on a machine without containers."""
    yield predictor(
        "triton",
        model_class="servery_runtime_triton.model:TritonModel",
        formats=(
            SupportedFormat(name="triton", version="2", priority=1),
            # Only where the runtime is named: other runtimes take such files without a repository around them.
            SupportedFormat(name="onnx", version="1", auto_select=False),
            SupportedFormat(name="pytorch", version="1", auto_select=False),
        ),
        protocols=(Protocol.V2, Protocol.GRPC_V2),
        aliases=("kserve-tritonserver",),
        options=(
            Option(
                name="engine",
                meaning="who runs the models: NVIDIA's tritonserver, Servery's own backends, "
                "or (auto) the first where it is installed and has the backends",
                choices=("auto", "servery", "tritonserver"),
            ),
        ),
        local_images=("nvcr.io/nvidia/tritonserver",),
        local_flags={**_FLAGS, **{theirs.replace("-", "_"): ours for theirs, ours in _FLAGS.items()}},
    )
