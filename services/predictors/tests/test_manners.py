"""What clients ask in headers: compression, other origins, CloudEvents, request ids."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
PREDICT = "/v1/models/iris:predict"
ANSWER = {"predictions": [1, 1]}
PAGE = "https://page.example"
ATTRIBUTES = {
    "id": "36077800-0c23-4f38-a0b4-01f4369f670a",
    "source": "https://example.com/event-producer",
    "type": "com.example.sampletype1",
    "time": "2020-12-08T01:51:01.4Z",
    "shelf": "upper",
}


@pytest.fixture
async def http(predictor: Predictor):  # type: ignore[no-untyped-def]
    async with httpx.AsyncClient(base_url=predictor.http.url) as client:
        yield client


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_tritonclient_compresses_what_it_asks_and_reads_what_comes_compressed(
    predictor: Predictor, algorithm: str
) -> None:
    rows = np.tile(np.array(ROWS), (5000, 1))

    def ask(binary: bool) -> list[int]:
        with tritonclient.http.InferenceServerClient(predictor.http.url.removeprefix("http://")) as client:
            given = tritonclient.http.InferInput("x", rows.shape, "FP64")
            given.set_data_from_numpy(rows, binary_data=binary)
            answer = client.infer(
                "iris",
                [given],
                outputs=[tritonclient.http.InferRequestedOutput("output-0", binary_data=binary)],
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            found: list[int] = answer.as_numpy("output-0").tolist()
            return found

    assert await asyncio.to_thread(ask, True) == [1] * 10000
    assert await asyncio.to_thread(ask, False) == [1] * 10000


async def test_answers_are_compressed_from_a_size_on(start: Any, iris: Path) -> None:
    predictor = await start(iris, min_compressed_bytes=len(b'{"predictions":[1,1]}'))
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        for rows, coding in ((ROWS, "gzip"), (ROWS[:1], None)):
            answer = await http.post(PREDICT, json={"instances": rows})
            assert answer.json() == {"predictions": [1] * len(rows)}
            assert answer.headers.get("content-encoding") == coding


async def test_compressed_bodies_are_bounded_like_others(http: httpx.AsyncClient) -> None:
    body = gzip.compress(json.dumps({"instances": ROWS}).encode() + b" " * 1_000_000)
    answer = await http.post(PREDICT, content=body, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (
        413,
        {"error": "the body, decompressed, is longer than 1000000 bytes"},
    )


@pytest.mark.parametrize(("path", "method"), [(PREDICT, "POST"), ("/v2/models/iris", "GET")], ids=["hot", "other"])
async def test_a_page_of_an_allowed_origin_may_ask(start: Any, iris: Path, path: str, method: str) -> None:
    predictor = await start(iris, cors_allowed_origin=f"https://a.example, {PAGE}", cors_allowed_headers="x-mine")
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        asked = {"access-control-request-method": method, "access-control-request-headers": "content-type, x-mine"}
        preflight = await http.options(path, headers={"origin": PAGE, **asked})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert preflight.headers["access-control-allow-methods"] == "GET, POST"
        assert {"content-type", "x-mine"} <= set(preflight.headers["access-control-allow-headers"].lower().split(", "))
        body = json.dumps({"instances": ROWS}) if method == "POST" else None
        answer = await http.request(method, path, content=body, headers={"origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        other = await http.request(method, path, content=body, headers={"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_no_page_is_let_in_unless_somebody_says_so(http: httpx.AsyncClient) -> None:
    answer = await http.post(PREDICT, json={"instances": ROWS}, headers={"origin": PAGE})
    preflight = await http.options(PREDICT, headers={"origin": PAGE, "access-control-request-method": "POST"})
    assert answer.json() == ANSWER
    assert preflight.status_code == 405
    assert not [name for one in (answer, preflight) for name in one.headers if name.startswith("access-control")]


async def test_a_requests_id_comes_back_and_its_secrets_do_not(http: httpx.AsyncClient) -> None:
    sent = {"x-request-id": "77", "authorization": "Bearer secret", "x-b3-traceid": "1"}
    answer = await http.post(PREDICT, json={"instances": ROWS}, headers=sent)
    assert answer.headers["x-request-id"] == "77"
    assert "secret" not in str(answer.headers)
    assert "x-request-id" not in (await http.post(PREDICT, json={"instances": ROWS})).headers


# CloudEvents: the answers of KServe's own server to the same requests are what is expected.


KSERVES = """
import asyncio, json, sys, warnings
import httpx, kserve
from fastapi import FastAPI
from kserve.errors import InvalidInput, invalid_input_handler
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.v1_endpoints import register_v1_endpoints

warnings.simplefilter("ignore")

class Iris(kserve.Model):
    def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": [1] * len(payload["instances"])}

async def answers(path, requests):
    model = Iris("iris")
    model.ready = True
    repository = ModelRepository()
    repository.update(model)
    app = FastAPI()
    register_v1_endpoints(app, DataPlane(repository), None)
    app.add_exception_handler(InvalidInput, invalid_input_handler)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kserve") as client:
        for headers, body in requests:
            answer = await client.post(path, content=body, headers=headers)
            yield answer.status_code, dict(answer.headers), answer.text

