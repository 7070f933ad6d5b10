"""Models as people write them for KServe: several in a file, coroutines and plain functions, every error."""

import argparse
import asyncio

import numpy as np
from fastapi import HTTPException
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, errors, model_server

RAISED = {
    "InvalidInput": errors.InvalidInput("wrong input"),
    "InferenceError": errors.InferenceError("did not work"),
    "ModelNotFound": errors.ModelNotFound("another"),
    "ModelNotReady": errors.ModelNotReady("plain", "wait a little"),
    "ServerNotReady": errors.ServerNotReady(),
    "ServerNotLive": errors.ServerNotLive(),
    "UnsupportedProtocol": errors.UnsupportedProtocol("v3"),
    "NotImplementedError": NotImplementedError("not yet"),
    "HTTPException": HTTPException(418, "a teapot", {"x-tea": "green"}),
    "ZeroDivisionError": ZeroDivisionError("division by zero"),
}


def answered(model, request, values):
    output = InferOutput("y", list(values.shape), "FP64")
    output.set_data_from_numpy(values, binary_data=request.use_binary_outputs)
    return InferResponse(
        response_id=request.id or "none",
        model_name=model.name,
        infer_outputs=[output],
        use_binary_outputs=request.use_binary_outputs,
        requested_outputs=request.request_outputs,
    )


class Plain(Model):
    """Plain functions."""

    def __init__(self, name, by):
        super().__init__(name)
        self.by = by

    def load(self):
        self.ready = True

    def preprocess(self, payload, headers=None):
        if isinstance(payload, dict) and "raise" in payload:
            raise RAISED[payload["raise"]]
        if isinstance(payload, InferRequest) and payload.parameters and "raise" in payload.parameters:
            found = payload.parameters["raise"]
            raise RAISED[getattr(found, "string_param", found)]
        return payload

    def predict(self, payload, headers=None):
        if isinstance(payload, bytes):
            return payload[::-1]
        if isinstance(payload, InferRequest):
            return answered(self, payload, payload.inputs[0].as_numpy() * self.by)
        return {"predictions": [value * self.by for value in payload["instances"]], "keys": sorted(payload)}

    def postprocess(self, result, headers=None):
        return result

    def explain(self, payload, headers=None):
        # Its own hooks are what the class says, and not what somebody put around them.
        return {"explanations": self.predict(payload, headers)["predictions"][::-1]}

    def get_input_types(self):
        return [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]

    async def get_output_types(self):
        return [{"name": "y", "datatype": "FP64", "shape": [-1, 2]}]


class Waiting(Model):
    """Coroutines, and headers both ways."""

    def __init__(self, name):
        super().__init__(name, return_response_headers=True)
        self.together = 0
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        response_headers["x-authorization"] = headers.get("authorization", "none")
        self.together += 1
        await asyncio.sleep(0.05 if payload.get("wait") else 0)
        together, self.together = self.together, self.together - 1
        return {"predictions": [together], "array": np.arange(3), 1: None}

    async def postprocess(self, result, headers=None, response_headers=None):
        response_headers["x-post"] = "yes"
        return result


class Streaming(Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    async def predict(self, payload, headers=None):
        async def pieces():
            for word in payload["instances"]:
                yield word

        return pieces()


class Odd(Model):
    """A call of its own, and what comes out of it that is neither a dict nor a response."""

    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    async def __call__(self, body, headers=None, verb=None):
        if body.get("exit"):
            raise SystemExit(3)
        return body["instances"], {"x-odd": "1"}


class Moody(Model):
    """Is not ready after it was told so."""

    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def predict(self, payload, headers=None):
        self.ready = False
        return {"predictions": []}


class Unready(Model):
    """Is never loaded, and so never served."""


parser = argparse.ArgumentParser(parents=[model_server.parser])
parser.add_argument("--by", type=int, default=2)
args, _ = parser.parse_known_args()

if __name__ == "__main__":
    plain = Plain(args.model_name, args.by)
    plain.load()
    models = [Waiting("waiting"), Streaming("streaming"), Odd("odd"), Moody("moody"), Unready("unready")]
    ModelServer().start([plain, *models])
