"""Train the example's ONNX model: ``python examples/triton-repository/train.py``, with the package ``onnx`` installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


def exported(model: LogisticRegression) -> ModelProto:
    """Return a graph from ``features [rows, 4]`` to ``species [rows, 1]`` and ``probabilities [rows, 3]``."""
    weights = {"weights": model.coef_.T.astype(np.float32), "biases": model.intercept_.astype(np.float32)}
    nodes = [
        helper.make_node("Gemm", ["features", "weights", "biases"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["species"], axis=1, keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "iris",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 4])],
        [
            helper.make_tensor_value_info("species", TensorProto.INT64, ["rows", 1]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3]),
        ],
        [numpy_helper.from_array(data, name) for name, data in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main() -> None:
    """Write a logistic regression of three species."""
    features, species = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(features, species)
    save_model(exported(model), str(Path(__file__).parent / "models" / "classifier" / "1" / "model.onnx"))


if __name__ == "__main__":
    main()
