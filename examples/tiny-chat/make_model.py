"""Make a tiny model that chats nonsense: ``python examples/tiny-chat/make_model.py [DIRECTORY] [--hidden 64] [--context 512]``.

Random weights, a tokenizer trained on the lines below and a template for conversations: all that a served model needs, in
a few hundred kilobytes. The same bytes come out every time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LINES = ["Hello! How are you today?", "The cat sat on the mat.", "Rivers run to the sea.", "What is the weather like?"]
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
SPECIAL = ["</s>", "<|system|>", "<|user|>", "<|assistant|>"]


def main() -> None:
    """Write the model beside the manifest that serves it, or where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=Path(__file__).parent / "model")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--context", type=int, default=512)
    options = parser.parse_args()
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytewise.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=384, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="</s>", chat_template=TEMPLATE)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.hidden,
            intermediate_size=2 * options.hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=options.context,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(options.directory)
    tokenizer.save_pretrained(options.directory)


if __name__ == "__main__":
    main()
