"""Microseconds to encode and decode one tensor in each protocol, beside plain ``json`` and numpy, and ``tritonclient``.

All on one core in one run, by turns: ``uv run python bench/codecs.py``. Encoding goes from array to bytes, decoding
from bytes to array. ``tritonclient`` encodes requests and decodes responses, so that is what is measured; v1 is our
server's side, which is the only one. What a peer does not speak is left empty.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import timeit
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf.internal import api_implementation
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, grpc, v1, v2
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from tritonclient.grpc import service_pb2 as triton_pb
from tritonclient.grpc._utils import _get_inference_request

Array = npt.NDArray[Any]
Encode = Callable[[], bytes]
Decode = Callable[[], Array]

PACKAGES = ("numpy", "orjson", "protobuf", "tritonclient")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """One job in one wire format: ours, plain Python's and tritonclient's, those that can."""

    codec: str
    ours: tuple[Encode, Decode]
    plain: tuple[Encode, Decode] | None = None
    triton: tuple[Encode, Decode] | None = None


def arrays() -> Mapping[str, Array]:
    """Return the tensors by their names."""
    random = np.random.default_rng(0)
    texts = np.empty(1000, dtype=object)
    texts[:] = [f"token-{number:010d}".encode() for number in range(1000)]
    return {
        "1x4 FP32": random.random((1, 4), dtype="f4"),
        "64x4 FP32": random.random((64, 4), dtype="f4"),
        "1x3x224x224 FP32": random.random((1, 3, 224, 224), dtype="f4"),
        "1000 BYTES": texts,
    }


def peers(data: Array) -> Iterator[Peers]:
    """Yield every codec with those who can do the same."""
    datatype = Datatype.BYTES if data.dtype == object else Datatype.FP32
    tensor = Tensor(name="x", data=data, datatype=datatype)
    request, response = InferRequest(model="m", inputs=(tensor,)), InferResponse(model="m", outputs=(tensor,))
    yield _v1(data, response)
    yield _v2_json(data, datatype, request, response)
    yield _v2_binary(data, datatype, request, response)
    yield from (_grpc(data, datatype, request, response, raw=raw) for raw in (True, False))


def _v1(data: Array, response: InferResponse) -> Peers:
    body = v1.encode_response(response).replace(b'"predictions"', b'"instances"')
    return Peers(
        codec="v1 JSON",
        ours=(lambda: v1.encode_response(response), lambda: v1.decode_request(body, model="m").inputs[0].data),
        plain=(
            lambda: json.dumps({"predictions": _listed(data)}).encode(),
            lambda: _array(json.loads(body)["instances"], data),
        ),
    )


def _v2_json(data: Array, datatype: Datatype, request: InferRequest, response: InferResponse) -> Peers:
    body = v2.encode_response(response, request).body
    described = {"name": "x", "shape": list(data.shape), "datatype": str(datatype)}
    return Peers(
        codec="v2 JSON",
        ours=(lambda: v2.encode_request(request).body, lambda: v2.decode_response(body).outputs[0].data),
        plain=(
            lambda: json.dumps({"inputs": [{**described, "data": _listed(data.ravel())}]}).encode(),
            lambda: _array(json.loads(body)["outputs"][0]["data"], data).reshape(data.shape),
        ),
        triton=(lambda: _triton_body(data, datatype, binary=False), lambda: _triton_array(body, None)),
    )


def _v2_binary(data: Array, datatype: Datatype, request: InferRequest, response: InferResponse) -> Peers:
    asking = InferRequest(model="m", inputs=request.inputs, parameters={v2.BINARY_OUTPUTS: True})
    encoded = v2.encode_response(response, asking)
    return Peers(
        codec="v2 binary",
        ours=(
            lambda: v2.encode_request(request, binary=True).body,
            lambda: v2.decode_response(encoded.body, json_length=encoded.json_length).outputs[0].data,
        ),
        triton=(
            lambda: _triton_body(data, datatype, binary=True),
            lambda: _triton_array(encoded.body, encoded.json_length),
        ),
    )


def _grpc(data: Array, datatype: Datatype, request: InferRequest, response: InferResponse, *, raw: bool) -> Peers:
    wire = grpc.encode_response(response, raw=raw).SerializeToString()
    return Peers(
        codec="gRPC raw" if raw else "gRPC typed",
        ours=(
            lambda: grpc.encode_request(request, raw=raw).SerializeToString(),
            lambda: grpc.decode_response(pb.ModelInferResponse.FromString(wire)).outputs[0].data,
        ),
        # It knows raw contents only.
        triton=(
            lambda: _triton_message(data, datatype),
            lambda: triton_grpc.InferResult(triton_pb.ModelInferResponse.FromString(wire)).as_numpy("x"),
        )
        if raw
        else None,
    )


def _listed(data: Array) -> list[Any]:
    return [element.decode() for element in data] if data.dtype == object else data.tolist()


def _array(values: list[Any], like: Array) -> Array:
    if like.dtype == object:
        return np.array([value.encode() for value in values], dtype=object)
    return np.array(values, dtype=like.dtype)


def _triton_body(data: Array, datatype: Datatype, *, binary: bool) -> bytes:
    tensor = triton_http.InferInput("x", data.shape, str(datatype))
    tensor.set_data_from_numpy(data, binary_data=binary)
    body: bytes = triton_http.InferenceServerClient.generate_request_body([tensor])[0]
    return body


def _triton_array(body: bytes, json_length: int | None) -> Array:
    return triton_http.InferResult.from_response_body(body, header_length=json_length).as_numpy("x")


def _triton_message(data: Array, datatype: Datatype) -> bytes:
    tensor = triton_grpc.InferInput("x", data.shape, str(datatype))
    tensor.set_data_from_numpy(data)
    message = _get_inference_request(
        model_name="m",
        inputs=[tensor],
        model_version="",
        request_id="",
        outputs=None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    wire: bytes = message.SerializeToString()
    return wire


def check(found: Array, wanted: Array) -> None:
    """Stop where a decoder's array is not what was encoded: a codec that errs is not timed."""
    if wanted.dtype == object:
        found = np.array([e.encode() if isinstance(e, str) else e for e in found.ravel()], dtype=object)
    if not np.array_equal(found.astype(wanted.dtype), wanted):
        raise SystemExit("a decoder returned another array than was encoded")


