"""Train the example's model: ``python examples/tensorflow-flowers/train.py``, with TensorFlow installed. Nothing is downloaded.

The flowers are drawn: petals of a colour around a middle of another, on green. The signature is that of KServe's own
flowers: JPEG or PNG files and keys go in; scores, the likeliest kind and the keys come out.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

HERE = Path(__file__).parent
KINDS = {
    "daisy": ((245, 245, 245), (230, 200, 40), 13),
    "dandelion": ((240, 210, 50), (225, 190, 40), 24),
    "rose": ((190, 30, 60), (150, 15, 40), 7),
    "sunflower": ((245, 180, 20), (80, 50, 20), 16),
    "tulip": ((220, 90, 170), (240, 220, 90), 6),
}
"""The colour of the petals, that of the middle, and how many petals there are."""
SIDE, CELLS = 64, 8
Images = npt.NDArray[np.uint8]


def drawn(kind: str, chance: np.random.Generator) -> Images:
    """Return one image ``[SIDE, SIDE, 3]``."""
    petals, middle, count = KINDS[kind]
    y, x = np.mgrid[0:SIDE, 0:SIDE] - chance.uniform(0.4, 0.6, 2)[:, None, None] * SIDE
    distance, angle = np.hypot(x, y), np.arctan2(y, x) + chance.uniform(0, 2 * np.pi)
    size = SIDE * chance.uniform(0.3, 0.45)
    image = np.array([40, 120, 40]) + chance.uniform(-20, 20, (SIDE, SIDE, 3))
    image[distance < size * (0.75 + 0.25 * np.cos(count * angle))] = petals
    image[distance < size * 0.35] = middle
    return (image * chance.uniform(0.7, 1.1)).clip(0, 255).astype(np.uint8)


class Flowers(tf.Module):
    """A linear classifier of ``CELLS`` by ``CELLS`` colours."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.zeros([CELLS * CELLS * 3, len(KINDS)]))
        self.biases = tf.Variable(tf.zeros([len(KINDS)]))

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Return ``[rows, kinds]`` of images ``[rows, side, side, 3]``."""
        cells = tf.image.resize(tf.cast(images, tf.float32) / 255, [CELLS, CELLS], method="area")
        return tf.reshape(cells, [-1, CELLS * CELLS * 3]) @ self.weights + self.biases

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "image_bytes"), tf.TensorSpec([None], tf.string, "key")]
    )
    def serve(self, image_bytes: tf.Tensor, key: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return ``scores`` ``[rows, kinds]``, the ``prediction`` ``[rows]`` and each row's ``key``."""

        def decode(file: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(file, channels=3, expand_animations=False)
            return tf.image.resize(tf.ensure_shape(image, [None, None, 3]), [SIDE, SIDE])

        scores = tf.nn.softmax(self.logits(tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)))
        return {"scores": scores, "prediction": tf.argmax(scores, axis=1), "key": tf.identity(key)}


def trained(chance: np.random.Generator) -> Flowers:
    """Return the model after some passes over drawn flowers."""
    kinds = chance.integers(0, len(KINDS), 1000)
    images = np.stack([drawn(list(KINDS)[kind], chance) for kind in kinds])
    model = Flowers()
    wanted = tf.one_hot(kinds, len(KINDS))
    for _ in range(300):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(wanted, model.logits(images)))
        variables = [model.weights, model.biases]
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(0.5 * gradient)
    return model


def main() -> None:
    """Write the model as version 1, and a request of a daisy and a sunflower it has not seen."""
    chance = np.random.default_rng(0)
    target = HERE / "model" / "0001"
    shutil.rmtree(target, ignore_errors=True)
    model = trained(chance)
    tf.saved_model.save(model, str(target), signatures={"serving_default": model.serve})
    instances = [
        {"image_bytes": {"b64": base64.b64encode(file).decode()}, "key": f"   {row}"}
        for row, file in enumerate(
            (tf.io.encode_jpeg(drawn(kind, chance)).numpy() for kind in ("daisy", "sunflower")), start=1
        )
    ]
    (HERE / "request.json").write_text(json.dumps({"instances": instances}) + "\n")


if __name__ == "__main__":
    main()
