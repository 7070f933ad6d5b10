"""The stream API, as Triton's published ``simple_grpc_custom_repeat.py`` uses it: several responses to a request."""

import queue
import sys
from functools import partial

import numpy as np
import tritonclient.grpc as grpcclient


def completed(results, result, error):
    results.put((result, error))


results = queue.Queue()
with grpcclient.InferenceServerClient(url=sys.argv[1]) as client:
    client.start_stream(callback=partial(completed, results))
    for request, numbers in enumerate(([4, 2, 0, 1], [7])):
        data = np.array(numbers, dtype=np.int32)
        tensor = grpcclient.InferInput("IN", data.shape, "INT32")
        tensor.set_data_from_numpy(data)
        client.async_stream_infer(
            model_name="repeat",
            inputs=[tensor],
            request_id=str(request),
            outputs=[grpcclient.InferRequestedOutput("OUT")],
            enable_empty_final_response=True,
        )
    told = []
    while len(told) < 7:
        result, error = results.get(timeout=60)
        assert error is None, error
        response = result.get_response()
        values = result.as_numpy("OUT")
        is_final = response.parameters["triton_final_response"].bool_param
        told.append((response.id, None if values is None else values.tolist(), is_final))
    assert told == [
        ("0", [4], False),
        ("0", [2], False),
        ("0", [0], False),
        ("0", [1], False),
        ("0", None, True),
        ("1", [7], False),
        ("1", None, True),
    ], told
    # An error is an answer as well: the stream goes on.
    wrong = grpcclient.InferInput("IN", [1], "FP32")
    wrong.set_data_from_numpy(np.zeros(1, dtype=np.float32))
    client.async_stream_infer(model_name="repeat", inputs=[wrong])
    right = grpcclient.InferInput("IN", [2], "INT32")
    right.set_data_from_numpy(np.array([9, -1], dtype=np.int32))
    client.async_stream_infer(model_name="repeat", inputs=[right])
    _, error = results.get(timeout=60)
    assert "input 'IN' of shape [1] is FP32" in str(error), error
    result, error = results.get(timeout=60)
    assert error is None, error
    assert result.as_numpy("OUT").tolist() == [9]
    _, error = results.get(timeout=60)
    assert "no negatives" in str(error), error
    client.stop_stream()
