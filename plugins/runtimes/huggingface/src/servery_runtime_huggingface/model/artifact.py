"""Reads config, tokenizer and weights; what is wrong with them is said before anything is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from servery_sdk.serving import LoadError
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto import modeling_auto as auto

from servery_runtime_huggingface.tasks import HEARING, SEEING, Task, task_of

CONFIG = "config.json"
_DTYPES = {
    "float": torch.float32,
    "float32": torch.float32,
    "half": torch.float16,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_CLASSES = {
    Task.SEQUENCE_CLASSIFICATION: transformers.AutoModelForSequenceClassification,
    Task.RERANK: transformers.AutoModelForSequenceClassification,
    Task.TOKEN_CLASSIFICATION: transformers.AutoModelForTokenClassification,
    Task.FILL_MASK: transformers.AutoModelForMaskedLM,
    Task.TEXT_EMBEDDING: transformers.AutoModel,
    Task.TEXT_GENERATION: transformers.AutoModelForCausalLM,
    Task.TEXT2TEXT_GENERATION: transformers.AutoModelForSeq2SeqLM,
    Task.QUESTION_ANSWERING: transformers.AutoModelForQuestionAnswering,
    Task.ZERO_SHOT_CLASSIFICATION: transformers.AutoModelForSequenceClassification,
    Task.SENTENCE_SIMILARITY: transformers.AutoModel,
    Task.IMAGE_CLASSIFICATION: transformers.AutoModelForImageClassification,
    Task.ZERO_SHOT_IMAGE_CLASSIFICATION: transformers.AutoModelForZeroShotImageClassification,
    Task.IMAGE_FEATURE_EXTRACTION: transformers.AutoModel,
    Task.OBJECT_DETECTION: transformers.AutoModelForObjectDetection,
    Task.IMAGE_TEXT_TO_TEXT: transformers.AutoModelForImageTextToText,
    Task.AUDIO_CLASSIFICATION: transformers.AutoModelForAudioClassification,
    Task.TEXT_TO_AUDIO: transformers.AutoModelForTextToWaveform,
}
_SEGMENTERS = {
    transformers.AutoModelForUniversalSegmentation: auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
    transformers.AutoModelForInstanceSegmentation: auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES,
    transformers.AutoModelForSemanticSegmentation: auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
}
_LISTENERS = {
    transformers.AutoModelForCTC: auto.MODEL_FOR_CTC_MAPPING_NAMES,
    transformers.AutoModelForSpeechSeq2Seq: auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
}
_KNOWN: Mapping[str, Task] = {
    name: task
    for task, listed in (
        (Task.TEXT_TO_AUDIO, auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES),
        (Task.IMAGE_FEATURE_EXTRACTION, auto.MODEL_FOR_IMAGE_MAPPING_NAMES),
        (Task.ZERO_SHOT_IMAGE_CLASSIFICATION, auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES),
        (Task.IMAGE_TEXT_TO_TEXT, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
        (Task.AUDIO_CLASSIFICATION, auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES),
        *((Task.AUTOMATIC_SPEECH_RECOGNITION, names) for names in _LISTENERS.values()),
    )
    for names in listed.values()
    for name in ([names] if isinstance(names, str) else names)
}
"""Where transformers' own tables say more than the end of a name."""

