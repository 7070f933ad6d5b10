"""Names and quantities."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_sdk import names, quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        (2, "2"),
        ("0.5", "0.5"),
        ("500m", "0.5"),
        ("1.5Gi", str(1536 * 2**20)),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("1E", "1000000000000000000"),
        ("12E-3", "0.012"),
        ("-3", "-3"),
        ("100n", "0.0000001"),
    ],
)
def test_quantity_is_worth_what_kubernetes_says(text: str | int, value: str) -> None:
    assert quantities.parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "one", "1 Gi", "1GiB", "1gi", "Gi", "1e", "--1", ".", "1K"])
def test_what_is_no_quantity_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="Ki Mi Gi"):
        quantities.parse(text)


@given(st.text(alphabet="abc-", min_size=1, max_size=90), st.integers(20, 63))
def test_shortened_name_fits_and_ends_well(name: str, characters: int) -> None:
    short = names.shortened(name, characters)
    assert len(short) <= characters
    assert short == name or not short.endswith("-")


@given(st.lists(st.text(alphabet="ab", min_size=70, max_size=80), min_size=2, max_size=6, unique=True))
def test_names_that_differ_still_do_when_shortened(long: list[str]) -> None:
    assert len({names.shortened(name) for name in long}) == len(long)
