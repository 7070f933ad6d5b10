"""Train the example's model: ``python examples/paddle-iris/train.py``, with ``servery[paddle]`` installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


class Probabilities(paddle.nn.Layer):
    """A logistic regression: features ``[rows, 4]`` to probabilities ``[rows, 3]``."""

    def __init__(self, fitted: LogisticRegression) -> None:
        super().__init__()
        self.scores = paddle.nn.Linear(4, 3)
        self.scores.weight.set_value(fitted.coef_.T.astype(np.float32))
        self.scores.bias.set_value(fitted.intercept_.astype(np.float32))

    def forward(self, features: paddle.Tensor) -> paddle.Tensor:
        """Return the probability of each species."""
        return paddle.nn.functional.softmax(self.scores(features), axis=1)


def main() -> None:
    """Write a logistic regression of three species."""
    features, species = load_iris(return_X_y=True)
    layer = Probabilities(LogisticRegression(max_iter=500).fit(features, species))
    layer.eval()
    spec = [paddle.static.InputSpec([None, 4], "float32", "features")]
    paddle.jit.save(layer, str(Path(__file__).parent / "model" / "model"), input_spec=spec)


if __name__ == "__main__":
    main()
