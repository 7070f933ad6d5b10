"""Models whose right answer to any input is known: every element is ``base << 20 | version``.

The base depends on the row alone and the version on the artifact alone, so an answer says which row it is to and by
which load of the model it was computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import joblib
import numpy as np
from sklearn.datasets import load_iris
from sklearn.svm import SVC

VERSION_BITS = 20
POOL_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """An input ``[rows, 4]`` and the base of each row's right answer, ``[rows]``."""

    rows: np.ndarray[Any, Any]
    base: np.ndarray[Any, Any]

    def version_of(self, answer: Any) -> int | None:
        """Return the version that computed ``answer``, or None if it is not the right answer of any."""
        found = np.asarray(answer)
        if found.shape != self.base.shape or found.dtype.kind not in "iu":
            return None
        version = int(found[0]) & ((1 << VERSION_BITS) - 1)
        return version if np.array_equal(found, (self.base << VERSION_BITS) | version) else None


class Known(Protocol):
    """A model of one runtime.

    Attributes:
        datatype: Of the input, as the v2 protocol calls it.
        faults: First elements of a row that the model answers with an error, and the HTTP status of that.
    """

    datatype: str
    faults: dict[int, int]

    def ask(self, random: Random, rows: int) -> Asked:
        """Return an input of so many rows."""

    def publish(self, artifact: Path, version: int) -> None:
        """Write the model of that version, at once: a load meanwhile reads the old one or the new one."""

    def spoil(self, artifact: Path) -> None:
        """Write what no load takes."""


class Iris:
    """A support vector machine, under the sklearn runtime. What is asked is drawn from rows that it answered here."""

    datatype = "FP64"
    faults: dict[int, int] = {}  # noqa: RUF012  # a constant

    def __init__(self) -> None:
        data = load_iris()
        self._data, self._target = data.data, data.target.astype(np.int64)
        noise = np.random.default_rng(0).normal(scale=0.3, size=(POOL_ROWS, 4))
        self._pool = np.round(self._data[np.arange(POOL_ROWS) % len(self._data)] + noise, 3)
        self._base = SVC(gamma="scale").fit(self._data, self._target).predict(self._pool)

    def ask(self, random: Random, rows: int) -> Asked:
        chosen = np.array(random.choices(range(POOL_ROWS), k=rows))
        return Asked(self._pool[chosen], self._base[chosen])

    def publish(self, artifact: Path, version: int) -> None:
        estimator = SVC(gamma="scale").fit(self._data, (self._target << VERSION_BITS) | version)
        written = artifact.parent / "model.joblib.new"
        joblib.dump(estimator, written)
        written.replace(artifact / "model.joblib")

    def spoil(self, artifact: Path) -> None:
        written = artifact.parent / "model.joblib.new"
        written.write_bytes(b"no pickle")
        written.replace(artifact / "model.joblib")


SLOW, REFUSED, BROKEN, LEAVING = 1 << 24, 1 << 25, 1 << 26, 1 << 27
SUMS = f"""
import sys, time
class Model:
    def load(self, artifact):
        self.version = int((artifact / "version").read_text())
    def predict(self, inputs):
        (rows,) = inputs.values()
        if rows.ndim != 2 or rows.shape[1] != 4:
            raise ValueError("four numbers a row")
        first = rows[:, 0]
        if (first == {SLOW}).any():
            time.sleep(0.01)
        if (first == {REFUSED}).any():
            raise ValueError("refused")
        if (first == {BROKEN}).any():
            raise RuntimeError("broken")
        if (first == {LEAVING}).any():
            sys.exit(3)
        return (rows.sum(axis=1) << {VERSION_BITS}) | self.version
"""


class Sums:
    """The sum of a row, under the python runtime. Some rows take it long, some it refuses, and of some it dies."""

    datatype = "INT64"
    faults = {REFUSED: 400, BROKEN: 500, LEAVING: 500}  # noqa: RUF012  # a constant

    def ask(self, random: Random, rows: int) -> Asked:
        numbers = np.frombuffer(random.randbytes(rows * 4 * 4), np.int32).reshape(rows, 4) >> 10
        asked = numbers.astype(np.int64)
        if random.random() < 0.01:
            asked[0, 0] = SLOW
        return Asked(asked, asked.sum(axis=1))

    def publish(self, artifact: Path, version: int) -> None:
        code = artifact / "model.py"
        if not code.exists():
            code.write_text(SUMS)
        self._write(artifact, str(version))

    def spoil(self, artifact: Path) -> None:
        self._write(artifact, "no number")

    @staticmethod
    def _write(artifact: Path, text: str) -> None:
        written = artifact.parent / "version.new"
        written.write_text(text)
        written.replace(artifact / "version")


def known(runtime: str) -> Known:
    """Return the model that is served by a runtime."""
    return Iris() if runtime == "sklearn" else Sums()
