"""Sums what a decoupled model repeats: Triton's example of decoupled business logic, in our words."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        asked = pb_utils.InferenceRequest(
            model_name="repeat", requested_output_names=["OUT"], inputs=[request.inputs()[0]]
        )
        total = 0
        for response in asked.exec(decoupled=True):
            if response.has_error():
                return pb_utils.InferenceResponse(error=response.error())
            if not response.output_tensors():
                # Triton ends with an empty one.
                continue
            total += int(pb_utils.get_output_tensor_by_name(response, "OUT").as_numpy()[0]) ** 2
        return pb_utils.InferenceResponse([pb_utils.Tensor("SUM", np.array([total], np.int32))])
