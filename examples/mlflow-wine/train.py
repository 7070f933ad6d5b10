"""Train the example's model: ``python examples/mlflow-wine/train.py``, with ``mlflow-skinny`` installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow.sklearn
import numpy as np
import pandas as pd
import sklearn
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from sklearn.linear_model import ElasticNet

MODEL = Path(__file__).parent / "model"
COLUMNS = (
    "fixed acidity",
    "volatile acidity",
    "citric acid",
    "residual sugar",
    "chlorides",
    "free sulfur dioxide",
    "total sulfur dioxide",
    "density",
    "pH",
    "sulphates",
    "alcohol",
    "quality",
)
# The first rows of "Wine Quality" (red), P. Cortez et al., 2009, UCI Machine Learning Repository, CC BY 4.0.
ROWS = (
    (7.4, 0.7, 0.0, 1.9, 0.076, 11, 34, 0.9978, 3.51, 0.56, 9.4, 5),
    (7.8, 0.88, 0.0, 2.6, 0.098, 25, 67, 0.9968, 3.2, 0.68, 9.8, 5),
    (7.8, 0.76, 0.04, 2.3, 0.092, 15, 54, 0.997, 3.26, 0.65, 9.8, 5),
    (11.2, 0.28, 0.56, 1.9, 0.075, 17, 60, 0.998, 3.16, 0.58, 9.8, 6),
    (7.4, 0.66, 0.0, 1.8, 0.075, 13, 40, 0.9978, 3.51, 0.56, 9.4, 5),
    (7.9, 0.6, 0.06, 1.6, 0.069, 15, 59, 0.9964, 3.3, 0.46, 9.4, 5),
    (7.3, 0.65, 0.0, 1.2, 0.065, 15, 21, 0.9946, 3.39, 0.47, 10.0, 7),
    (7.8, 0.58, 0.02, 2.0, 0.073, 9, 18, 0.9968, 3.36, 0.57, 9.5, 7),
)


def main() -> None:
    """Write a regression of a wine's quality, as MLflow's tutorial and KServe's page on it have it."""
    wines = pd.DataFrame(ROWS, columns=list(COLUMNS))
    model = ElasticNet(alpha=0.05, random_state=0, max_iter=10_000).fit(wines[list(COLUMNS[:-1])], wines["quality"])
    shutil.rmtree(MODEL, ignore_errors=True)
    mlflow.sklearn.save_model(
        model,
        MODEL,
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.double, name) for name in COLUMNS[:-1]]),
            outputs=Schema([TensorSpec(np.dtype("float64"), (-1,))]),
        ),
        pip_requirements=[f"mlflow=={mlflow.__version__}", f"scikit-learn=={sklearn.__version__}"],
    )


if __name__ == "__main__":
    main()
