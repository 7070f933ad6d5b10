"""Train the example's model: ``python examples/xgboost-iris/train.py``, with the extra ``xgboost`` installed."""

from __future__ import annotations

from pathlib import Path

import xgboost
from sklearn.datasets import load_iris

PARAMETERS = {"objective": "multi:softprob", "num_class": 3, "max_depth": 2, "nthread": 1, "seed": 0}


def main() -> None:
    """Write ten rounds of small trees that give each of three species its probability."""
    features, species = load_iris(return_X_y=True)
    booster = xgboost.train(PARAMETERS, xgboost.DMatrix(features, species), num_boost_round=10)
    booster.save_model(Path(__file__).parent / "model" / "model.ubj")


if __name__ == "__main__":
    main()
