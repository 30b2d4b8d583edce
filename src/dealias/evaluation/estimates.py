"""Estimates: fractions and means with 95% intervals, from what each image adds; differences of paired images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dealias.metrics import clustered_wilson_interval, mean_interval, wilson_interval


@dataclass(frozen=True)
class Figure:
    """A figure as it is kept and shown, its 95% interval if it has one, and the number of images measured."""

    value: float
    interval: tuple[float, float] | None
    images: int | None = None


@dataclass(frozen=True)
class Estimate:
    """A figure, and what each image adds to it, by the image's number: nothing where images cannot be paired."""

    value: float
    interval: tuple[float, float] | None
    images: int
    each: Mapping[int, float] = field(default_factory=dict, repr=False)

    @property
    def figure(self) -> Figure:
        """The figure alone."""
        return Figure(self.value, self.interval, self.images)


def fraction(counts: Mapping[int, int], trials: int = 1) -> Estimate:
    """The fraction of trials that were counted, with so many trials of each image."""
    each = list(counts.values())
    interval = wilson_interval(sum(each), len(each)) if trials == 1 else clustered_wilson_interval(each, trials)
    parts = {position: count / trials for position, count in counts.items()}
    return Estimate(sum(each) / (len(each) * trials), interval, len(each), parts)


def mean(values: Mapping[int, float]) -> Estimate:
    """The mean of values that are not negative."""
    numbers = list(values.values())
    low, high = mean_interval(numbers)
    interval = (max(low, 0.0), high) if len(numbers) > 1 else None
    return Estimate(sum(numbers) / len(numbers), interval, len(numbers), values)


def mean_by_image(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """For each image that all parts have, the mean of its values."""
    common = set(parts[0]).intersection(*parts[1:])
    return {position: sum(values[position] for values in parts) / len(parts) for position in sorted(common)}


def difference(estimate: Estimate, baseline: Estimate) -> Figure:
    """The change from the baseline, with the interval of the images that both have, in pairs."""
    common = sorted(set(estimate.each) & set(baseline.each))
    changes = [estimate.each[position] - baseline.each[position] for position in common]
    # equal changes leave nothing to judge their spread by
    interval = mean_interval(changes) if len(set(changes)) > 1 else None
    return Figure(estimate.value - baseline.value, interval, len(common) if common else None)
