"""What is left out of a body, and that nothing is let through where that cannot be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_agent.payloads.redaction import REDACTED, NotJson, Redaction
from servery_sdk.errors import Permanent

V1 = {"instances": [{"name": "a", "age": 1}, {"name": "b", "age": 2}], "big": 2**70}
V2 = {"inputs": [{"name": "x", "data": [1]}, {"name": "ssn", "data": [2], "parameters": {"ssn": 3}}]}


def redacted(document: Any, *paths: str) -> Any:
    return json.loads(Redaction.of(paths)(json.dumps(document).encode(), "application/json", is_whole=True))


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        pytest.param(
            "$.instances[*].name",
            {"instances": [{"name": REDACTED, "age": 1}, {"name": REDACTED, "age": 2}], "big": 2**70},
            id="each",
        ),
        pytest.param("$.instances[-1]", {"instances": [V1["instances"][0], REDACTED], "big": 2**70}, id="the last"),
        pytest.param("$['big']", {"instances": V1["instances"], "big": REDACTED}, id="quoted"),
        pytest.param(
            "$.instances[0]['name']", {**V1, "instances": [{"name": REDACTED, "age": 1}, V1["instances"][1]]}, id="one"
        ),
        pytest.param("$.*", {"instances": REDACTED, "big": REDACTED}, id="all members"),
        pytest.param("$.none[*].name", V1, id="nowhere"),
    ],
)
def test_values_at_a_path_are_replaced_and_all_others_stay(path: str, changed: Any) -> None:
    assert redacted(V1, path) == changed


def test_tensor_is_found_by_its_name_and_what_lies_deep_by_descent() -> None:
    assert redacted(V2, "$.inputs[?(@.name=='ssn')].data")["inputs"][1]["data"] == REDACTED
    assert redacted(V2, '$.inputs[?@.name=="ssn"]')["inputs"] == [V2["inputs"][0], REDACTED]
    assert redacted(V2, "$..ssn")["inputs"][1]["parameters"]["ssn"] == REDACTED


def test_path_into_what_another_replaces_does_no_harm() -> None:
    assert redacted(V1, "$.instances", "$.instances[*].name")["instances"] == REDACTED


@pytest.mark.parametrize(
    ("body", "content_type", "is_whole"),
    [
        pytest.param(b'{"a": 1', "application/json", True, id="no JSON"),
        pytest.param(b'{"a": 1}', "application/json", False, id="cut"),
        pytest.param(b"\x0a\x01m", "application/grpc", True, id="gRPC"),
        pytest.param(b'{"a": 1}\x00\x00', "application/octet-stream", True, id="v2 with its tensors in binary"),
    ],
)
def test_body_in_which_nothing_can_be_found_is_not_let_through(body: bytes, content_type: str, is_whole: bool) -> None:
    with pytest.raises(NotJson):
        Redaction.of(["$.a"])(body, content_type, is_whole=is_whole)
    assert Redaction()(body, content_type, is_whole=is_whole) == body


@pytest.mark.parametrize("path", ["instances", "$", "$.a[", "$.a[x]", "$ .a", "$.a b", ""])
def test_what_is_no_path_is_an_error_that_says_where(path: str) -> None:
    with pytest.raises(Permanent, match=r"^redaction: "):
        Redaction.of([path])


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcs"), inner, max_size=4),
)


@given(documents)
def test_what_is_redacted_by_descent_is_nowhere_left(document: Any) -> None:
    def values(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [found for name, inner in value.items() for found in ([inner] if name == "s" else values(inner))]
        return [found for inner in value for found in values(inner)] if isinstance(value, list) else []

    assert set(map(str, values(redacted(document, "$..s")))) <= {REDACTED}
