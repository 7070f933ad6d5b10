"""Train the example's model: ``python examples/catboost-iris/train.py``, with the extra ``catboost`` installed."""

from __future__ import annotations

from pathlib import Path

import catboost
from sklearn.datasets import load_iris


def main() -> None:
    """Write ten small trees that name the species of an iris."""
    iris = load_iris()
    names = iris.target_names[iris.target].tolist()
    model = catboost.CatBoostClassifier(
        iterations=10, depth=2, random_seed=0, thread_count=1, verbose=0, allow_writing_files=False
    )
    model.fit(iris.data, names)
    model.save_model(str(Path(__file__).parent / "model" / "model.cbm"))


if __name__ == "__main__":
    main()
