"""Train the example's model: ``python examples/art-digits/train.py``. The same bytes come out every time."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent


def main() -> None:
    """Write a classifier of 8 by 8 digits, and a request with a nine."""
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    model = LogisticRegression(max_iter=500, random_state=0).fit(images[:1500], digits[:1500])
    joblib.dump(model, HERE / "model" / "model.joblib", compress=3)
    nine = next(index for index in range(1500, len(digits)) if digits[index] == 9)
    asked = {"instances": [images[nine].reshape(1, 8, 8, 1).tolist(), [9]]}
    (HERE / "request.json").write_text(json.dumps(asked) + "\n")


if __name__ == "__main__":
    main()
