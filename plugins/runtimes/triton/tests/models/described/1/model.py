"""Says its own configuration, as Triton's example of auto-completion does, and what it was given."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        auto_complete_model_config.add_input({"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]})
        auto_complete_model_config.add_output({"name": "SAID", "data_type": "TYPE_STRING", "dims": [1]})
        auto_complete_model_config.set_max_batch_size(4)
        auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def initialize(self, args):
        self.args = args

    def execute(self, requests):
        return [self.answer(request, len(requests)) for request in requests]

    def answer(self, request, count):
        text = request.inputs()[0].as_numpy()
        said = {
            "text": [element.decode() for element in text.ravel()],
            "requests": count,
            "id": request.request_id(),
            "parameters": json.loads(request.parameters()),
            "version": self.args["model_version"],
            "name": self.args["model_name"],
            "backend": json.loads(self.args["model_config"])["backend"],
        }
        data = np.array([[json.dumps(said)]] * len(text), dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SAID", data)], parameters={"answered_by": "described"})