async def main():
    return [answer async for answer in answers(*json.load(sys.stdin))]

json.dump(asyncio.run(main()), sys.stdout)
"""


def kserves(requests: list[tuple[dict[str, str], bytes]], **environment: str) -> list[httpx.Response]:
    """What KServe's own server answers; in a process of its own, for its messages have the names of tritonclient's."""
    asked = json.dumps([PREDICT, [(headers, body.decode()) for headers, body in requests]])
    done = subprocess.run(
        [sys.executable, "-c", KSERVES], input=asked, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [httpx.Response(code, headers=headers, text=text) for code, headers, text in json.loads(done.stdout)]


def event(**changes: str | None) -> CloudEvent:
    attributes = {name: value for name, value in {**ATTRIBUTES, **changes}.items() if value is not None}
    return CloudEvent(attributes, {"instances": ROWS})


def binary(**changes: str | None) -> tuple[dict[str, str], bytes]:
    headers, body = to_binary(event(**changes))
    return dict(headers), body


def structured(**changes: str | None) -> tuple[dict[str, str], bytes]:
    headers, body = to_structured(event(**changes))
    return dict(headers), body


def told(answer: httpx.Response) -> Any:
    """What an answer says, but for what is new each time."""
    if answer.status_code != 200 or not ("ce-id" in answer.headers or b'"specversion"' in answer.content):
        return answer.status_code, answer.headers["content-type"], answer.status_code != 200 or answer.json()
    found = from_http(dict(answer.headers), answer.content)
    attributes = dict(found.get_attributes())
    assert attributes.pop("id") != ATTRIBUTES["id"]
    assert attributes.pop("time") > "2026"
    attributes.pop("datacontenttype", None)
    return answer.headers["content-type"], attributes, found.get_data()


HALF = {name: value for name, value in binary()[0].items() if name != "ce-source"}
SENT = {
    "binary": binary(),
    "binary with a content type": binary(datacontenttype="application/json"),
    "binary of the future": ({**binary()[0], "ce-specversion": "9"}, binary()[1]),
    "binary, half": (HALF, binary()[1]),
    "structured": structured(),
    "structured as JSON": ({"content-type": "application/json"}, structured()[1]),
}


@pytest.mark.parametrize("merge", ["false", "true"], ids=["apart", "merged"])
async def test_events_are_answered_as_kserve_answers_them(
    start: Any, iris: Path, monkeypatch: pytest.MonkeyPatch, merge: str
) -> None:
    monkeypatch.setenv("CE_MERGE", merge)
    predictor = await start(iris)
    theirs = await asyncio.to_thread(kserves, [*SENT.values()], CE_MERGE=merge)
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        ours = [await http.post(PREDICT, content=body, headers=headers) for headers, body in SENT.values()]
    for name, our, their in zip(SENT, ours, theirs, strict=True):
        assert told(our) == told(their), (name, our.text, their.text)


async def test_type_and_source_of_answers_are_settings(start: Any, iris: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CE_TYPE", "a.type")
    monkeypatch.setenv("CE_SOURCE", "a.source")
    predictor = await start(iris)
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        for headers, body in (binary(), structured()):
            answer = from_http(
                dict((found := await http.post(PREDICT, content=body, headers=headers)).headers), found.content
            )
            assert (answer["type"], answer["source"], answer.get_data()) == ("a.type", "a.source", ANSWER)


def test_our_own_variable_wins_over_kserves_and_a_flag_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CE_TYPE", "theirs")
    monkeypatch.setenv("SERVERY_PREDICTOR_CE_TYPE", "ours")
    assert Settings(runtime="sklearn").ce_type == "ours"
    assert Settings(runtime="sklearn", ce_type="flag").ce_type == "flag"


async def test_a_compressed_event_is_one_too(http: httpx.AsyncClient) -> None:
    for headers, body in (binary(), structured()):
        sent = {**headers, "content-encoding": "gzip"}
        answer = await http.post(PREDICT, content=gzip.compress(body), headers=sent)
        assert from_http(dict(answer.headers), answer.content).get_data() == ANSWER


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": [1]}, "JSON"),
        ({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"rows": ROWS}}, '"rows"'),
        ({"specversion": "1.0", "id": "1", "source": "s", "type": "t"}, '"instances"'),
    ],
    ids=["no object", "other data", "no data"],
)
async def test_an_event_that_asks_nothing_is_refused(http: httpx.AsyncClient, document: Any, words: str) -> None:
    for data in (document, {**document, "data": document}):
        answer = await http.post(PREDICT, json=data, headers={"content-type": "application/cloudevents+json"})
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
    answer = await http.post(PREDICT, json=document, headers={"content-type": "application/cloudevents+json"})
    assert words in answer.json()["error"], answer.text


async def test_other_protocols_take_no_events(http: httpx.AsyncClient) -> None:
    body = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}
    answer = await http.post("/v2/models/iris/infer", json=body, headers=binary()[0])
    assert (answer.status_code, [name for name in answer.headers if name.startswith("ce-")]) == (200, [])
