"""Adds what the requests of a sequence say: the state is kept by row, as the direct strategy allows."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.totals = [None, None]

    def execute(self, requests):
        return [self.answer(row, request) for row, request in enumerate(requests)]

    def answer(self, row, request):
        given = {tensor.name(): tensor.as_numpy()[0, 0] for tensor in request.inputs()}
        if given["READY"]:
            assert given["CORRID"] == request.correlation_id()
            assert bool(request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START) == given["START"]
            before = 0 if given["START"] else self.totals[row]
            self.totals[row] = None if given["END"] else before + given["IN"]
            total = before + given["IN"]
        else:
            total = 0
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([[total]], np.int32))])
