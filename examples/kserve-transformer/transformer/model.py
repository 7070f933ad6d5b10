"""Flowers by name on the way in, kinds by name on the way out; the predictor in between has numbers only."""

import argparse

from kserve import Model, ModelServer, model_server

COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
KINDS = ("setosa", "versicolor", "virginica")


class Flowers(Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def preprocess(self, payload, headers=None):
        return {"instances": [[flower[column] for column in COLUMNS] for flower in payload["instances"]]}

    def postprocess(self, result, headers=None, response_headers=None):
        return {"predictions": [KINDS[number] for number in result["predictions"]]}


parser = argparse.ArgumentParser(parents=[model_server.parser])

if __name__ == "__main__":
    flags, _ = parser.parse_known_args()
    ModelServer().start([Flowers(flags.model_name)])
