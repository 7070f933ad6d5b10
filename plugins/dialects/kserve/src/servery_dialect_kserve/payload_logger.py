"""A component's ``logger``: where its requests and answers are logged.

Source: KServe LoggerSpec.
"""

from __future__ import annotations

from collections.abc import Iterator

from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import PayloadLogging
from servery_sdk.model.service import LogMode
from servery_sdk.openapi import TEXT, Schema, array, free, integer, record, string

SCHEMA: Schema = record(
    "Logs requests and answers, as CloudEvents or as objects in a bucket.",
    {
        "url": string(
            "Where to: http, https, or a bucket such as s3://bucket/prefix; KServe's broker where none is given."
        ),
        "mode": string("Which half: all, request or response."),
        "metadataHeaders": array("Headers of the request that are logged.", TEXT),
        "metadataAnnotations": array("Annotations that are logged.", TEXT),
        "marshallerUrl": string("Who writes objects instead of the agent."),
        "batchSize": integer("Events of an object, at most.", minimum=1),
        "batchInterval": string("How long an event waits for others of its object, such as 10s."),
        "storage": free("Not supported by Servery yet; refused."),
    },
)


def errors(path: str, logger: Json) -> Iterator[FieldError]:
    """Yield what is wrong with the logger at ``path``, None where there is none."""
    if not isinstance(logger, dict):
        return
    mode = logger.get("mode")
    # KServe has no default here: it refuses a logger without a mode as one of a wrong type.
    if mode is None:
        yield FieldError(path=f"{path}.mode", kind=FieldErrorKind.REQUIRED, detail=", ".join(sorted(LogMode)))
    elif isinstance(mode, str) and mode not in set(LogMode):
        yield unsupported(f"{path}.mode", mode, LogMode)
    if logger.get("storage") is not None:
        yield FieldError(
            path=f"{path}.storage",
            kind=FieldErrorKind.FORBIDDEN,
            detail="not supported by Servery yet; a bucket in url is written to with the pod's own service account",
        )


def logging(logger: Manifest | None) -> PayloadLogging | None:
    """Return what a logger that is right means."""
    if logger is None:
        return None
    return PayloadLogging(
        url=logger.get("url"),
        mode=LogMode(logger["mode"]),
        metadata_headers=tuple(logger.get("metadataHeaders") or ()),
        metadata_annotations=tuple(logger.get("metadataAnnotations") or ()),
        marshaller_url=logger.get("marshallerUrl"),
        batch_size=logger.get("batchSize"),
        batch_interval=logger.get("batchInterval"),
    )


def written(logging: PayloadLogging | None) -> Manifest | None:
    """Return the logger that means this; the inverse of ``logging``."""
    if logging is None:
        return None
    said: dict[str, Json] = {
        "url": logging.url,
        "mode": logging.mode.value,
        "metadataHeaders": list(logging.metadata_headers) or None,
        "metadataAnnotations": list(logging.metadata_annotations) or None,
        "marshallerUrl": logging.marshaller_url,
        "batchSize": logging.batch_size,
        "batchInterval": logging.batch_interval,
    }
    return {name: value for name, value in said.items() if value is not None}
