"""gpu: memory of a GPU, made by another process and registered with ours; everything here needs one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servery_predictor.extensions import cuda
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.extensions.shared_memory import SharedMemory, SharedMemoryError
from servery_sdk.protocol import Datatype, InferResponse, Tensor
from servery_sdk.protocol.shared import SharedRequest, Span

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.is_here(), reason="there is no GPU here")]
SIZE = 256


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    program = Path(__file__).parent / "clients" / "cuda_owner.py"
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def said(owner: subprocess.Popen[str]) -> bytes:
    assert owner.stdout is not None
    return bytes.fromhex(owner.stdout.readline())


def test_tensors_are_read_from_and_written_to_a_gpu(owner: subprocess.Popen[str]) -> None:
    memory = SharedMemory(Ledger(), is_allowed=True)
    handle = said(owner)
    with pytest.raises(cuda.CudaError, match="failed to register shared memory region 'g': invalid args"):
        memory.register_cuda("g", bytes(64), 0, SIZE)
    with pytest.raises(cuda.CudaError, match="'raw_handle' must be"):
        memory.register_cuda("g", b"short", 0, SIZE)
    memory.register_cuda("g", handle, 0, SIZE)
    assert memory.status("", is_cuda=True) == [{"name": "g", "device_id": 0, "byte_size": SIZE}]
    read = np.frombuffer(memory.read(Span(region="g", offset=16, size=32)), np.float32)
    assert read.tolist() == list(range(4, 12))
    with pytest.raises(SharedMemoryError, match=r"Invalid offset \+ byte size for shared memory region: 'g'"):
        memory.read(Span(region="g", offset=SIZE - 4, size=8))
    outputs = (Tensor(name="y", data=np.full(4, -1, np.float32), datatype=Datatype.FP32),)
    place = Span(region="g", offset=8, size=16)
    asked = SharedRequest(model="m", inputs=(), places={"y": place})
    assert memory.put(InferResponse(model="m", outputs=outputs), asked) == {"y": place}
    assert owner.stdin is not None
    owner.stdin.write("\n")
    owner.stdin.flush()
    assert np.frombuffer(said(owner), np.float32)[:7].tolist() == [0, 1, -1, -1, -1, -1, 6]
    memory.unregister("", is_cuda=True)
    assert memory.status("", is_cuda=True) == []
