"""A response for each element of the input, from a thread: the decoupled example of Triton, in our words."""

import json
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        if not pb_utils.using_decoupled_model_transaction_policy(config):
            raise pb_utils.TritonModelException("this model needs model_transaction_policy { decoupled: true }")
        self.threads = []

    def execute(self, requests):
        for request in requests:
            numbers = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            thread = threading.Thread(target=self.answer, args=(request.get_response_sender(), numbers))
            self.threads.append(thread)
            thread.start()

    def answer(self, sender, numbers):
        for index, number in enumerate(numbers):
            if number < 0:
                sender.send(
                    pb_utils.InferenceResponse(
                        error=pb_utils.TritonError("no negatives", pb_utils.TritonError.INVALID_ARG)
                    )
                )
                continue
            sender.send(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor("OUT", np.array([number], np.int32)),
                        pb_utils.Tensor("INDEX", np.array([index], np.uint32)),
                    ]
                )
            )
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        for thread in self.threads:
            thread.join()
