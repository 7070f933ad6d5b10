"""Bodies of v1, put together and taken apart as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_agent.batcher import instances

CELLS = st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text()
ROWS = st.recursive(CELLS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:")])


def body(rows: list[Any], separators: tuple[str, str] = (",", ":"), **more: Any) -> bytes:
    return json.dumps({**more, "instances": rows}, separators=separators).encode()


@given(st.lists(st.tuples(st.lists(ROWS, min_size=1, max_size=3), SEPARATORS), min_size=1, max_size=6))
def test_parts_of_one_key_are_put_together_digit_by_digit(requests: list[tuple[list[Any], tuple[str, str]]]) -> None:
    by_key: dict[Any, list[tuple[list[Any], instances.Part]]] = {}
    for rows, separators in requests:
        part = instances.part(body(rows, separators))
        if part is not None:
            assert part.rows == len(rows)
            by_key.setdefault(part.key, []).append((rows, part))
    for alike in by_key.values():
        whole = json.loads(b"".join(instances.merged([part for _, part in alike])))
        assert repr(whole) == repr({"instances": [row for rows, _ in alike for row in rows]})


@given(st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=6))
def test_an_answer_is_taken_apart_as_it_was_put_together(answers: list[list[Any]]) -> None:
    flat = [row for rows in answers for row in rows]
    whole = {"predictions": flat, "model_version": "7", "scores": list(range(len(flat)))}
    bodies = instances.split(json.dumps(whole).encode(), [len(rows) for rows in answers])
    assert bodies is not None
    found = [json.loads(one) for one in bodies]
    assert repr([one["predictions"] for one in found]) == repr(answers)
    assert [score for one in found for score in one["scores"]] == whole["scores"]
    assert {one["model_version"] for one in found} == {"7"}
    assert {one["message"] for one in found} == {""}
    assert len({one["batchId"] for one in found}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[[1, 2]]", "[[1, 2.0]]"),
        ("[[1, 2]]", "[[1, 2, 3]]"),
        ("[[1, 2]]", "[1, 2]"),
        ("[1]", "[true]"),
        ("[1]", '["1"]'),
        ("[1]", "[1e2]"),
        ('[{"a": 1}]', '[{"b": 1}]'),
        ('[{"a": 1}]', '[{"a": 1.5}]'),
    ],
)
def test_what_a_model_could_tell_apart_does_not_go_together(one: str, other: str) -> None:
    keys = [instances.part(b'{"instances": %b}' % rows.encode()) for rows in (one, other)]
    assert all(keys)
    assert keys[0].key != keys[1].key  # type: ignore[union-attr]  # not None, as just seen


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b'{"instances": []}',
        b'{"instances": [[]]}',
        b'{"instances": [[1], [2, 3]]}',
        b'{"instances": [[[ ]], [[1]]]}',
        b'{"instances": [[1], 2]}',
        b'{"instances": [9223372036854775808]}',
        b'{"instances": [1], "inputs": [1]}',
        b'{"instances": [1, "a"]}',
        b'{"instances": [1]',
        b'{"instances": [1]], [2]}',
    ],
)
def test_what_is_wrong_or_has_no_common_shape_goes_alone(text: bytes) -> None:
    assert instances.part(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"predictions": [1, 2, 3]}',
        b'{"predictions": {"a": [1, 2]}}',
        b'{"predictions": [1, 2], "names": ["a"]}',
        b'{"predictions": [1, 2], "more": {"rows": [1, 2]}}',
        b'{"error": "no"}',
        b"no",
    ],
)
def test_what_has_not_a_part_for_each_row_is_not_taken_apart(text: bytes) -> None:
    assert instances.split(text, [1, 1]) is None


def test_the_answer_to_one_alone_keeps_every_byte_behind_what_kserve_adds() -> None:
    text = b'{ "predictions":[0.10000000000000000001] }'
    answer = instances.alone(text)
    assert answer.endswith(text[1:].rstrip())
    assert json.loads(answer).keys() == {"message", "batchId", "predictions"}


@pytest.mark.parametrize("text", [b"{}", b"[1]", b"", b'{"message": "m", "batchId": "b", "predictions": [1]}'])
def test_what_needs_nothing_more_stays_as_it_is(text: bytes) -> None:
    assert instances.alone(text) == text


def test_a_message_of_the_model_is_its_own() -> None:
    assert json.loads(instances.alone(b'{"message": "hi", "predictions": [1]}'))["message"] == "hi"
