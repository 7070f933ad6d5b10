"""Train both models: ``python examples/kubedl-two-models/train.py``. The same bytes come out every time."""

from __future__ import annotations

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).parent


def main() -> None:
    """Write the support vector machine and the tree beside the manifest that serves them."""
    features, species = load_iris(return_X_y=True)
    for folder, model in (
        ("model-a", SVC(gamma="scale", random_state=0)),
        ("model-b", DecisionTreeClassifier(max_depth=3, random_state=0)),
    ):
        joblib.dump(model.fit(features, species), HERE / folder / "model.joblib", compress=3)


if __name__ == "__main__":
    main()
