"""A component's ``logger``: where its requests and answers are logged.

Source: KServe LoggerSpec.
"""

from __future__ import annotations

from collections.abc import Iterator

from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import PayloadLogging
from servery_sdk.model.service import LogMode
from servery_sdk.openapi import TEXT, Schema, array, integer, record, string, texts

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
        "storage": record(
            "How objects are stored, where url is a bucket.",
            {
                "path": string("Of the objects, below the bucket's prefix and the service's names."),
                "parameters": texts("type, of the store, which url says already; format: json, jsonl, csv or parquet."),
                "key": string("KServe's, which asks for it and reads it nowhere; so do we."),
                "serviceAccountName": string("Whose secrets open the bucket; logger-sa where none is given."),
            },
        ),
    },
)
ACCOUNT = "logger-sa"
_KEY = "credentials"
_FORMATS = ("csv", "json", "jsonl", "parquet")


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
    storage = logger.get("storage")
    if isinstance(storage, dict):
        yield from _storage_errors(f"{path}.storage", storage)


def _storage_errors(path: str, storage: Manifest) -> Iterator[FieldError]:
    # KServe says "invalid logger storage configuration" for all of these.
    for name in ("path", "parameters", "key"):
        if not storage.get(name):
            yield FieldError(path=f"{path}.{name}", kind=FieldErrorKind.REQUIRED)
    parameters = storage.get("parameters")
    if isinstance(parameters, dict) and parameters.get("format", "json") not in _FORMATS:
        yield unsupported(f"{path}.parameters.format", parameters["format"], _FORMATS)


def account(logger: Json) -> str | None:
    """Return the service account whose secrets a logger's store is opened with; None where it says nothing of a store."""
    storage = logger.get("storage") if isinstance(logger, dict) else None
    return str(storage.get("serviceAccountName") or ACCOUNT) if isinstance(storage, dict) else None


def logging(logger: Manifest | None) -> PayloadLogging | None:
    """Return what a logger that is right means."""
    if logger is None:
        return None
    storage = logger.get("storage") or {}
    return PayloadLogging(
        url=logger.get("url"),
        mode=LogMode(logger["mode"]),
        metadata_headers=tuple(logger.get("metadataHeaders") or ()),
        metadata_annotations=tuple(logger.get("metadataAnnotations") or ()),
        marshaller_url=logger.get("marshallerUrl"),
        batch_size=logger.get("batchSize"),
        batch_interval=logger.get("batchInterval"),
        store_path=storage.get("path"),
        store_format=(storage.get("parameters") or {}).get("format"),
        account=account(logger),
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
        "storage": _written_storage(logging),
    }
    return {name: value for name, value in said.items() if value is not None}


def _written_storage(logging: PayloadLogging) -> Manifest | None:
    if logging.store_path is None:
        return None
    # KServe wants parameters and a key of every store.
    return {
        "path": logging.store_path,
        "parameters": {"format": logging.store_format or "json"},
        "key": _KEY,
        "serviceAccountName": logging.account or ACCOUNT,
    }
