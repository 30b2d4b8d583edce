from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import polynomial

from dealias.errors import InputError, InputTypeError
from dealias.filters import FILTERS, parse_filter, resolve_filter

ZHANG = {  # section 4.1 of the paper, and their names in it
    "rect2": [1, 1],
    "tri3": [1, 2, 1],
    "bin4": [1, 3, 3, 1],
    "bin5": [1, 4, 6, 4, 1],
    "bin6": [1, 5, 10, 10, 5, 1],
    "bin7": [1, 6, 15, 20, 15, 6, 1],
    "none": [1],
}


@pytest.mark.parametrize("name", ZHANG)
def test_named_filters(name: str) -> None:
    assert list(resolve_filter(name)) == [tap / sum(ZHANG[name]) for tap in ZHANG[name]]


def test_the_names_are_exactly_those() -> None:
    assert set(FILTERS) == set(ZHANG)


@given(length=st.integers(1, 40))
def test_an_int_is_the_binomial_filter_of_that_many_taps(length: int) -> None:
    expected = polynomial.polypow([0.5, 0.5], length - 1)
    np.testing.assert_allclose(resolve_filter(length), expected, rtol=1e-12, atol=0)
    assert resolve_filter(np.int64(length)) == resolve_filter(length)


@given(taps=st.lists(st.integers(-9, 9), min_size=1, max_size=9).filter(sum))
def test_any_taps_are_normalised_to_sum_1_from_any_container(taps: list[int]) -> None:
    resolved = resolve_filter(taps)
    assert math.isclose(math.fsum(resolved), 1, rel_tol=1e-12)
    np.testing.assert_allclose(np.array(resolved) * sum(taps), taps, rtol=1e-12, atol=1e-12)
    assert all(type(tap) is float for tap in resolved)
    for same in (tuple(taps), np.array(taps), torch.tensor(taps), torch.tensor(taps, dtype=torch.float64), iter(taps)):
        assert resolve_filter(same) == resolved


@pytest.mark.parametrize(
    ("filter", "error", "says"),
    [
        ("bin9", InputError, "bin9.*bin4"),
        ("Bin4", InputError, "Bin4.*bin4"),
        (0, InputError, "filter=0 .*at least 1"),
        (-3, InputError, "filter=-3 .*at least 1"),
        (True, InputTypeError, "True"),
        (b"bin4", InputTypeError, "bin4"),
        (None, InputTypeError, "None"),
        (2.5, InputTypeError, r"2\.5"),
        ([], InputError, "at least one tap"),
        ([1, -1], InputError, "sum other than 0"),
        ([0.1, 0.2, -0.3], InputError, "sum other than 0"),
        ([1, float("nan")], InputError, "finite"),
        ([float("inf"), float("-inf")], InputError, "finite"),
        ([1e308, 1e308], InputError, "finite"),
        ([[1, 2], [2, 1]], InputTypeError, "1-D"),
        (np.ones((2, 2)), InputTypeError, "1-D"),
        (["a"], InputTypeError, "'a'"),
        ([1 + 1j], InputTypeError, "1j"),
    ],
    ids=repr,
)
def test_what_is_no_filter_is_named(filter: Any, error: type[InputError], says: str) -> None:
    with pytest.raises(error, match=f"(?s)^filter=.*{says}" if not says.startswith("filter") else says):
        resolve_filter(filter)


def test_parse_filter():
    assert parse_filter("bin5") == "bin5"
    assert parse_filter("5") == 5
    assert parse_filter("1,2,1") == [1.0, 2.0, 1.0]
    with pytest.raises(InputError, match="filter='1,x'"):
        parse_filter("1,x")
