"""What the predictor counts."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The predictor's metrics, in a registry of their own or the process's."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.requests = Counter(
            "servery_predictor_requests",
            "Answered inference requests.",
            ("model", "protocol", "code"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "servery_predictor_request_seconds",
            "From decoded request to answer, the wait for the model included.",
            ("model", "protocol"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "servery_predictor_batch_rows",
            "Rows of one call of the model.",
            ("model",),
            buckets=_ROWS,
            registry=registry,
        )
        self.predict_seconds = Histogram(
            "servery_predictor_predict_seconds",
            "One call of the model.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.ready = Gauge("servery_predictor_model_ready", "1 where the model answers.", ("model",), registry=registry)
        self.prompt_tokens = Counter(
            "servery_predictor_prompt_tokens",
            "Tokens of prompts and of texts to embed or rank.",
            ("model",),
            registry=registry,
        )
        self.generated_tokens = Counter(
            "servery_predictor_generated_tokens", "Tokens generated.", ("model",), registry=registry
        )
        self.first_token_seconds = Histogram(
            "servery_predictor_first_token_seconds",
            "From decoded request to the first piece of a streamed text.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