def microseconds(jobs: Mapping[str, Callable[[], Any]], seconds: float, rounds: int) -> dict[str, float]:
    """Return the median time of one call of each job."""
    timers = {name: timeit.Timer(job) for name, job in jobs.items()}
    numbers = {}
    for name, timer in timers.items():
        timer.timeit(1)
        numbers[name] = max(1, math.ceil(seconds / max(timer.timeit(1), 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, timer in timers.items():
            taken[name].append(timer.timeit(numbers[name]) / numbers[name] * 1e6)
    return {name: statistics.median(found) for name, found in taken.items()}


def main() -> None:
    """Print the machine, the versions, the times and their ratios."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--seconds", type=float, default=0.05, help="of each measurement, about")
    flags.add_argument("--rounds", type=int, default=5, help="all peers by turns; the median counts")
    options = flags.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    print(f"{platform.machine()}, {len(cores)} cores, pinned to one, Python {platform.python_version()}")
    print(f"{', '.join(f'{p} {version(p)}' for p in PACKAGES)}, protobuf in {api_implementation.Type()}")
    print("microseconds; a ratio above 1 says how many times as long the peer takes\n")
    head = ("servery", "json", "ratio", "tritonclient", "ratio")
    print(f"{'':<18}{'':<12}{'':<8}" + "".join(f"{name:>{14 if len(name) > 7 else 9}}" for name in head))
    for name, data in arrays().items():
        for found in peers(data):
            all_sides = {"servery": found.ours, "json": found.plain, "tritonclient": found.triton}
            sides = {side: both for side, both in all_sides.items() if both is not None}
            for _, decode in sides.values():
                check(decode(), data)
            for index, what in enumerate(("encode", "decode")):
                jobs = {side: both[index] for side, both in sides.items()}
                print(
                    f"{name:<18}{found.codec:<12}{what:<8}{_row(microseconds(jobs, options.seconds, options.rounds))}"
                )


def _row(taken: Mapping[str, float]) -> str:
    ours = taken["servery"]
    json_, triton = (taken.get(peer) for peer in ("json", "tritonclient"))
    return f"{ours:>9.1f}" + _beside(json_, ours, 9) + _beside(triton, ours, 14)


def _beside(peer: float | None, ours: float, width: int) -> str:
    return f"{peer:>{width}.1f}{peer / ours:>8.1f}x" if peer is not None else f"{'':>{width + 9}}"


if __name__ == "__main__":
    main()
