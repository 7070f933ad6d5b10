"""Make a tiny model that speaks nonsense: ``python examples/tiny-voice/make_model.py [DIRECTORY]``.

Random weights and a tokenizer of letters, as VITS has them, in some kilobytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import VitsConfig, VitsModel, VitsTokenizer

LETTERS = ["_", *"abcdefghijklmnopqrstuvwxyz '"]


def main() -> None:
    """Write the model beside the manifest that serves it, or where the command line says."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "model"
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(LETTERS)}))
    torch.manual_seed(0)
    config = VitsConfig(
        vocab_size=len(LETTERS),
        pad_token_id=0,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=16,
        upsample_rates=(8, 8),
        upsample_kernel_sizes=(16, 16),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        duration_predictor_num_flows=1,
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
    )
    VitsModel(config).save_pretrained(directory)
    VitsTokenizer(str(vocabulary), pad_token="_", unk_token="_", phonemize=False).save_pretrained(directory)


if __name__ == "__main__":
    main()
