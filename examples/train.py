"""Train the tiny models of the examples: ``python examples/train.py``. The same bytes come out every time."""

from __future__ import annotations

from pathlib import Path

import joblib
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

HERE = Path(__file__).parent


def iris() -> SVC:
    """Return a support vector classifier of the 150 irises, KServe's own first example."""
    features, species = load_iris(return_X_y=True)
    return SVC(gamma="scale", random_state=0).fit(features, species)


def many() -> dict[str, ClassifierMixin]:
    """Return three classifiers of the irises, for one predictor."""
    features, species = load_iris(return_X_y=True)
    made = {
        "svm": SVC(gamma="scale", random_state=0),
        "tree": DecisionTreeClassifier(random_state=0),
        "neighbours": KNeighborsClassifier(),
    }
    return {name: model.fit(features, species) for name, model in made.items()}


def main() -> None:
    """Write every model beside the manifests that serve it."""
    for name, model in many().items():
        folder = HERE / "sklearn-many-models" / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, folder / "model.joblib", compress=3)
    joblib.dump(iris(), HERE / "sklearn-iris" / "model" / "model.joblib", compress=3)


if __name__ == "__main__":
    main()
