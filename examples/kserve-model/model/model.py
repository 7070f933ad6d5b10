"""A custom model as people write one for KServe; KServe's server and Servery's run this file as it is."""

import argparse
import json
from pathlib import Path

from kserve import InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.errors import InvalidInput
from kserve.utils.utils import get_predict_input, get_predict_response


class Mood(Model):
    """Adds up what each word of a text is worth."""

    def load(self) -> bool:
        """Read the words, which lie beside this file."""
        self.words = json.loads((Path(__file__).parent / "words.json").read_text())
        self.ready = True
        return self.ready

    def preprocess(self, payload: dict | InferRequest, headers: dict | None = None) -> dict | InferRequest:
        """Refuse what is no list of texts."""
        if isinstance(payload, dict) and not isinstance(payload.get("instances"), list):
            raise InvalidInput('send {"instances": ["a text", …]}')
        return payload

    def predict(self, payload: dict | InferRequest, headers: dict | None = None) -> dict | InferResponse:
        """Return a number for each text."""
        texts = get_predict_input(payload)
        worth = [sum(self.words.get(word.strip(",."), 0) for word in text.split()) for text in texts]
        return get_predict_response(payload, worth, self.name)


parser = argparse.ArgumentParser(parents=[model_server.parser])
args, _ = parser.parse_known_args()

if __name__ == "__main__":
    model = Mood(args.model_name)
    model.load()
    ModelServer().start([model])
