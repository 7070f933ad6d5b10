"""Many events as one object: KServe's records as JSON, JSON lines and CSV; Parquet is ``parquet``'s.

Source: KServe pkg/logger/marshaller_*.go.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import orjson
from servery_sdk.manifests import Json
from servery_sdk.payloads import PayloadEvent, SinkTarget

from servery_agent.payloads.cloudevents import timestamp

COLUMNS = (
    "url",
    "bytes",
    "contentType",
    "reqType",
    "id",
    "sourceUri",
    "inferenceService",
    "namespace",
    "component",
    "endpoint",
    "metadata",
    "annotations",
    "certName",
    "tlsSkipVerify",
)
"""Of KServe's tables, in its order."""


def record(event: PayloadEvent, target: SinkTarget) -> dict[str, Json]:
    """Return an event as KServe's ``LogRequest`` is in JSON."""
    origin = target.origin
    return {
        "url": target.url,
        "bytes": base64.b64encode(event.body).decode("ascii"),
        "contentType": event.content_type,
        "reqType": event.part.event_type,
        "id": event.id,
        "sourceUri": origin.source,
        "inferenceService": origin.inference_service,
        "namespace": origin.namespace,
        "component": origin.component,
        "endpoint": origin.endpoint,
        "metadata": event.metadata,
        "annotations": dict(origin.annotations) or None,
        "certName": target.ca_file.name if target.ca_file else "",
        "tlsSkipVerify": not target.verifies_tls,
        "occurrenceTime": timestamp(event.occurred),
    }


def row(event: PayloadEvent, target: SinkTarget) -> list[str | bool]:
    """Return an event as a row of ``COLUMNS``: what has parts is JSON, what is not there is empty."""
    found = record(event, target)
    return [_cell(found[name]) for name in COLUMNS]


def _cell(value: Json) -> str | bool:
    if isinstance(value, Mapping):
        return orjson.dumps(value).decode()
    return value if isinstance(value, bool) else str(value or "")


def as_json(events: Sequence[PayloadEvent], target: SinkTarget) -> bytes:
    """Return one object where there is one event, else an array, as KServe does it."""
    records = [record(event, target) for event in events]
    return orjson.dumps(records[0] if len(records) == 1 else records)


def as_array(events: Sequence[PayloadEvent], target: SinkTarget) -> bytes:
    """Return what KServe asks a marshaller with."""
    return orjson.dumps([record(event, target) for event in events])


def as_lines(events: Sequence[PayloadEvent], target: SinkTarget) -> bytes:
    """Return an object a line."""
    return b"".join(orjson.dumps(record(event, target), option=orjson.OPT_APPEND_NEWLINE) for event in events)


def as_csv(events: Sequence[PayloadEvent], target: SinkTarget) -> bytes:
    """Return a head line and a line for each event."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for event in events:
        writer.writerow(str(cell).lower() if isinstance(cell, bool) else cell for cell in row(event, target))
    return text.getvalue().encode()


def key_of(event: PayloadEvent, target: SinkTarget, store_path: str, extension: str) -> str:
    """Return the name of the object that begins with ``event``, below what the URL names.

    Source: KServe pkg/logger/store.go, ``getObjectKey``. An id may be the client's: what would lead elsewhere is quoted.
    """
    origin = target.origin
    folders = [origin.namespace, origin.inference_service, origin.component, store_path.strip("/")]
    return "/".join([*filter(None, folders), f"{quote(event.id, safe=' :+@=')}-{event.part.value}.{extension}"])
