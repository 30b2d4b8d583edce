from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import polynomial
from scipy import integrate, signal
from torch import nn

from dealias import antialias
from dealias.errors import InputError, InputTypeError
from dealias.filters import FILTERS, kaiser, parse_filter, resolve_filter, resolve_filters, scaled
from dealias.functional import blur_pool1d
from dealias.nn import MaxBlurPool2d

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


def test_a_filter_for_each_axis() -> None:
    tri3, bin5 = resolve_filter("tri3"), resolve_filter("bin5")
    assert resolve_filters("tri3", 3) == (tri3,) * 3
    assert resolve_filters(("bin5", "tri3"), 2) == (bin5, tri3)
    assert resolve_filters([[1, 2, 1], 5, np.array([1.0])], 3) == (tri3, bin5, (1.0,))
    assert resolve_filters(("tri3",), 1) == (tri3,)
    for taps in ((1, 2, 1), [1, 2, 1], [np.float32(1), 2, torch.tensor(1.0)], torch.tensor([1, 2, 1])):
        assert resolve_filters(taps, 2) == (tri3, tri3)  # plain numbers are taps
    for wrong, spatial in ((("bin5", "tri3"), 3), (("bin5",), 2), (("bin5", 3), 1)):
        with pytest.raises(InputError, match=f"has {len(wrong)} filters: give one, or {spatial}"):
            resolve_filters(wrong, spatial)
    with pytest.raises(InputError, match="filter='gauss' is unknown"):
        resolve_filters(("bin5", "gauss"), 2)


@pytest.mark.parametrize("name", FILTERS)
def test_scaled_filters_are_boxes_convolved_with_themselves(name: str) -> None:
    for stride in range(1, 17):
        expected = np.ones(1)
        for _ in range(len(ZHANG[name]) - 1):
            expected = np.convolve(expected, np.ones(stride) / stride)
        np.testing.assert_allclose(scaled(name, stride), expected, rtol=1e-12, atol=0)
    assert scaled(name, 2) == resolve_filter(name)
    assert scaled(name, 1) == (1.0,)


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "none"])
def test_scaled_filters_pass_no_more_above_the_new_nyquist_frequency(name: str) -> None:
    def folded(stride: int) -> float:
        """Power that folds onto lower frequencies, for white input of power 1."""
        frequencies, response = signal.freqz(scaled(name, stride), worN=np.linspace(0, np.pi, 20001))
        power = np.where(frequencies >= np.pi / stride, np.abs(response) ** 2, 0)
        return float(integrate.trapezoid(power, frequencies) / np.pi)

    assert folded(2) > 0
    for stride in range(1, 17):
        assert folded(stride) <= folded(2) * 1.001


def test_only_names_are_scaled() -> None:
    assert scaled("none", 8) == (1.0,)
    assert scaled(4, 8) == resolve_filter("bin4")
    assert scaled([1, 2, 1], 8) == resolve_filter("tri3")
    for stride, says in ((0, "at least 1"), (2.0, "an int"), (True, "an int"), (10**30, "stride="), (1000, "taps")):
        with pytest.raises(InputError, match=says):
            scaled("bin4", stride)


@pytest.mark.parametrize("filter", [1025, 10**30, 10**5000, [1] * 1025, np.ones(1025), torch.ones(1025)], ids=type)
def test_more_than_1024_taps(filter: Any) -> None:
    with pytest.raises(InputError, match="use at most 1024") as caught:
        resolve_filter(filter)
    assert len(str(caught.value)) < 250
    assert len(resolve_filter(1024)) == len(resolve_filter([1] * 1024)) == 1024


@pytest.mark.parametrize(
    "filter",
    [
        *(b"121", bytearray(b"121"), {1.0, 2.0}, frozenset({1}), {1: 2}, [10**400], ["1", "2"], [True, True]),
        *(np.array([True]), torch.tensor([True]), np.float64(2), torch.tensor(2.0), 2.5, None, object()),
        *(torch.ones(3, device="meta"), torch.ones(3).to_sparse(), [None]),
    ],
    ids=lambda filter: type(filter).__name__,  # the repr of an object has its address, other in each process
)
def test_what_only_resembles_a_filter_is_named(filter: Any) -> None:
    with pytest.raises(InputTypeError, match=r"^filter="):
        resolve_filter(filter)


@given(taps=st.integers(2, 80), cutoff=st.floats(0.05, 0.95), width=st.floats(0.02, 0.9))
def test_kaiser_taps_are_those_of_scipy(taps: int, cutoff: float, width: float) -> None:
    expected = signal.firwin(taps, cutoff, width=width)
    np.testing.assert_allclose(kaiser(taps, cutoff, width), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


WAVELETS = pywt.wavelist(kind="discrete")


@pytest.mark.parametrize("name", WAVELETS)
def test_wavelet_taps_are_those_of_pywavelets(name: str) -> None:
    taps = np.array(pywt.Wavelet(name).dec_lo)[::-1]
    np.testing.assert_allclose(resolve_filter(name), taps / taps.sum(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["haar", "db2", "db5", "sym4", "coif2", "bior2.2", "bior3.5", "rbio4.4"])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_wavelet_leaves_the_approximation_of_its_decomposition(name: str, levels: int) -> None:
    x = np.random.default_rng(0).normal(size=256)
    expected = pywt.wavedec(x, name, mode="periodization", level=levels)[0] / 2 ** (levels / 2)
    taps, stride = scaled(name, 2**levels), 2**levels
    # The levels together begin half of their taps, rounded up, in front of a sample; a blur begins half of all taps.
    moved = torch.from_numpy(np.roll(x, 1 - stride // 2))[None, None]
    np.testing.assert_allclose(blur_pool1d(moved, taps, stride, "circular")[0, 0], expected, rtol=0, atol=1e-12)


def test_wavelets_have_no_filter_for_other_strides() -> None:
    with pytest.raises(InputError, match=r"filter='db2' subsamples by 2, 4, 8 .*stride=6"):
        scaled("db2", 6)
    assert scaled("db2", 1) == (1.0,)


def test_wavelets_stand_for_their_taps_in_layers_and_networks() -> None:
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(MaxBlurPool2d(2, filter="db2")(x), MaxBlurPool2d(2, filter=resolve_filter("db2"))(x))
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(4, 4)).eval()
    named, given = (antialias(network, x, filter=f, stem=True)(x) for f in ("haar", {"0": "rect2", "2": [1, 1, 1, 1]}))
    torch.testing.assert_close(named, given)
