"""What settings mean to the log's parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from servery_sdk.errors import Permanent
from servery_sdk.payloads import Origin, Part, PayloadSink, SinkTarget

from servery_agent.payloads.capture import Selection
from servery_agent.payloads.delivery import Batches
from servery_agent.settings import Settings

CA_FOLDER = Path("/etc/tls/logger")
"""Where KServe mounts the certificates of sinks; a path that is absolute counts as it is."""
_MANY = 100_000
_DEFAULT_SECONDS = 10.0
"""That an event waits for others where only their number is said; KServe's agent would wait for ever."""


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def selection_of(settings: Settings) -> Selection:
    """Return what is logged."""
    parts = frozenset(Part) if settings.log_mode == "all" else frozenset({Part(settings.log_mode)})
    return Selection(
        parts=parts,
        share=settings.log_sampling,
        max_body_bytes=settings.log_max_body_bytes,
        headers={name.lower(): name for name in _names(settings.metadata_headers)},
    )


def target_of(settings: Settings) -> SinkTarget:
    """Return what a sink is opened with."""
    pairs = (pair.partition("=") for pair in _names(settings.metadata_annotations))
    origin = Origin(
        # KServe's agent says so where nobody told it its pod's name.
        source=settings.source_uri or f"http://localhost:{settings.port}/",
        inference_service=settings.inference_service,
        namespace=settings.namespace,
        component=settings.component,
        endpoint=settings.endpoint,
        annotations={name: value for name, _, value in pairs},
    )
    return SinkTarget(
        url=settings.log_url,
        origin=origin,
        timeout_seconds=settings.log_timeout_seconds,
        workers=settings.workers,
        is_structured=settings.log_content_mode == "structured",
        ca_file=CA_FOLDER / settings.logger_ca_cert_file if settings.logger_ca_cert_file else None,
        verifies_tls=not settings.logger_tls_skip_verify,
    )


def batches_of(settings: Settings) -> Batches:
    """Return how events become objects."""
    seconds = settings.log_batch_interval
    if not seconds and settings.log_batch_size > 1:
        seconds = _DEFAULT_SECONDS
    # An interval alone means as many as come in it.
    size = settings.log_batch_size if settings.log_batch_size > 1 or not seconds else _MANY
    return Batches(size=size, seconds=seconds, max_bytes=settings.log_batch_bytes, store_path=settings.log_store_path)


def sink_of(url: str, sinks: Mapping[str, PayloadSink]) -> PayloadSink:
    """Return the sink of a URL's scheme.

    Raises:
        Permanent: There is none; says which there are.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    for sink in sinks.values():
        if scheme in sink.schemes:
            return sink
    known = ", ".join(sorted(f'"{one}"' for sink in sinks.values() for one in sink.schemes))
    raise Permanent(f"--log-url: {url!r}: supported schemes: {known}")
