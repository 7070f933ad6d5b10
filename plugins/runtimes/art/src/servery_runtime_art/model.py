"""Images close to a given one that the predictor answers otherwise.

Source: KServe python/artexplainer (requests, answers, flags and their defaults).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from art.attacks.evasion import SquareAttack
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from numpy.typing import NDArray
from servery_sdk.explainers import RemoteExplainer
from servery_sdk.manifests import Json
from servery_sdk.remote import RemotePredictor
from servery_sdk.serving import InputError

_IMAGE_AXES = 4


class ARTExplainer(RemoteExplainer):
    """Tries the square attack: it needs answers only, no gradients.

    ``instances`` are an image ``[1, height, width, channels]`` and its class. The predictor may answer with classes or
    with a score for each, which says whether a step went the right way.
    """

    def __init__(
        self,
        *,
        adversary_type: Literal["SquareAttack", "squareattack"] = "SquareAttack",
        nb_classes: int = 10,
        max_iter: int = 1000,
        keep_shape: bool = False,
        **predictor: Any,
    ) -> None:
        super().__init__(**predictor)
        del adversary_type  # There is one.
        self._classes = nb_classes
        self._steps = max_iter
        self._keeps_shape = keep_shape

    def explanation(self, instances: list[Json], predictor: RemotePredictor) -> Json:
        """Return the image that was found, how far it is, and what the predictor says of both.

        Raises:
            InputError: The instances are no image and class.
        """
        image, label = self._asked(instances)

        def scores(rows: NDArray[np.float32]) -> NDArray[np.float64]:
            return self._scores(rows, predictor)

        classifier = BlackBoxClassifierNeuralNetwork(
            scores, image.shape[1:], self._classes, channels_first=False, clip_values=(-np.inf, np.inf)
        )
        before = classifier.predict(image)
        attack = SquareAttack(estimator=classifier, max_iter=self._steps, verbose=False)
        try:
            found = attack.generate(x=image, y=label)
        except ValueError as error:
            raise InputError(f"instances[0]: {list(image.shape)}: {error}") from error
        return {
            "adversarial_example": found,
            "L2 error": float(np.linalg.norm(found[0] - image[0])),
            "adversarial_prediction": int(np.argmax(classifier.predict(found))),
            "prediction": int(np.argmax(before)),
        }

    def _asked(self, instances: list[Json]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if len(instances) != 2:
            raise InputError(f"instances: must be an image and its class, found {len(instances)} of them")
        try:
            image = np.asarray(instances[0], dtype=np.float32)
            label = np.asarray(instances[1], dtype=np.int64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InputError(f"instances: must be numbers, an image and its class: {error}") from error
        if image.ndim != _IMAGE_AXES or len(image) != 1:
            raise InputError(f"instances[0]: must be [1, height, width, channels], found {list(image.shape)}")
        if len(label) != 1 or not 0 <= label[0] < self._classes:
            raise InputError(f"instances[1]: must be one of {self._classes} classes, found {instances[1]!r}")
        return image, label

    def _scores(self, rows: NDArray[np.float32], predictor: RemotePredictor) -> NDArray[np.float64]:
        """Return ``[rows, classes]``."""
        asked = rows if self._keeps_shape else rows.reshape(len(rows), -1)
        found = predictor.scores(asked)
        if found.ndim == 1:
            # The predictor names the class only: as sure as can be.
            if not np.isin(found, np.arange(self._classes)).all():
                raise InputError(f"the predictor answers {found.tolist()}: no classes below {self._classes}")
            found = np.eye(self._classes)[found.astype(np.int64)]
        if found.shape != (len(rows), self._classes):
            raise InputError(
                f"the predictor answers {list(found.shape)}, not {[len(rows), self._classes]}: say nb_classes"
            )
        return found
