"""Which pickles are refused. Real ones of torch are looked at in the torch runtime's tests; here they are made by hand."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import pickle
import pickletools
import posixpath
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from servery_storage.opcodes import Named, Unreadable, names
from servery_storage.pickles import Pickles, is_dangerous, pickles_in
from servery_storage.policies import Refused
from servery_storage.settings import PicklePolicy
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC


class Evil:
    def __reduce__(self) -> Any:
        return eval, ("1 + 1",)


ROWS = np.arange(200.0).reshape(50, 4)
LABELS = np.arange(50) % 2
MODELS: dict[str, Any] = {
    "logistic": LogisticRegression().fit(ROWS, LABELS),
    "forest": RandomForestClassifier(5).fit(ROWS, LABELS),
    "boosted": GradientBoostingClassifier(n_estimators=3).fit(ROWS, LABELS),
    "pipeline": make_pipeline(StandardScaler(), FunctionTransformer(np.tanh), SVC()).fit(ROWS, LABELS),
    "words": TfidfVectorizer().fit(["a few words", "more words"]),
    "arrays": {
        "objects": np.array(["x", None, {"y": 1}], dtype=object),
        "texts": np.array(["äö", "u"]),
        "records": np.zeros(3, dtype=[("f", "f8"), ("g", "i4")]),
        "empty": np.array([], dtype="f4"),
        "none": np.array(3.0),
        "dates": np.array(["2020-01-01"], dtype="M8[D]"),
        "by-column": np.zeros((100, 100), order="F"),
        "big-endian": np.arange(3, dtype=">i8"),
        "after": [1, "two", (3, 4, 5, 6), {7}, frozenset({8}), b"9", bytearray(b"10"), 2**100, 1.5, True, None],
    },
}


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def dumped(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **how)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return buffer.getvalue()


def check(tmp_path: Path, name: str, content: bytes, policy: PicklePolicy = PicklePolicy.REFUSE) -> None:
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / name).write_bytes(content)
    Pickles(policy).check(tmp_path / "model")


@pytest.mark.parametrize("compress", [0, 3, 9, ("gzip", 3), ("bz2", 3), ("xz", 3)], ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_real_joblib_passes_and_is_read_to_its_end(tmp_path: Path, model: str, compress: Any) -> None:
    content = dumped([MODELS[model], posixpath.join], compress=compress)
    check(tmp_path, "model.joblib", content)
    (found,) = pickles_in(tmp_path / "model" / "model.joblib", "m")
    assert Named("posixpath", "join") in found.names
    assert found.problem is None


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("model", MODELS)
def test_real_pickle_passes_and_is_read_to_its_end(tmp_path: Path, model: str, protocol: int) -> None:
    check(tmp_path, "model.pkl", pickle.dumps([MODELS[model], posixpath.join], protocol))
    (found,) = pickles_in(tmp_path / "model" / "model.pkl", "m")
    assert Named("posixpath", "join") in found.names


def test_arrays_of_numbers_and_files_that_are_no_pickles_pass(tmp_path: Path) -> None:
    check(tmp_path, "a.npy", npy(ROWS))
    check(tmp_path, "a.npz", npz(a=ROWS, b=np.array(["x", None], dtype=object)))
    check(tmp_path, "vocabulary.bin", bytes(range(1, 256)) * 100)
    check(tmp_path, "empty.bin", b"")
    check(tmp_path, "notes.txt", pickle.dumps(Evil()))
    found = [pickle for path in (tmp_path / "model").iterdir() for pickle in pickles_in(path, path.name)]
    assert {pickle.where for pickle in found if pickle.names} == {"a.npz:b.npy", "notes.txt"}


EVIL = np.array([Evil()], dtype=object)
HARM: dict[str, tuple[str, bytes]] = {
    **{f"protocol-{protocol}": ("m.pkl", pickle.dumps(Evil(), protocol)) for protocol in range(6)},
    "suffix-in-capitals": ("M.PKL", pickle.dumps(Evil())),
    "pickle": ("m.pickle", pickle.dumps(Evil())),
    "cut-before-its-end": ("m.pkl", pickle.dumps(Evil())[:-1]),
    "bin-that-is-cut": ("m.bin", pickle.dumps(Evil(), 0)[:-1]),
    "second-pickle": ("m.bin", pickle.dumps(1) + pickle.dumps(Evil())),
    "second-pickle-of-protocol-0": ("m.bin", pickle.dumps(1) + pickle.dumps(Evil(), 0)),
    "joblib": ("m.joblib", dumped(Evil())),
    "joblib-after-an-array": ("m.joblib", dumped([ROWS, Evil()])),
    "joblib-after-texts": ("m.joblib", dumped([np.array(["äö"]), Evil()])),
    "joblib-after-records": ("m.joblib", dumped([np.zeros(3, dtype=[("f", "f8")]), Evil()])),
    "joblib-in-objects": ("m.joblib", dumped([EVIL])),
    "joblib-after-objects": ("m.joblib", dumped([np.array([None]), Evil()])),
    "joblib-by-zlib": ("m.joblib", dumped([ROWS, Evil()], compress=3)),
    "joblib-by-gzip": ("m.joblib", dumped([ROWS, Evil()], compress=("gzip", 3))),
    "joblib-by-bz2": ("m.joblib", dumped([ROWS, Evil()], compress=("bz2", 3))),
    "joblib-by-xz": ("m.joblib", dumped([ROWS, Evil()], compress=("xz", 3))),
    "npy": ("m.npy", npy(EVIL)),
    "npz": ("m.npz", npz(a=ROWS, b=EVIL)),
    "torch": ("m.pt", zipped(m__data_pkl=pickle.dumps(Evil(), 2), m__data__0=bytes(64))),
    "torch-by-another-name": ("m.ckpt", zipped(m__data_pkl=pickle.dumps(Evil(), 2))),
    "torch-member-by-another-name": ("m.pth", zipped(m__extra=pickle.dumps(Evil(), 2))),
    "pickle-with-a-zip-behind-it": ("m.pt", pickle.dumps(Evil()) + zipped(m__data_pkl=pickle.dumps(1))),
    "zip-with-a-pickle-before-it": ("m.pt", b"\x80" + zipped(m__data_pkl=pickle.dumps(Evil()))),
    "old-instance": ("m.pkl", b"(S'1'\ni__builtin__\neval\n."),
    "object": ("m.pkl", b"(c__builtin__\neval\nS'1'\no."),
    "escaped-text": ("m.pkl", b"S'built\\x69ns'\nS'eval'\n\x93(S'1'\ntR."),
    "escaped-unicode": ("m.pkl", b"Vbuilt\\u0069ns\nVeval\n\x93(S'1'\ntR."),
    "names-from-memory": ("m.pkl", b"\x80\x04\x8c\x08builtins\x940\x8c\x04eval\x940h\x00h\x01\x93."),
    "names-twice-used": ("m.pkl", b"\x80\x04\x8c\x08builtins\x8c\x05eval2\x940\x8c\x04eval\x93."),
    "names-it-makes-up": ("m.pkl", b"\x80\x04\x8c\x08builtins(lcposixpath\njoin\n\x8c\x01e\x85R\x93."),
    "registered-extension": ("m.pkl", b"\x80\x02\x82\x01."),
    "through-another-module": ("m.pkl", b"\x80\x04\x8c\x0bgenericpath\x8c\x09os.system\x93."),
}  # fmt: skip


@pytest.mark.parametrize("case", HARM)
def test_harm_is_found_wherever_it_lies(tmp_path: Path, case: str) -> None:
    name, content = HARM[case]
    with pytest.raises(Refused, match=rf"^{name}(:\S+)? would run .*(eval|os\.system|makes up as it goes)"):
        check(tmp_path, name, content)


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "lz4": ("m.joblib", b"\x04\x22\x4d\x18" + bytes(40), "is compressed by LZ4"),
    "text": ("m.pkl", b"hello", "takes up to a mark that is not there"),
    "empty": ("m.pkl", b"", "ends at byte 1"),
    "cut-within-a-number": ("m.pkl", b"\x80\x02J\x01", "ends at byte 4, within an instruction"),
    "cut-within-a-line": ("m.pkl", b"I12", "within a line"),
    "cut-gzip": ("m.joblib", dumped(ROWS, compress=("gzip", 3))[:-50], "cannot be decompressed"),
    "cut-array": ("m.joblib", dumped(ROWS)[:-100], "within an instruction"),
    "mark-that-is-not-there": ("m.pkl", b"\x80\x02]e.", "takes up to a mark|empty stack"),
    "no-number": ("m.pkl", b"Ix\n.", "has 'x' for a number"),
    "zip-that-is-cut": ("m.npz", npz(a=ROWS)[:-30], "is a zip file that cannot be read"),
    "hidden-wrapper": (
        "m.joblib",
        b"\x80\x02ccopyreg\n_reconstructor\ncjoblib.numpy_pickle\nNumpyArrayWrapper\nc__builtin__\nobject\nN\x87R.",
        "hides where an array begins",
    ),
    "made-up-state": (
        "m.joblib",
        b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81c__builtin__\ndict\n)Rb.",
        "has an array of a state that it makes up",
    ),
    "made-up-type": (
        "m.joblib",
        b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}U\x05dtypeNsb.",
        "has an array of a type that it makes up",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_pickle_that_cannot_be_read_to_its_end_is_refused(tmp_path: Path, case: str) -> None:
    name, content, words = UNREADABLE[case]
    with pytest.raises(Refused, match=rf"^{name} cannot be looked into: it .*({words})"):
        check(tmp_path, name, content)


def test_warning_lets_it_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check(tmp_path, "m.pkl", pickle.dumps(Evil()), PicklePolicy.WARN)
    (record,) = caplog.records
    assert vars(record)["reason"] == "m.pkl would run builtins.eval when it is loaded"


def test_large_values_are_passed_over(tmp_path: Path) -> None:
    """What is read at once is bounded, so that a pickle is looked into in less memory than it has bytes."""

    class Watched(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1) -> bytes:
            self.largest = max(self.largest, size if size is not None and size >= 0 else 2**62)
            return super().read(size)

    content = Watched(pickle.dumps([b"x" * 10**7, "y" * 10**7, bytearray(10**7), 2 ** (8 * 10**5), Evil()], 5))
    assert Named("builtins", "eval") in set(names(content))
    assert content.largest <= 1024**2


CODES = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
ARGUMENTS = st.sampled_from([b"", b"\x01", b"\x01\x93", b"a\n", b"1\n", b"\x01\0\0\0", b"os\nx\n", b"'a'\n"])


@given(st.binary(max_size=200) | st.lists(CODES | ARGUMENTS, max_size=30).map(b"".join))
@example(b"\x8d" + bytes([255] * 8))
@example(b"\x8e" + (2**63 - 1).to_bytes(8, "little"))
@example(b"\x8c\x01\x93")
@example(b"V\\u12\n")
def test_any_bytes_are_read_or_said_to_be_unreadable(content: bytes) -> None:
    try:
        found = list(names(io.BytesIO(content)))
    except Unreadable:
        return
    assert all(isinstance(one, Named) for one in found)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.integers(0, 5), st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]))
def test_every_pickle_is_read_to_its_end(
    tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path_factory.mktemp("pickle") / "m.pkl"
    path.write_bytes(compress(pickle.dumps([value, posixpath.join], protocol)))
    (found,) = pickles_in(path, "m.pkl")
    assert found.problem is None
    assert Named("posixpath", "join") in found.names


@pytest.mark.parametrize(
    "name", ["sklearn.linear_model._logistic.LogisticRegression", "numpy.dtype", "torch.FloatStorage"]
)
def test_what_models_are_made_of_is_not_dangerous(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert not is_dangerous(Named(module, attribute))
