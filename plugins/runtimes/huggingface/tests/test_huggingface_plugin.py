"""What the descriptor says without the framework."""

from __future__ import annotations

import pytest
from servery_predictor.cli import WrongFlags, settings_from
from servery_runtime_huggingface.tasks import Task, task_of


@pytest.mark.parametrize(
    ("architecture", "labels", "task"),
    [
        ("BertForSequenceClassification", 3, Task.SEQUENCE_CLASSIFICATION),
        ("BertForSequenceClassification", 1, Task.RERANK),
        ("DistilBertForTokenClassification", 5, Task.TOKEN_CLASSIFICATION),
        ("RobertaForMaskedLM", 2, Task.FILL_MASK),
        ("BertModel", 2, Task.TEXT_EMBEDDING),
        ("LlamaForCausalLM", 2, Task.TEXT_GENERATION),
        ("GPT2LMHeadModel", 2, Task.TEXT_GENERATION),
        ("T5ForConditionalGeneration", 2, Task.TEXT2TEXT_GENERATION),
        ("MarianMTModel", 2, Task.TEXT2TEXT_GENERATION),
        ("BertForQuestionAnswering", 2, Task.QUESTION_ANSWERING),
        ("ViTForImageClassification", 3, Task.IMAGE_CLASSIFICATION),
        ("SegformerForSemanticSegmentation", 3, Task.IMAGE_SEGMENTATION),
        ("DetrForObjectDetection", 3, Task.OBJECT_DETECTION),
        ("Wav2Vec2ForCTC", 2, Task.AUTOMATIC_SPEECH_RECOGNITION),
        ("BertForNextSentencePrediction", 2, None),
    ],
)
def test_the_architecture_says_what_a_model_does(architecture: str, labels: int, task: Task | None) -> None:
    assert task_of([architecture, "Other"], labels=labels, known={}) is task


def test_a_config_without_architectures_says_nothing() -> None:
    assert task_of([], labels=2, known={}) is None


def test_what_the_framework_knows_counts_more_than_a_names_end() -> None:
    known = {"WhisperForConditionalGeneration": Task.AUTOMATIC_SPEECH_RECOGNITION}
    assert task_of([*known], labels=2, known=known) is Task.AUTOMATIC_SPEECH_RECOGNITION


def test_kserves_flags_are_options_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVERY_PREDICTOR_TASK", "rerank")
    monkeypatch.setenv("SERVERY_PREDICTOR_DTYPE", "bfloat16")
    settings, options = settings_from(
        [
            *("--runtime=huggingface", "--model_name=bert", "--task=fill_mask", "--max_model_len=12"),
            *("--return_probabilities", "--disable-lower-case", "--add_special_tokens=false", "--disable_log_requests"),
        ]
    )
    assert settings.model_name == "bert"
    assert options == {
        "task": "fill_mask",
        "dtype": "bfloat16",
        "max_length": 12,
        "return_probabilities": True,
        "disable_lower_case": True,
        "add_special_tokens": False,
    }


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--task=poetry", "--task: 'poetry' is none of: audio_classification, "),
        ("--max_length=many", "--max-length: Input should be a valid integer"),
        ("--return_probabilities=perhaps", "--return-probabilities: Input should be a valid boolean"),
        ("--tasks=fill_mask", "unrecognized arguments: --tasks=fill_mask"),
    ],
)
def test_a_wrong_option_is_a_wrong_flag(flag: str, words: str) -> None:
    with pytest.raises(WrongFlags) as refused:
        settings_from(["--runtime=huggingface", flag])
    assert words in str(refused.value)


def test_another_runtime_does_not_have_them() -> None:
    with pytest.raises(WrongFlags, match="unrecognized arguments: --task=fill_mask"):
        settings_from(["--runtime=sklearn", "--task=fill_mask"])
