"""The sink that is a folder, and how objects are written."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from servery_agent.payloads.config import batches_of, sink_of, target_of
from servery_agent.payloads.files import FileSink
from servery_agent.payloads.formats import FORMATS
from servery_agent.payloads.http import HttpSink
from servery_agent.payloads.tables import COLUMNS, key_of
from servery_agent.settings import Settings
from servery_sdk.errors import Permanent
from servery_sdk.payloads import Origin, Part, PayloadEvent, PayloadSink, SinkTarget
from servery_sdk.testing.sinks import ObjectSinkContract, Store


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def url(self, prefix: str) -> str:
        return f"file://{self._path}/{prefix}"

    def missing_url(self) -> str:
        return "file:///nowhere"

    def objects(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self._path)): path.read_bytes() for path in self._path.rglob("*") if path.is_file()
        }


class TestFiles(ObjectSinkContract):
    @pytest.fixture
    def sink(self) -> PayloadSink:
        return FileSink()

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Folder(tmp_path)


TARGET = SinkTarget(
    url="s3://b/p", origin=Origin(source="pod", inference_service="iris", namespace="demo", component="predictor")
)
ROW = {
    "url": "s3://b/p",
    "bytes": base64.b64encode(b"\xff,\n").decode(),
    "contentType": "text/plain",
    "reqType": "org.kubeflow.serving.inference.response",
    "id": "1",
    "sourceUri": "pod",
    "inferenceService": "iris",
    "namespace": "demo",
    "component": "predictor",
    "endpoint": "",
    "metadata": '{"Foo":["a,b"]}',
    "annotations": "",
    "certName": "",
    "tlsSkipVerify": False,
}


def make_event(identified: str = "1") -> PayloadEvent:
    return PayloadEvent(
        id=identified,
        part=Part.RESPONSE,
        occurred=0.0,
        content_type="text/plain",
        body=b"\xff,\n",
        metadata={"Foo": ["a,b"]},
        status=200,
    )


async def written(name: str, *events: PayloadEvent) -> bytes:
    return (await FORMATS[name]().write(events, TARGET)).content


def test_columns_are_kserves() -> None:
    assert tuple(ROW) == COLUMNS


async def test_csv_has_a_head_and_a_row_for_each_event() -> None:
    rows = list(csv.DictReader(io.StringIO((await written("csv", make_event(), make_event("2"))).decode())))
    assert rows == [{**ROW, "tlsSkipVerify": "false"}, {**ROW, "tlsSkipVerify": "false", "id": "2"}]


async def test_parquet_has_the_same_columns() -> None:
    table = pq.read_table(io.BytesIO(await written("parquet", make_event(), make_event("2"))))
    assert table.to_pylist() == [ROW, {**ROW, "id": "2"}]


async def test_json_is_an_object_or_an_array_and_lines_are_lines() -> None:
    one = json.loads(await written("json", make_event()))
    more = {"metadata": {"Foo": ["a,b"]}, "annotations": None, "occurrenceTime": "1970-01-01T00:00:00.000000Z"}
    assert one == {**ROW, **more}
    both = [one, {**one, "id": "2"}]
    assert json.loads(await written("json", make_event(), make_event("2"))) == both
    lines = await written("jsonl", make_event(), make_event("2"))
    assert [json.loads(line) for line in lines.splitlines()] == both


@pytest.mark.parametrize(
    ("identified", "key"),
    [
        ("1", "demo/iris/predictor/a/b/1-response.json"),
        ("../../x", "demo/iris/predictor/a/b/..%2F..%2Fx-response.json"),
        ("a b", "demo/iris/predictor/a/b/a b-response.json"),
    ],
)
def test_key_is_kserves_and_leads_nowhere_else(identified: str, key: str) -> None:
    assert key_of(make_event(identified), TARGET, "/a/b/", "json") == key


@pytest.mark.parametrize(
    ("given", "size", "seconds"),
    [
        pytest.param({}, 1, 0.0, id="each by itself"),
        pytest.param({"log_batch_size": 5}, 5, 10.0, id="a size alone also ends by time"),
        pytest.param({"log_batch_size": 5, "log_batch_interval": "2s"}, 5, 2.0, id="both"),
        pytest.param({"log_batch_interval": "2s"}, 100_000, 2.0, id="an interval alone takes all that come"),
    ],
)
def test_batches_end_by_size_or_time(given: dict[str, Any], size: int, seconds: float) -> None:
    batches = batches_of(Settings(**given))
    assert (batches.size, batches.seconds) == (size, seconds)


def test_certificates_lie_where_kserve_mounts_them() -> None:
    assert target_of(Settings(logger_ca_cert_file="ca.crt")).ca_file == Path("/etc/tls/logger/ca.crt")
    assert target_of(Settings(logger_ca_cert_file="/own/ca.crt")).ca_file == Path("/own/ca.crt")
    assert target_of(Settings(port=7)).origin.source == "http://localhost:7/"


@pytest.mark.parametrize("url", ["kafka://b", "nothing", ""])
def test_scheme_that_no_sink_has_is_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(Permanent, match='supported schemes: "file", "http", "https"'):
        sink_of(url, {"http": HttpSink(), "file": FileSink()})
