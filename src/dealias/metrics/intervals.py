"""Confidence intervals of shares, means and ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from dealias.errors import InputError, check_kind


def wilson_interval(successes: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, from independent trials (Wilson 1927, equation 5).

    >>> low, high = wilson_interval(successes=90, total=100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)

    Args:
        successes, total: counts; fractions are allowed, as an effective sample size is one.
        level: probability that the interval covers the true share, between 0 and 1.

    Raises:
        InputError: `total` is not positive, `successes` not in 0..total or `level` not in (0, 1).
    """
    if not total > 0:
        raise InputError(f"total={total!r} must be positive: an interval needs at least one trial")
    if not 0 <= successes <= total:
        raise InputError(f"successes={successes!r} must lie between 0 and total={total!r}")
    z = NormalDist().inv_cdf(upper_tail(level))
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # exact at the ends, where rounding would leave a remainder
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == total else centre + half)


def clustered_wilson_interval(
    successes: Sequence[float], trials: int | Sequence[float], level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a share whose trials come in clusters: `trials` of each image, alike among themselves.

    >>> clustered = clustered_wilson_interval([5] * 80 + [0] * 20, trials=5)
    >>> independent = wilson_interval(400, 500)
    >>> clustered[0] < independent[0] and clustered[1] > independent[1]
    True

    The variance between the images gives the effective sample size (Kish 1965, by linearisation where the images have
    different numbers of trials), corrected by Student's t for a small number of images (Korn and Graubard 1998). It is
    kept between that of images whose trials tell no more than one of them and the number of trials, as if they were
    independent; without any variance to judge by (all trials alike, or a single image) the former is taken.

    Args:
        successes: of each image, 0..trials.
        trials: for each image: one number, or one for each, of which some may be 0.
        level: as in `wilson_interval`.

    Raises:
        InputError: there are no trials, or an argument is out of range.
    """
    each = [trials] * len(successes) if isinstance(trials, int) else list(trials)
    if not successes or len(each) != len(successes) or min(each) < 0 or not sum(each):
        raise InputError(f"an interval needs trials: got {len(successes)} images and trials={trials}")
    if not all(0 <= count <= of for count, of in zip(successes, each, strict=True)):
        raise InputError(f"successes={min(successes)}..{max(successes)} must lie between 0 and trials={trials}")
    total = sum(each)
    share = sum(successes) / total
    fewest = total**2 / sum(of**2 for of in each)
    effective, correction = fewest, 1.0
    upper = upper_tail(level)
    images = sum(of > 0 for of in each)
    if images > 1 and 0 < share < 1:
        scatter = math.fsum((count - share * of) ** 2 for count, of in zip(successes, each, strict=True))
        if scatter > 0:
            effective = share * (1 - share) * total**2 * (images - 1) / (images * scatter)
            effective = min(max(effective, fewest), total)
        else:
            effective = total
        correction = (NormalDist().inv_cdf(upper) / student_t_quantile(upper, images - 1)) ** 2
    return wilson_interval(share * effective * correction, effective * correction, level)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of independent values: `ratio_interval` of one value for each image.

    Raises:
        InputError: there are no values, or `level` is out of range.
    """
    if not values:
        raise InputError("an interval needs values: got none")
    return ratio_interval(values, [1.0] * len(values), level)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], level: float = 0.95
) -> tuple[float, float]:
    """Student's interval of sum(numerators) / sum(denominators), one of each for each image.

    >>> low, high = ratio_interval([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    >>> round(low, 1), round(high, 1)
    (0.4, 4.6)

    The variance between the images is that of the linearised ratio (Cochran, Sampling Techniques, 1977, section 6.4).
    Images whose denominator is 0 tell nothing; from a single one the interval is without ends.

    Raises:
        InputError: the numbers differ, a denominator is negative or all are 0, or `level` is out of range.
    """
    if len(numerators) != len(denominators):
        raise InputError(f"numerators has {len(numerators)} images and denominators {len(denominators)}")
    if not denominators or min(denominators) < 0 or not sum(denominators):
        raise InputError("denominators must not be negative, and one at least positive")
    upper = upper_tail(level)
    pairs = [(part, of) for part, of in zip(numerators, denominators, strict=True) if of]
    if len(pairs) == 1:
        return -math.inf, math.inf
    total = math.fsum(denominators)
    ratio = math.fsum(part for part, _ in pairs) / total
    scatter = math.fsum((part - ratio * of) ** 2 for part, of in pairs) / (len(pairs) - 1)
    half = student_t_quantile(upper, len(pairs) - 1) * math.sqrt(scatter * len(pairs)) / total
    return ratio - half, ratio + half


def student_t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution for `freedom` degrees of freedom, to 1% between .005 and .995.

    >>> round(student_t_quantile(0.975, freedom=9), 3)
    2.262

    Closed forms for 1 and 2, else the expansion about the normal quantile (Abramowitz and Stegun 1964, 26.7.5).
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def upper_tail(level: float) -> float:
    """The probability below the upper end of a two-sided interval; `InputError` if `level` is not in (0, 1)."""
    check_kind("level", level, (int, float), "a number between 0 and 1")
    if not 0 < level < 1:
        raise InputError(f"level={level!r} must lie between 0 and 1, for example 0.95")
    return (1 + level) / 2