_progress: Any = transformers.utils.logging
_progress.disable_progress_bar()  # a bar is no line of a log


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What KServe's ``huggingfaceserver`` takes, by its names and with its defaults.

    Source: KServe, python/huggingfaceserver, ``__main__.py``.
    """

    task: str | None = None
    backend: str = "auto"
    model_id: str | None = None
    model_revision: str | None = None
    tokenizer_revision: str | None = None
    max_length: int | None = None
    dtype: str = "auto"
    add_special_tokens: bool = True
    disable_special_tokens: bool = False
    disable_lower_case: bool = False
    return_probabilities: bool = False
    return_raw_logits: bool = False
    return_token_type_ids: bool = False
    tensor_input_names: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None
    tool_call_parser: str | None = None
    enable_auto_tool_choice: bool = False
    max_num_seqs: int = 256

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Return the options of ``given``, whose names and types the runtime's descriptor has checked."""
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model's files; the weights are read when they are first asked for."""

    place: str
    options: Options
    config: Any
    task: Task
    tokenizer: Any
    processor: Any
    """Of images, of sounds, or of texts with images, by the task; None where it takes texts alone."""

    @classmethod
    def of(cls, artifact: Path, options: Options) -> Source:
        """Read everything but the weights.

        Raises:
            LoadError: Not a model of transformers, or not one for this runtime.
        """
        if options.backend == "vllm":
            raise LoadError("--backend vllm: this runtime is transformers' own; serve the model with a vLLM runtime")
        if options.model_id is None and not (artifact / CONFIG).is_file():
            present = ", ".join(sorted(path.name for path in artifact.iterdir())) if artifact.is_dir() else ""
            raise LoadError(f"{artifact}: a model of transformers has a {CONFIG}; found: {present or 'nothing'}")
        place = options.model_id or str(artifact)
        files = {"revision": options.model_revision, "trust_remote_code": options.trust_remote_code}
        try:
            config = AutoConfig.from_pretrained(place, **files)
            task = _task(config, options, place)
            processor = _processor(task, place, files)
            tokenizer = getattr(processor, "tokenizer", None) or _tokenizer(task, place, options)
        except LoadError:
            raise
        except Exception as error:
            # Files of anybody, and code of the model's own.
            raise LoadError(f"{place}: {type(error).__name__}: {error}") from error
        return cls(place=place, options=options, config=config, task=task, tokenizer=tokenizer, processor=processor)

    @cached_property
    def device(self) -> torch.device:
        """Where the model computes."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def special_tokens(self) -> bool:
        """Whether texts get the tokenizer's special tokens."""
        return self.options.add_special_tokens and not self.options.disable_special_tokens

    @property
    def limit(self) -> int | None:
        """Tokens that the model takes; None where neither it nor an option says.

        Raises:
            LoadError: The option is beyond the model.
        """
        # GPT-2 and T5 have words of their own for it; not every config says.
        names = ("max_position_embeddings", "n_positions", "max_sequence_length")
        text = self.config.get_text_config(decoder=True)
        own = next((found for name in names if isinstance(found := getattr(text, name, None), int) and found > 0), None)
        asked = self.options.max_length
        if asked is not None and own is not None and asked > own:
            raise LoadError(f"{self.place}: --max-length {asked}: the model takes {own} tokens")
        return asked or own

    @property
    def model(self) -> Any:
        """The model, ready to compute.

        Raises:
            LoadError: The files do not hold it, or not its head.
        """
        return self._read[0]

    @property
    def is_pooled(self) -> bool:
        """Whether the files have the weights of what the model pools with, if it has any."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Any, bool]:
        dtype = _DTYPES.get(self.options.dtype, torch.float16 if self.device.type == "cuda" else torch.float32)
        try:
            model, found = _class_of(self.task, self.config).from_pretrained(
                self.place,
                config=self.config,
                revision=self.options.model_revision,
                trust_remote_code=self.options.trust_remote_code,
                dtype=dtype,
                output_loading_info=True,
            )
        except Exception as error:
            # As above; what is wrong with a file is in its reader's words.
            raise LoadError(f"{self.place}: {type(error).__name__}: {error}") from error
        # transformers makes up weights that are missing; a pooler's are not used where it has.
        if made_up := sorted(name for name in found["missing_keys"] if "pooler" not in name):
            named = ", ".join(made_up[:3]) + (f" and {len(made_up) - 3} more" if len(made_up) > 3 else "")
            raise LoadError(f"{self.place}: the files have no weights for {named}; was it trained for {self.task}?")
        return model.to(self.device).eval(), not found["missing_keys"]


def _class_of(task: Task, config: Any) -> Any:
    """Return what reads the weights: for some tasks there are several, each with its own models."""
    if (known := _CLASSES.get(task)) is not None:
        return known
    classes = _SEGMENTERS if task is Task.IMAGE_SEGMENTATION else _LISTENERS
    fitting = [kind for kind, names in classes.items() if config.model_type in names]
    # A type of both, as SeamlessM4T, is told apart by its architecture; one of none is refused by the last's own words.
    named = [kind for kind in fitting if (config.architectures or [""])[0] in classes[kind][config.model_type]]
    return next(iter([*named, *fitting, *reversed(classes)]))


def _processor(task: Task, place: str, files: Mapping[str, Any]) -> Any:
    kind: Any = None
    more: Mapping[str, Any] = {}
    if task in (Task.IMAGE_TEXT_TO_TEXT, Task.AUTOMATIC_SPEECH_RECOGNITION):
        kind = transformers.AutoProcessor
    elif task in SEEING:
        # torchvision scales images otherwise: where it happens to be installed, a model would answer otherwise.
        kind, more = transformers.AutoImageProcessor, {"backend": "pil"}
    elif task in HEARING:
        kind = transformers.AutoFeatureExtractor
    return None if kind is None else kind.from_pretrained(place, **files, **more)


def _tokenizer(task: Task, place: str, options: Options) -> Any:
    if task in SEEING | HEARING and task is not Task.ZERO_SHOT_IMAGE_CLASSIFICATION:
        return None
    return AutoTokenizer.from_pretrained(
        place,
        revision=options.tokenizer_revision or options.model_revision,
        trust_remote_code=options.trust_remote_code,
        **({"do_lower_case": False} if options.disable_lower_case else {}),
    )


def _task(config: Any, options: Options, place: str) -> Task:
    if options.task is not None:
        return Task(options.task)
    architectures = config.architectures or ()
    found = task_of(architectures, labels=config.num_labels, known=_KNOWN)
    if found is None:
        named = ", ".join(architectures) or "none"
        raise LoadError(
            f"{place}: architectures in {CONFIG}: {named}: nothing says what the model does; "
            f"give --task, one of: {', '.join(sorted(Task))}"
        )
    return found
