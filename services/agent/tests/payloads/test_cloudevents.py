"""What is sent is what the CloudEvents library reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.http import from_http
from servery_agent.payloads.cloudevents import (
    STRUCTURED_TYPE,
    attributes,
    event_headers,
    origin_headers,
    structured,
    timestamp,
)
from servery_sdk.payloads import Origin, Part, PayloadEvent

ORIGIN = Origin(
    source="http://localhost:9081/",
    inference_service="iris",
    namespace="demo",
    component="predictor",
    endpoint="default",
    annotations={"team": "red"},
)


def make_event(**more: Any) -> PayloadEvent:
    said: dict[str, Any] = {
        "id": "1",
        "part": Part.REQUEST,
        "occurred": 1_700_000_000.25,
        "recorded": 1_700_000_001.5,
        "content_type": "application/json",
        "body": b'{"instances":[[1.0]]}',
        "subject": "/v1/models/m:predict",
        "metadata": {"Foo": ["a", "b"]},
    }
    return PayloadEvent(**(said | more))


def read(event: PayloadEvent, *, is_structured: bool) -> Any:
    if is_structured:
        return from_http({"content-type": STRUCTURED_TYPE}, structured(event, ORIGIN))
    lines = (origin_headers(ORIGIN) + event_headers(event)).decode("latin-1").splitlines()
    return from_http(dict(line.split(": ", 1) for line in lines), event.body)


@pytest.mark.parametrize("is_structured", [False, True], ids=["binary", "structured"])
def test_event_is_read_as_kserves_agent_would_have_sent_it(is_structured: bool) -> None:
    event = read(make_event(), is_structured=is_structured)
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "1",
        "type": "org.kubeflow.serving.inference.request",
        "source": "http://localhost:9081/",
        "subject": "/v1/models/m:predict",
        "time": "2023-11-14T22:13:20.250000Z",
        "datacontenttype": "application/json",
        "inferenceservicename": "iris",
        "namespace": "demo",
        "component": "predictor",
        "endpoint": "default",
        "metadata": '{"Foo": ["a", "b"]}',
        "annotations": '{"team": "red"}',
        "recordedtime": "2023-11-14T22:13:21.500000Z",
    }
    assert event.data == {"instances": [[1.0]]}


@pytest.mark.parametrize("is_structured", [False, True], ids=["binary", "structured"])
@pytest.mark.parametrize("body", [b"\x00\xff", b"{broken", b""], ids=["bytes", "broken JSON", "nothing"])
def test_body_that_is_no_json_stays_as_it_is(body: bytes, is_structured: bool) -> None:
    event = make_event(body=body, part=Part.RESPONSE, status=500, content_type="text/plain", is_whole=False)
    sent = read(event, is_structured=is_structured)
    assert (sent.data or b"") == body
    said = sent.get_attributes()
    assert (said["type"], said["statuscode"], said["truncated"]) == (
        "org.kubeflow.serving.inference.response",
        "500",
        "true",
    )


def test_nothing_that_is_said_can_end_a_header() -> None:
    event = make_event(id="a\r\nb: c", subject="/ä%0a", metadata={"Foo": ["ü\n"]})
    lines = (origin_headers(ORIGIN) + event_headers(event)).decode("ascii").splitlines()
    assert "ce-id: a%0D%0Ab: c" in lines
    assert "ce-subject: /%C3%A4%250a" in lines
    assert all(line.startswith(("ce-", "content-type: ")) for line in lines)


def test_what_says_nothing_is_left_out() -> None:
    bare = attributes(make_event(subject="", metadata=None), Origin(source="s"))
    assert bare.keys() == {"specversion", "id", "type", "source", "time", "recordedtime"}
    assert json.loads(structured(make_event(), Origin(source="s")))["data"] == {"instances": [[1.0]]}


def test_seconds_that_round_up_carry() -> None:
    assert timestamp(0.9999999) == "1970-01-01T00:00:01.000000Z"
