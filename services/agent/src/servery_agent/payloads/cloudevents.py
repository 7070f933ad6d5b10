"""Payload events as CloudEvents 1.0 over HTTP, with KServe's types and extensions. By hand: it is two joins an event.

Source: CloudEvents 1.0, HTTP protocol binding, 3.1 and 3.2; JSON format; KServe pkg/logger/worker.go.
"""

from __future__ import annotations

import base64
import json
import re
import time
from functools import lru_cache

import orjson
from servery_sdk.payloads import Origin, PayloadEvent

STRUCTURED_TYPE = "application/cloudevents+json; charset=utf-8"
_TOLD = re.compile(r"[^\x20-\x24\x26-\x7e]")


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def timestamp(seconds: float) -> str:
    """Return a time since 1970 as RFC 3339 has it, to the microsecond."""
    whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_second(whole)}.{micro:06d}Z"


def attributes(event: PayloadEvent, origin: Origin) -> dict[str, str]:
    """Return an event's attributes and extensions by their names; those that say nothing are left out.

    KServe's, and ``subject``, ``statuscode``, ``truncated``, ``withheld``, which it has not.
    """
    return {**_of_origin(origin), **_of_event(event)}


def _of_origin(origin: Origin) -> dict[str, str]:
    said = {
        "specversion": "1.0",
        "source": origin.source,
        "inferenceservicename": origin.inference_service,
        "namespace": origin.namespace,
        "component": origin.component,
        "endpoint": origin.endpoint,
        "annotations": json.dumps(dict(origin.annotations)) if origin.annotations else "",
    }
    return {name: value for name, value in said.items() if value}


def _of_event(event: PayloadEvent) -> dict[str, str]:
    said = {
        "id": event.id,
        "type": event.part.event_type,
        "time": timestamp(event.occurred),
        "recordedtime": timestamp(event.recorded),
    }
    if event.subject:
        said["subject"] = event.subject
    if event.metadata:
        said["metadata"] = json.dumps(event.metadata)
    if event.status:
        said["statuscode"] = str(event.status)
    if not event.is_whole:
        said["truncated"] = "true"
    if event.is_withheld:
        said["withheld"] = "true"
    return said


def origin_headers(origin: Origin) -> bytes:
    """Return the header lines of binary mode that all events of an origin have, each with its end."""
    return _lines(_of_origin(origin))


def event_headers(event: PayloadEvent) -> bytes:
    """Return those that are an event's own, content type included."""
    return b"%bcontent-type: %b\r\n" % (_lines(_of_event(event)), event.content_type.encode("latin-1"))


def _lines(said: dict[str, str]) -> bytes:
    return "".join([f"ce-{name}: {_told(value)}\r\n" for name, value in said.items()]).encode("latin-1")


def _told(value: str) -> str:
    # Quotes and spaces stay as they are, as KServe sends them: the specification has a reader take both.
    return value if _TOLD.search(value) is None else _TOLD.sub(_percent, value)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "replace"))


def structured(event: PayloadEvent, origin: Origin) -> bytes:
    """Return the JSON of structured mode: a body that is JSON as it is, any other in base64."""
    said = orjson.dumps({**attributes(event, origin), "datacontenttype": event.content_type})
    if is_json(event):
        return b"".join((said[:-1], b',"data":', event.body, b"}"))
    return b'%b,"data_base64":"%b"}' % (said[:-1], base64.b64encode(event.body))


def is_json(event: PayloadEvent) -> bool:
    """Return whether the body is JSON, whatever it is called."""
    if not event.body or not event.is_whole or "json" not in event.content_type:
        return False
    try:
        orjson.loads(event.body)
    except orjson.JSONDecodeError:
        return False
    return True
