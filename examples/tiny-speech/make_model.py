"""Make a tiny model that writes down nonsense: ``python examples/tiny-speech/make_model.py [DIRECTORY]``.

Random weights, a feature extractor and a tokenizer of letters, as wav2vec 2.0 has them, in some kilobytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]


def main() -> None:
    """Write the model beside the manifest that serves it, or where the command line says."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "model"
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(LETTERS)}))
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS),
        pad_token_id=0,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        initializer_range=0.5,
    )
    Wav2Vec2ForCTC(config).save_pretrained(directory)
    Wav2Vec2Processor(
        feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=Wav2Vec2CTCTokenizer(str(vocabulary))
    ).save_pretrained(directory)


if __name__ == "__main__":
    main()
