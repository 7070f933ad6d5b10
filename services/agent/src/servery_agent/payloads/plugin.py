"""The sinks that are built in, as Servery finds them."""

from __future__ import annotations

from collections.abc import Iterable

from servery_sdk.hooks import hookimpl
from servery_sdk.payloads import PayloadSink

from servery_agent.payloads.files import FileSink
from servery_agent.payloads.http import HttpSink


@hookimpl
def servery_payload_sinks() -> Iterable[PayloadSink]:
    """Contribute HTTP and files."""
    yield HttpSink()
    yield FileSink()
