"""Tiny models with random weights, and tokenizers trained on a few words: what a test writes to a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    ByT5Tokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = ["the cat sat on the mat", "a dog barked at the moon", "rivers run to the sea", "größe für 日本語 😀"]
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
)
CONTEXT = 64
READERS = {
    "sequence": BertForSequenceClassification,
    "tokens": BertForTokenClassification,
    "mask": BertForMaskedLM,
    "embed": BertModel,
    "rank": BertForSequenceClassification,
    "answers": BertForQuestionAnswering,
    "entails": BertForSequenceClassification,
}


def words() -> Any:
    """A tokenizer of whole words, as BERT has them."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(WORDS, trainers.WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def pieces(*, template: str | None = TEMPLATE) -> Any:
    """A tokenizer of bytes that were merged, as GPT-2 has them: a character may be several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", chat_template=template)


def reader(kind: str, *, seed: int = 0) -> tuple[Any, Any]:
    """Return a BERT of ``kind`` and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = words()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=CONTEXT,
        num_labels={"rank": 1, "answers": 2}.get(kind, 3),
        **({"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}} if kind == "entails" else {}),
        initializer_range=1.0,
    )
    return READERS[kind](config).eval(), tokenizer


def write_reader(kind: str, directory: Path, *, seed: int = 0) -> None:
    """Write ``reader``'s files."""
    for part in reader(kind, seed=seed):
        part.save_pretrained(directory)


def writer(kind: str, *, seed: int = 0, tokenizer: Any = None) -> tuple[Any, Any]:
    """Return a model of ``kind`` that generates, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or pieces()
    small: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.5,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    made: Any = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**small)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**small, sliding_window=8)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=CONTEXT,
                initializer_range=0.5,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        ),
        "t5": lambda: T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=0,
                pad_token_id=0,
                eos_token_id=tokenizer.eos_token_id,
                initializer_factor=3.0,
            )
        ),
        "mamba": lambda: MambaForCausalLM(
            MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=4)
        ),
    }[kind]()
    return made.eval(), tokenizer


def write_writer(kind: str, directory: Path, *, seed: int = 0, tokenizer: Any = None) -> None:
    """Write ``writer``'s files."""
    for part in writer(kind, seed=seed, tokenizer=tokenizer):
        part.save_pretrained(directory)


def continued(model: Any, tokenizer: Any, prompt: str, count: int, *, stops: bool = True) -> str:
    """Return what transformers' own ``generate`` writes behind ``prompt``, the likeliest token each time."""
    given = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    ends = {} if stops else {"eos_token_id": None}
    (written,) = model.generate(**given, max_new_tokens=count, do_sample=False, pad_token_id=0, **ends)
    skipped = 1 if model.config.is_encoder_decoder else given["input_ids"].shape[1]
    return str(tokenizer.decode(written[skipped:], skip_special_tokens=True))


def bytes_tokenizer() -> Any:
    """A tokenizer in Python, of bytes."""
    return ByT5Tokenizer()
