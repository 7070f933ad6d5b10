"""Tiny models of images and sounds with random weights, and things for them to see and hear."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from tiny_transformers import words
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    DetrImageProcessorPil,
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
    VitsConfig,
    VitsModel,
    VitsTokenizer,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

SIDE = 16
RATE = 16_000
CLASSES = {0: "cat", 1: "dog", 2: "river"}
_NAMED: Any = {"id2label": CLASSES, "label2id": {name: number for number, name in CLASSES.items()}}
_VIT: Any = {
    "image_size": SIDE,
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.6,
}
_WAVE2VEC: Any = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (5, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "initializer_range": 0.6,
    "apply_spec_augment": False,
}


def picture(seed: int, *, width: int = 24, height: int = 20) -> Any:
    """Pixels ``[height, width, 3]``."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: Any) -> bytes:
    """An image's file."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def wave(seed: int, *, seconds: float = 0.25, rate: int = RATE) -> Any:
    """A sound ``[samples]``, whose pitch rises."""
    rising = np.linspace(0, seconds, int(seconds * rate))
    return (0.5 * np.sin(2 * np.pi * (200 + 100 * seed + 900 * rising) * rising)).astype(np.float32)


def wav(samples: Any, *, rate: int = RATE, kind: str = "WAV") -> bytes:
    """A sound's file; FLOAT where the format has it, so that the samples come back."""
    written = io.BytesIO()
    soundfile.write(written, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else None)
    return written.getvalue()


def encoded(file: bytes) -> bytes:
    """A file as JSON can hold it."""
    return base64.b64encode(file)


def _vit() -> Any:
    size = {"height": SIDE, "width": SIDE}
    return ViTForImageClassification(ViTConfig(**_VIT, **_NAMED)), ViTImageProcessorPil(size=size)


def _vit_body() -> Any:
    size = {"height": SIDE, "width": SIDE}
    return ViTModel(ViTConfig(**_VIT), add_pooling_layer=False), ViTImageProcessorPil(size=size)


def _clip() -> Any:
    tokenizer = words()
    text: Any = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config=_VIT, projection_dim=8)
    tokenizer.model_max_length = 32
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return CLIPModel(config), processor, tokenizer


def _detr(kind: Any) -> Any:
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = DetrConfig(
        backbone_config=backbone,
        d_model=128,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=8,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        init_std=0.2,
        **_NAMED,
    )
    return kind(config), DetrImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64})


def _segformer() -> Any:
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        initializer_range=0.6,
        **_NAMED,
    )
    return SegformerForSemanticSegmentation(config), SegformerImageProcessorPil(size={"height": 32, "width": 32})


def _heard() -> Any:
    return Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**_WAVE2VEC, **_NAMED)), Wav2Vec2FeatureExtractor()


def _ctc(directory: Path) -> Any:
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghij"]
    vocabulary = directory / "letters.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    processor = Wav2Vec2Processor(
        feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=Wav2Vec2CTCTokenizer(str(vocabulary))
    )
    config = Wav2Vec2Config(**_WAVE2VEC, vocab_size=len(letters), pad_token_id=0)
    return Wav2Vec2ForCTC(config), processor


MAKERS: dict[str, Callable[[], Any]] = {
    "image-classes": _vit,
    "image-vector": _vit_body,
    "clip": _clip,
    "boxes": lambda: _detr(DetrForObjectDetection),
    "masks": lambda: _detr(DetrForSegmentation),
    "areas": _segformer,
    "sound-classes": _heard,
}


def perceiver(kind: str, directory: Path, *, seed: int = 0) -> tuple[Any, ...]:
    """Write a model of ``kind`` to ``directory``, and return it with its processor, and its tokenizer where it has one."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    made: dict[str, Callable[[], Any]] = {
        "ctc": lambda: _ctc(directory),
        "whisper": _whisper,
        "voice": lambda: _voice(directory, 1),
        "voices": lambda: _voice(directory, 3),
    }
    parts = made.get(kind, MAKERS.get(kind))()
    for part in parts:
        part.save_pretrained(directory)
    return (parts[0].eval(), *parts[1:])


def _voice(directory: Path, voices: int) -> Any:
    """A VITS of letters, with one voice or several; it draws no noise unless its config is told to."""
    letters = ["_", *"abcdefghijklmnopqrstuvwxyz '"]
    vocabulary = directory / "letters.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    config = VitsConfig(
        vocab_size=len(letters),
        pad_token_id=0,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        layerdrop=0.0,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=16,
        upsample_rates=(8, 4),
        upsample_kernel_sizes=(16, 8),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        depth_separable_num_layers=1,
        duration_predictor_num_flows=1,
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        num_speakers=voices,
        speaker_embedding_size=8 if voices > 1 else 0,
        noise_scale=0.0 if voices == 1 else 0.6,
        noise_scale_duration=0.0 if voices == 1 else 0.6,
    )
    tokenizer = VitsTokenizer(str(vocabulary), pad_token="_", unk_token="_", phonemize=False)
    return VitsModel(config), tokenizer


def _whisper() -> Any:
    """A Whisper whose window is one second, with the tokens that a real one has around its text."""
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    special = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startofprev", "nospeech"]
    named = [f"<|{name}|>" for name in [*special, "notimestamps"]]
    tokenizer = WhisperTokenizer(vocab=alphabet, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": named})
    tokenizer.add_tokens([AddedToken(f"<|{moment * 0.02:.2f}|>", special=False) for moment in range(51)])
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in [*special, "notimestamps"]}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=16,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=50,
        max_target_positions=40,
        init_std=0.7,
        bos_token_id=ids["endoftext"],
        eos_token_id=ids["endoftext"],
        pad_token_id=ids["endoftext"],
        decoder_start_token_id=ids["startoftranscript"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    told = model.generation_config
    named_ids: dict[str, Any] = {
        "_from_model_config": False,
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": ids["en"], "<|de|>": ids["de"]},
        "task_to_id": {"transcribe": ids["transcribe"], "translate": ids["translate"]},
        "no_timestamps_token_id": ids["notimestamps"],
        "prev_sot_token_id": ids["startofprev"],
        "decoder_start_token_id": ids["startoftranscript"],
        "eos_token_id": ids["endoftext"],
        "pad_token_id": ids["endoftext"],
        "max_initial_timestamp_index": 50,
        "max_length": 30,
    }
    for name, value in named_ids.items():
        setattr(told, name, value)
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    return model, WhisperProcessor(feature_extractor=extractor, tokenizer=tokenizer)
