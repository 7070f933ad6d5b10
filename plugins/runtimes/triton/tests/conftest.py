"""A repository of Triton's documented examples, in our words, and small ones of a test's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servery_runtime_triton.model import TritonModel
from servery_sdk.protocol import Datatype, InferRequest, Tensor

MODELS = Path(__file__).parent / "models"

Load = Callable[..., dict[str, TritonModel]]


@pytest.fixture
def load() -> Iterator[Load]:
    """Loads every model of a repository, as the predictor does; gives them back at the end."""
    loaded: list[TritonModel] = []

    def load(repository: Path) -> dict[str, TritonModel]:
        models = {}
        for name, make in TritonModel.stored(repository, engine="servery").items():
            models[name] = make()
            models[name].load(repository)
            loaded.append(models[name])
        return models

    yield load
    for model in loaded:
        model.close()


@pytest.fixture
def documented(load: Load, tmp_path: Path) -> dict[str, TritonModel]:
    """The documented examples, loaded."""
    shutil.copytree(MODELS, tmp_path / "documented", ignore=shutil.ignore_patterns("__pycache__"))
    return load(tmp_path / "documented")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Python model into the test's repository; returns the repository."""

    def write(name: str, code: str = "", *, config: str | None = "", version: str = "1") -> Path:
        files = tmp_path / "repository" / name / version
        files.mkdir(parents=True)
        if code:
            (files / "model.py").write_text(code)
        if config is not None:
            (files.parent / "config.pbtxt").write_text(config)
        return tmp_path / "repository"

    return write


@pytest.fixture
def ask() -> Callable[..., InferRequest]:
    """Makes a request of arrays by input name; lists of texts are BYTES."""

    def ask(model: str, *, version: str | None = None, id: str | None = None, **inputs: Any) -> InferRequest:  # noqa: A002  # the field's name
        tensors = []
        for name, data in inputs.items():
            array = np.asarray(data)
            if array.dtype.kind == "U":
                array = np.array([text.encode() for text in array.ravel()], dtype=object).reshape(array.shape)
            tensors.append(Tensor(name=name, data=array, datatype=Datatype.of(array)))
        return InferRequest(model=model, version=version, id=id, inputs=tuple(tensors))

    return ask
