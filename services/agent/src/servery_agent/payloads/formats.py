"""How objects of many events are written: here, or by a marshaller that somebody else runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from servery_http.client import Client
from servery_http.messages import header
from servery_sdk.errors import Permanent, Transient
from servery_sdk.payloads import PayloadEvent, SinkTarget

from servery_agent.payloads.tables import as_array, as_csv, as_json, as_lines

KSERVES_MARSHALLER = "http://localhost:9083/marshal"
"""KServe's agent asks itself there; so do we, without the way round."""


@dataclass(frozen=True, slots=True)
class Written:
    """An object's bytes; ``extension`` has no dot."""

    content: bytes
    content_type: str
    extension: str


class Format(Protocol):
    """A way to write."""

    async def write(self, events: Sequence[PayloadEvent], target: SinkTarget) -> Written:
        """Return ``events``, of which there are some, as an object.

        Raises:
            Transient: Not now.
            Permanent: Never.
        """


@dataclass(frozen=True, slots=True)
class Inside:
    """Written by us, in a thread: a batch is some milliseconds' work."""

    name: str
    content_type: str
    function: Callable[[Sequence[PayloadEvent], SinkTarget], bytes]

    async def write(self, events: Sequence[PayloadEvent], target: SinkTarget) -> Written:
        """Return the object."""
        return Written(await asyncio.to_thread(self.function, events, target), self.content_type, self.name)


@dataclass(frozen=True, slots=True)
class Outside:
    """Written by a marshaller. Source: KServe pkg/logger/marshaller_http.go."""

    url: str

    async def write(self, events: Sequence[PayloadEvent], target: SinkTarget) -> Written:
        """Return what it answers."""
        asked = [(b"content-type", b"application/json")]
        async with Client() as client:
            answer = await client.request(
                "POST",
                self.url,
                headers=asked,
                body=as_array(events, target),
                timeout_seconds=target.timeout_seconds,
            )
        if answer.status // 100 != 2:
            said = answer.body[:200].decode("utf-8", "replace")
            failure = Permanent if answer.status in {400, 413, 422} else Transient
            raise failure(f"the marshaller {self.url} answers {answer.status}: {said}")
        extension = (header(answer.headers, b"x-log-marshal-extension") or b"json").decode("latin-1").lstrip(".")
        content_type = (header(answer.headers, b"content-type") or b"application/octet-stream").decode("latin-1")
        return Written(answer.body, content_type, extension)


def _parquet() -> Callable[[Sequence[PayloadEvent], SinkTarget], bytes]:
    try:
        from servery_agent.payloads.parquet import as_parquet  # pyarrow takes 40 MB, and may not be here
    except ImportError as error:
        raise Permanent(f"--log-store-format=parquet needs pyarrow: {error}; install servery-agent[parquet]") from error
    return as_parquet


FORMATS: dict[str, Callable[[], Inside]] = {
    "json": lambda: Inside("json", "application/json", as_json),
    "jsonl": lambda: Inside("jsonl", "application/x-ndjson", as_lines),
    "csv": lambda: Inside("csv", "text/csv", as_csv),
    "parquet": lambda: Inside("parquet", "application/vnd.apache.parquet", _parquet()),
}


def format_of(name: str, marshaller_url: str) -> Format:
    """Return the way to write; a marshaller of one's own counts before ``name``.

    Raises:
        Permanent: What it needs is not installed.
    """
    if marshaller_url and marshaller_url != KSERVES_MARSHALLER:
        return Outside(marshaller_url)
    return FORMATS[name]()
