"""Bodies on their way in: as large as a model takes, and never whole in the platform's memory."""

from __future__ import annotations

import http.client
import json
import tracemalloc
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

MIB = 1024 * 1024
MODEL = """
class Model:
    batchable = False

    def predict(self, inputs):
        (values,) = inputs.values()
        return values.sum(keepdims=True)
"""


@pytest.fixture(scope="module")
def summing(local: Local, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("summing")
    (folder / "model").mkdir()
    (folder / "model" / "model.py").write_text(MODEL)
    (folder / "service.yaml").write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: summing}\n"
        "spec: {predictor: {model: {modelFormat: {name: python}, storageUri: file://./model}}}\n"
    )
    local.up(folder / "service.yaml")
    return "summing"


@pytest.mark.parametrize("sized", [True, False], ids=["content-length", "chunked"])
def test_64_mib_pass_in_bounded_memory(local: Local, summing: str, sized: bool) -> None:
    tensor = {
        "name": "x",
        "shape": [64 * MIB],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": 64 * MIB},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Host": f"{summing}.default.localhost", "Inference-Header-Content-Length": str(len(head))}
    if sized:
        headers["Content-Length"] = str(len(head) + 64 * MIB)

    def body() -> Iterator[bytes]:
        yield head
        piece = b"\x01" * MIB
        for _ in range(64):
            yield piece

    connection = http.client.HTTPConnection(urlsplit(local.url).netloc, timeout=60)
    tracemalloc.start()
    try:
        connection.request("POST", f"/v2/models/{summing}/infer", body(), headers, encode_chunked=not sized)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        connection.close()
    assert answer.status == 200, found
    assert found["outputs"][0]["data"] == [64 * MIB]
    assert peak_bytes < 12 * MIB


def test_unknown_host_is_answered_though_its_body_is_large(local: Local) -> None:
    connection = http.client.HTTPConnection(urlsplit(local.url).netloc, timeout=60)
    connection.request("POST", "/", b"x" * (8 * MIB), {"Host": "nobody.example.com"})
    answer = connection.getresponse()
    assert (answer.status, b"no service answers at host" in answer.read()) == (404, True)
    connection.close()
