"""Train the tiny models of the examples: ``python examples/train.py``. The same bytes come out every time."""

from __future__ import annotations

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.svm import SVC

HERE = Path(__file__).parent


def iris() -> SVC:
    """Return a support vector classifier of the 150 irises, KServe's own first example."""
    features, species = load_iris(return_X_y=True)
    return SVC(gamma="scale", random_state=0).fit(features, species)


def main() -> None:
    """Write every model beside the manifests that serve it."""
    joblib.dump(iris(), HERE / "sklearn-iris" / "model" / "model.joblib", compress=3)


if __name__ == "__main__":
    main()
