"""Confidence intervals against SciPy, and their coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dealias.errors import InputError
from dealias.metrics import clustered_wilson_interval, mean_interval, ratio_interval, wilson_interval
from dealias.metrics.intervals import student_t_quantile


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_wilson_is_scipys(level: float) -> None:
    for total in (1, 2, 7, 100, 5000):
        for successes in {0, 1, total // 3, total - 1, total}:
            expected = stats.binomtest(successes, total).proportion_ci(level, method="wilson")
            assert wilson_interval(successes, total, level) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_ends_exactly() -> None:
    assert wilson_interval(0, 7)[0] == 0
    assert wilson_interval(7, 7)[1] == 1


def test_student_t_quantile_is_scipys() -> None:
    for freedom in (1, 2, 3, 4, 7, 20, 1000):
        for probability in (0.75, 0.9, 0.975, 0.995):
            expected = stats.t.ppf(probability, freedom)
            assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=0.01)


def test_independent_pairs_give_nearly_wilsons_interval_and_equal_ones_that_of_the_images() -> None:
    generator = np.random.default_rng(0)
    independent = generator.binomial(5, 0.8, size=4000)
    plain = wilson_interval(int(independent.sum()), 20000)
    assert clustered_wilson_interval(independent.tolist(), 5) == pytest.approx(plain, abs=5e-4)
    alike = 5 * generator.binomial(1, 0.8, size=4000)
    of_images = wilson_interval(int(alike.sum()) // 5, 4000)
    assert clustered_wilson_interval(alike.tolist(), 5) == pytest.approx(of_images, abs=5e-4)


def test_without_variance_the_images_count() -> None:
    assert clustered_wilson_interval([5] * 20, 5) == pytest.approx(wilson_interval(20, 20))
    assert clustered_wilson_interval([0] * 20, 5) == pytest.approx(wilson_interval(0, 20))
    assert clustered_wilson_interval([3], 5) == pytest.approx(wilson_interval(0.6, 1))


@pytest.mark.parametrize(("images", "concentration"), [(20, 1.0), (60, 0.5), (60, 20.0), (200, 0.3)])
def test_coverage_of_correlated_pairs(images: int, concentration: float) -> None:
    """Beta-binomial images: the clustered interval covers the true share as often as it says; Wilson's does not."""
    generator, true, trials, repeats = np.random.default_rng(1), 0.8, 5, 600
    chances = generator.beta(true * concentration, (1 - true) * concentration, size=(repeats, images))
    counts = generator.binomial(trials, chances)
    clustered = [clustered_wilson_interval(row.tolist(), trials) for row in counts]
    plain = [wilson_interval(int(row.sum()), images * trials) for row in counts]
    covered = np.mean([low <= true <= high for low, high in clustered])
    assert 0.925 <= covered <= 0.985
    if concentration <= 1:
        assert np.mean([low <= true <= high for low, high in plain]) < 0.85


def test_bad_input() -> None:
    for arguments, message in [
        ((1, 0), "total=0"),
        ((3, 2), "successes=3"),
        ((-1, 2), "successes=-1"),
        ((1, 2, 1.0), r"level=1\.0"),
        ((1, float("nan")), "total=nan"),
    ]:
        with pytest.raises(InputError, match=message):
            wilson_interval(*arguments)
    for arguments, message in [
        (([], 5), "0 images"),
        (([1], 0), "trials=0"),
        (([6], 5), "successes=6"),
        (([1], 5, 0), "level=0"),
    ]:
        with pytest.raises(InputError, match=message):
            clustered_wilson_interval(*arguments)


def test_coverage_where_images_have_different_numbers_of_trials() -> None:
    """Agreement among right pairs: images differ in how many they have; the interval still covers."""
    generator, repeats, images = np.random.default_rng(2), 600, 80
    covered = 0
    for _ in range(repeats):
        trials = generator.integers(0, 6, size=images)
        chances = generator.beta(1.6, 0.4, size=images)
        low, high = clustered_wilson_interval(generator.binomial(trials, chances).tolist(), trials.tolist())
        covered += low <= 0.8 <= high
    assert 0.92 <= covered / repeats <= 0.985


def test_mean_interval_is_scipys() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=30)
    expected = stats.t.interval(0.9, 29, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values.tolist(), 0.9) == pytest.approx(expected, rel=1e-3)
    assert mean_interval([1.0]) == (-np.inf, np.inf)
    with pytest.raises(InputError, match="needs values"):
        mean_interval([])
    few = np.array([0.1, 0.9, 0.4])
    expected = stats.t.interval(0.95, 2, loc=few.mean(), scale=stats.sem(few))
    assert mean_interval(few.tolist()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("counts", [[5, 4, 1, 0, 5, 3], [2, 5, 1], [5, 5, 4, 5, 0, 1, 2, 3]])
def test_few_clusters_have_the_formula_s_interval(counts: list[int]) -> None:
    """The variance of the images' means with n - 1 degrees of freedom, and Student's t in place of the normal."""
    means, level = np.array(counts) / 5, 0.9
    images, true = len(means), means.mean()
    z, t = stats.norm.ppf((1 + level) / 2), stats.t.ppf((1 + level) / 2, images - 1)
    effective = np.clip(true * (1 - true) / (means.var(ddof=1) / images), images, 5 * images) * (z / t) ** 2
    assert images < effective / (z / t) ** 2 < 5 * images
    centre = (true + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z * np.sqrt(true * (1 - true) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    assert clustered_wilson_interval(counts, 5, level) == pytest.approx((centre - half, centre + half), abs=2e-3)


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        # a value of mean 2 for each of a number of objects that differs between images; some images have none
        counts = generator.poisson(2, 40)
        sums = [float(generator.gamma(2, 1, count).sum()) for count in counts]
        low, high = ratio_interval(sums, counts.tolist(), 0.9)
        covered += low <= 2 <= high
    assert 0.86 < covered / 1000 < 0.93
    with pytest.raises(InputError, match="numerators has 1 images"):
        ratio_interval([1.0], [1, 2])
    for denominators in ([], [0, 0], [1, -1]):
        with pytest.raises(InputError, match="denominators"):
            ratio_interval([1.0] * len(denominators), denominators)
    assert ratio_interval([3.0, 0.0], [2, 0]) == (-np.inf, np.inf)
