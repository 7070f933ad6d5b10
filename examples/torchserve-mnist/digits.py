"""The model file of the archive: a small convolutional network for digits of 28 by 28 pixels."""

from torch import Tensor, nn


class Digits(nn.Module):
    """Answers the logarithm of each digit's probability, ``[rows, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(576, 10),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Take images ``[rows, 1, 28, 28]``, less their mean, by their deviation."""
        return self.layers(images)
