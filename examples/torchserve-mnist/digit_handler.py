"""The custom handler of the archive: TorchServe's classifier of images, for digits."""

import numpy as np
import torch
from PIL import Image
from ts.torch_handler.image_classifier import ImageClassifier

MEAN, DEVIATION = 0.1307, 0.3081


class DigitClassifier(ImageClassifier):
    """Answers the digit; explains it by integrated gradients, a number for each pixel."""

    def image_processing(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels ``[1, 28, 28]`` as the model was trained on them."""
        pixels = torch.from_numpy(np.array(image.convert("L"), dtype=np.float32)).div(255).unsqueeze(0)
        return (pixels - MEAN) / DEVIATION

    def postprocess(self, data: torch.Tensor) -> list[int]:
        """Return the most probable digit of each row."""
        return data.argmax(1).tolist()
