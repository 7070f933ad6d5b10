"""A class, and nothing that starts it."""

from pathlib import Path

from kserve import Model as KServeModel


class Shared(KServeModel):
    def postprocess(self, result, headers=None):
        return {"predictions": result}


class Model(Shared):
    async def load(self):
        self.weight = int((Path(__file__).parent / "weight.txt").read_text())
        self.ready = True

    def predict(self, payload, headers=None):
        return [value + self.weight for value in payload["instances"]]
