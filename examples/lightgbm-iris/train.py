"""Train the example's model: ``python examples/lightgbm-iris/train.py``, with the extra ``lightgbm`` installed."""

from __future__ import annotations

from pathlib import Path

import lightgbm
from sklearn.datasets import load_iris

PARAMETERS = {
    "objective": "multiclass",
    "num_class": 3,
    "max_depth": 2,
    "num_threads": 1,
    "deterministic": True,
    "seed": 0,
    "verbosity": -1,
}


def main() -> None:
    """Write ten rounds of small trees that give each of three species its probability."""
    features, species = load_iris(return_X_y=True)
    booster = lightgbm.train(PARAMETERS, lightgbm.Dataset(features, species), num_boost_round=10)
    booster.save_model(Path(__file__).parent / "model" / "model.txt")


if __name__ == "__main__":
    main()
