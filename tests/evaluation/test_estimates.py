"""Estimates against SciPy and the library's own intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dealias.evaluation.estimates import difference, fraction, mean, mean_by_image
from dealias.metrics import clustered_wilson_interval


def test_fractions_have_wilsons_interval_or_that_of_clusters() -> None:
    found = fraction({3: 1, 5: 0, 9: 1, 11: 1})
    expected = stats.binomtest(3, 4).proportion_ci(0.95, method="wilson")
    assert (found.value, found.images) == (0.75, 4)
    assert found.interval == pytest.approx(tuple(expected))
    found = fraction({3: 5, 5: 0, 9: 2}, trials=5)
    assert found.value == pytest.approx(7 / 15)
    assert found.interval == clustered_wilson_interval([5, 0, 2], 5)
    assert found.each == {3: 1.0, 5: 0.0, 9: 0.4}


def test_means_have_students_interval_from_zero_up() -> None:
    values = np.random.default_rng(0).uniform(1, 2, size=12)
    found = mean(dict(enumerate(values.tolist())))
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert found.interval == pytest.approx((low, high), rel=1e-3)
    assert mean({0: 0.0, 1: 1.0}).interval[0] == 0.0
    assert mean({0: 0.3}).interval is None


def test_differences_pair_the_images_that_both_have() -> None:
    first, second = fraction({0: 1, 1: 0, 2: 0, 3: 1}), fraction({1: 1, 2: 0, 3: 1, 4: 1})
    found = difference(second, first)
    assert found.value == pytest.approx(0.75 - 0.5)
    expected = stats.t.interval(0.95, 2, loc=1 / 3, scale=stats.sem([1, 0, 0]))
    assert found.interval == pytest.approx(expected, rel=1e-6)
    assert found.images == 3
    assert difference(first, first).interval is None  # equal changes have no spread


def test_means_by_image_take_the_images_that_all_have() -> None:
    assert mean_by_image([{0: 1.0, 1: 0.0, 2: 4.0}, {1: 0.5, 2: 2.0, 7: 1.0}]) == {1: 0.25, 2: 3.0}
