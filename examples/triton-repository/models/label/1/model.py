"""Says a species by its name. Triton's Python backend takes this file as it is."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Maps numbers to the labels of its configuration."""

    def initialize(self, args):
        """Read the labels."""
        labels = json.loads(args["model_config"])["parameters"]["labels"]["string_value"]
        self.labels = np.array([label.encode() for label in labels.split(",")], dtype=np.object_)

    def execute(self, requests):
        """Answer each request with a label for each number."""
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(
                        "LABEL", self.labels[pb_utils.get_input_tensor_by_name(request, "SPECIES").as_numpy()]
                    )
                ]
            )
            for request in requests
        ]
