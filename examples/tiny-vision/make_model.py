"""Make a tiny model that names what it sees, at random: ``python examples/tiny-vision/make_model.py [DIRECTORY]``.

Random weights and the processor of a vision transformer: all that a served model of images needs, in some kilobytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

CLASSES = ["cat", "dog", "river"]


def main() -> None:
    """Write the model beside the manifest that serves it, or where the command line says."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "model"
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    ViTForImageClassification(config).save_pretrained(directory)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(directory)


if __name__ == "__main__":
    main()
