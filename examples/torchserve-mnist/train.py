"""Train the digits and archive them: ``python examples/torchserve-mnist/train.py``. Nothing is downloaded.

The images are drawn: digits of one font, turned, shifted, scaled and blurred.
"""

from __future__ import annotations

import base64
import io
import json
import random
import zipfile
from pathlib import Path

import numpy as np
import torch
from digits import Digits
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HERE = Path(__file__).parent
MANIFEST = {
    "runtime": "python",
    "model": {
        "modelName": "mnist",
        "serializedFile": "digits.pt",
        "handler": "digit_handler.py",
        "modelFile": "digits.py",
        "modelVersion": "1.0",
    },
    "archiverVersion": "0.12.0",
}
MEAN, DEVIATION = 0.1307, 0.3081
SIDE = 28


def drawn(digit: int, chance: random.Random) -> Image.Image:
    """Return one image of ``digit``, white on black."""
    canvas = Image.new("L", (4 * SIDE, 4 * SIDE))
    font = ImageFont.load_default(size=chance.uniform(70, 105))
    middle = (2 * SIDE + chance.uniform(-12, 12), 2 * SIDE + chance.uniform(-12, 12))
    stroke = chance.choice([0, 1, 2, 4])
    ImageDraw.Draw(canvas).text(middle, str(digit), fill=255, font=font, anchor="mm", stroke_width=stroke)
    turned = canvas.rotate(chance.uniform(-20, 20), Image.Resampling.BILINEAR)
    return turned.filter(ImageFilter.GaussianBlur(chance.uniform(0, 2))).resize((SIDE, SIDE), Image.Resampling.BOX)


def drawn_many(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images ``[rows, 1, 28, 28]`` as the handler makes them, and their digits ``[rows]``."""
    chance = random.Random(seed)
    digits = [chance.randrange(10) for _ in range(rows)]
    pixels = np.stack([np.array(drawn(digit, chance), dtype=np.float32) for digit in digits])
    return (torch.from_numpy(pixels).unsqueeze(1) / 255 - MEAN) / DEVIATION, torch.tensor(digits)


def trained() -> Digits:
    """Return the network after a few passes over drawn digits."""
    # One thread: the sums come out the same everywhere, and a small network gains nothing by more.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, digits = drawn_many(3000, seed=0)
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.nll_loss(model(images[batch]), digits[batch]).backward()
            optimizer.step()
    return model.eval()


def archived(model: Digits, path: Path) -> None:
    """Write the archive, as ``torch-model-archiver`` would."""
    weights = io.BytesIO()
    torch.save(model.state_dict(), weights)
    files = {
        "MAR-INF/MANIFEST.json": json.dumps(MANIFEST, indent=2).encode(),
        "digits.pt": weights.getvalue(),
        "digits.py": (HERE / "digits.py").read_bytes(),
        "digit_handler.py": (HERE / "digit_handler.py").read_bytes(),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            # The time of day is no part of the model.
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def main() -> None:
    """Write the archive and a request, and print how many of other digits are known."""
    model = trained()
    images, digits = drawn_many(1000, seed=1)
    known = (model(images).argmax(1) == digits).float().mean()
    archived(model, HERE / "store" / "model-store" / "mnist.mar")
    png = io.BytesIO()
    drawn(2, random.Random(2)).save(png, "png")
    instance = {"data": base64.b64encode(png.getvalue()).decode(), "target": 0}
    (HERE / "request.json").write_text(json.dumps({"instances": [instance]}) + "\n")
    print(f"{known:.1%} of 1000 other digits")


if __name__ == "__main__":
    main()
