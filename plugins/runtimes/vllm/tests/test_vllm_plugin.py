"""What the descriptor says without vLLM."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from servery_predictor.cli import WrongFlags, settings_from
from servery_runtime_vllm.flags import command_line
from servery_runtime_vllm.plugin import servery_runtimes
from servery_sdk.model import ComponentKind


def test_the_descriptor_does_not_import_vllm() -> None:
    (runtime,) = servery_runtimes()
    assert (runtime.model_class or "").startswith("servery_runtime_vllm.model:")
    assert not {"vllm", "servery_runtime_vllm.model"} & set(sys.modules)


def test_flags_that_are_not_the_predictors_are_vllms_as_they_came() -> None:
    theirs = ["--tensor-parallel-size", "2", "--enable-lora", "--lora-modules", "a=/a", "b=/b", "--max_model_len=12"]
    settings, options = settings_from(["--runtime=vllm", *theirs[:2], "--model_name=llama", *theirs[2:]])
    assert settings.model_name == "llama"
    assert options == {"arguments": tuple(theirs)}


def test_flags_of_kserves_server_change_nothing_or_are_vllms_in_other_words() -> None:
    _, options = settings_from(
        [
            *("--runtime=vllm", "--task=text_embedding", "--backend=vllm", "--max_length=9", "--model_id=a/b"),
            *("--model_revision=main", "--disable_log_requests", "--enable_latency_logging=false", "--swap_space=4"),
        ]
    )
    line = command_line(Path("/mnt/models"), "llama", **options)
    assert line == [
        "--model=a/b",
        "--served-model-name=llama",
        "--revision=main",
        "--max-model-len=9",
        "--runner=pooling",
        "--convert=embed",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), ["--model=/m", "--served-model-name=n"]),
        (("--served-model-name", "a", "b"), ["--model=/m", "--served-model-name", "a", "b"]),
        (("--served_model_name=a",), ["--model=/m", "--served_model_name=a"]),
        (("--model=/x", "--dtype=half"), ["--model=/m", "--served-model-name=n", "--model=/x", "--dtype=half"]),
    ],
    ids=["none", "names", "underscores", "model"],
)
def test_what_the_user_says_comes_last_and_wins(arguments: tuple[str, ...], line: list[str]) -> None:
    assert command_line(Path("/m"), "n", arguments=arguments) == line


@pytest.mark.parametrize("flag", ["--task=poetry", "--backend=huggingface", "--max_length=many"])
def test_a_wrong_option_is_a_wrong_flag(flag: str) -> None:
    with pytest.raises(WrongFlags, match=flag.partition("=")[0].replace("_", "-")):
        settings_from(["--runtime=vllm", flag])


def test_the_name_that_vllms_server_is_given_is_that_of_every_protocol() -> None:
    (runtime,) = servery_runtimes()
    assert {runtime.local_copies[flag] for flag in ("served-model-name", "served_model_name")} == {"model_name"}
    settings, options = settings_from(["--runtime=vllm", "--model_name=a", "--served-model-name", "a", "b"])
    assert settings.model_name == "a"
    assert command_line(Path("/m"), "a", **options) == ["--model=/m", "--served-model-name", "a", "b"]


def test_the_pod_has_room_for_what_vllm_writes() -> None:
    (runtime,) = servery_runtimes()
    part: Any = runtime.parts[ComponentKind.PREDICTOR]
    mounts = {mount["mountPath"]: mount["name"] for mount in part.container["volumeMounts"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in part.pod["volumes"]}
    assert volumes[mounts["/dev/shm"]] == {"medium": "Memory"}
    assert all(
        each["value"].startswith("/tmp") for each in part.container["env"] if each["name"].endswith(("ROOT", "HOME"))
    )
    assert volumes[mounts["/tmp"]] == {}
