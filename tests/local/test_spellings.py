"""Every way to say the same service, each over every protocol, with the clients that people have."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
SPELLINGS = sorted((ROOT / "examples" / "sklearn-iris" / "spellings").glob("*.yaml"))
CATALOGUE = ROOT.parent / "shared" / "corpus" / "kserve-runtimes" / "config__runtimes__kserve-sklearnserver.yaml"
IRIS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


@pytest.fixture(scope="session", params=SPELLINGS, ids=lambda path: path.stem)
def spelling(request: pytest.FixtureRequest, local: Local) -> str:
    path: Path = request.param
    sources: list[Path] = [path]
    if path.stem == "cluster-runtime":
        if not CATALOGUE.exists():
            pytest.skip("KServe's catalogue of runtimes is not beside the checkout (../shared)")
        sources.append(CATALOGUE)
    local.up(*sources)
    return f"iris-{path.stem}"


def ask(local: Local, name: str, path: str, request: Any, host: str | None = None) -> Any:
    asked = urllib.request.Request(
        local.url + path,
        data=json.dumps(request).encode(),
        headers={"Host": host or f"{name}.default.localhost", "Content-Type": "application/x-www-form-urlencoded"},
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.loads(answer.read())


def test_v1_answers_at_both_kinds_of_host(local: Local, spelling: str) -> None:
    for host in (f"{spelling}.default.localhost", f"{spelling}-default.example.com"):
        answer = ask(local, spelling, f"/v1/models/{spelling}:predict", {"instances": IRIS}, host)
        assert answer == {"predictions": [1, 1]}


def test_v2_json_answers(local: Local, spelling: str) -> None:
    tensor = {"name": "input-0", "shape": [2, 4], "datatype": "FP64", "data": IRIS}
    answer = ask(local, spelling, f"/v2/models/{spelling}/infer", {"inputs": [tensor]})
    assert answer["outputs"][0]["data"] == [1, 1]


def test_v2_binary_answers_the_triton_client(local: Local, spelling: str) -> None:
    http = pytest.importorskip("tritonclient.http")
    address = f"{local.pods(spelling)[0]['status']['podIP']}:8080"
    client = http.InferenceServerClient(address)
    try:
        assert client.is_model_ready(spelling)
        given = http.InferInput("input-0", [2, 4], "FP64")
        given.set_data_from_numpy(np.array(IRIS), binary_data=True)
        wanted = http.InferRequestedOutput("output-0", binary_data=True)
        answer = client.infer(spelling, [given], outputs=[wanted])
    finally:
        client.close()
    assert answer.as_numpy("output-0").tolist() == [1, 1]


def test_grpc_answers_the_triton_client(local: Local, spelling: str) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    with grpc.InferenceServerClient(local.grpc_address(spelling)) as client:
        given = grpc.InferInput("input-0", [2, 4], "FP64")
        given.set_data_from_numpy(np.array(IRIS))
        assert client.infer(spelling, [given]).as_numpy("output-0").tolist() == [1, 1]


KSERVE_CLIENT = """
import asyncio, sys, kserve, numpy

async def main(address, name):
    client = kserve.InferenceGRPCClient(address)
    given = kserve.InferInput("input-0", [2, 4], "FP64")
    given.set_data_from_numpy(numpy.array([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]))
    answer = await client.infer(kserve.InferRequest(name, [given]))
    print(answer.outputs[0].as_numpy().tolist())
    await client.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_grpc_answers_the_kserve_client(local: Local, spelling: str) -> None:
    # In a process of its own: the two clients' stubs define the same names and cannot live in one.
    command = [sys.executable, "-c", KSERVE_CLIENT, local.grpc_address(spelling), spelling]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout.strip().endswith("[1, 1]"), done.stderr
