"""A transformer as KServe's documentation writes one; its predictor is asked over whatever protocol it is told."""

import argparse

import numpy as np
from kserve import InferInput, InferRequest, Model, ModelServer, model_server


class Halver(Model):
    def __init__(self, name):
        super().__init__(name, return_response_headers=True)
        self.ready = True

    def preprocess(self, payload, headers=None):
        values = payload["instances"] if isinstance(payload, dict) else payload.inputs[0].as_numpy().tolist()
        if self.predictor_config.protocol == "v1":
            return {**({} if isinstance(payload, InferRequest) else payload), "instances": [v + 1 for v in values]}
        array = np.array(values, dtype=np.float64) + 1
        tensor = InferInput("x", list(array.shape), "FP64")
        tensor.set_data_from_numpy(array, binary_data=self.predictor_config.protocol == "grpc-v2")
        parameters = {"raise": payload["raise"]} if isinstance(payload, dict) and "raise" in payload else None
        return InferRequest(self.name, [tensor], request_id="7", parameters=parameters)

    def postprocess(self, result, headers=None, response_headers=None):
        if isinstance(result, dict):
            return {**result, "halves": [value / 2 for value in result["predictions"]]}
        return {"predictions": result.outputs[0].as_numpy().tolist(), "id": result.id}


parser = argparse.ArgumentParser(parents=[model_server.parser])
args, _ = parser.parse_known_args()
if __name__ == "__main__":
    ModelServer().start(models=[Halver(args.model_name)])
