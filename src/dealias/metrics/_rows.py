"""The base of the metrics that compare two views: a row of sums for each pair, and ratios of the rows' sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError, shown
from dealias.metrics._torchmetrics import Metric
from dealias.metrics.intervals import clustered_wilson_interval, ratio_interval

Table: TypeAlias = dict[str, list[float]]
"""Columns of numbers by name."""


@dataclass(frozen=True)
class Ratio:
    """A value of a metric, `largest` at most: the sum of a column over that of another.

    `is_share`: the numerator counts some of the denominator.
    """

    numerator: str
    denominator: str
    is_share: bool = False
    largest: float = math.inf

    def value(self, table: Table) -> float:
        """NaN where the denominator is 0."""
        total = math.fsum(table[self.denominator])
        return math.fsum(table[self.numerator]) / total if total else math.nan

    def interval(self, table: Table, level: float) -> tuple[float, float]:
        """The interval from the scatter between the rows of the table."""
        numerators, denominators = table[self.numerator], table[self.denominator]
        if not sum(denominators):
            return math.nan, math.nan
        if self.is_share:
            return clustered_wilson_interval(numerators, denominators, level)
        low, high = ratio_interval(numerators, denominators, level)
        return max(low, 0.0), min(high, self.largest)


class RowMetric(Metric):
    """Rows of numbers, one for each pair, whose sums are divided by one another; its kinds define `compute`.

    The rows are gathered from all processes and summed exactly, so that the result depends neither on their order nor
    on the number of processes.

    Attributes:
        columns: the names of the numbers in a row, none of them negative.
        ratios: the values by name.
        counted: the columns that `counts` tells.
    """

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0

    columns: ClassVar[tuple[str, ...]]
    ratios: ClassVar[dict[str, Ratio]]
    counted: ClassVar[tuple[str, ...]] = ("pairs",)

    rows: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def ratio(self, name: str) -> float:
        """The value of that name; NaN where nothing was there to compare."""
        return self.ratios[name].value(self._table())

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """The confidence interval of each value, from the scatter between images; NaN where the value is NaN.

        Shares have `clustered_wilson_interval`, the others `ratio_interval`.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            table = _by_image(self._table())
        return {name: ratio.interval(table, level) for name, ratio in self.ratios.items()}

    def counts(self) -> dict[str, int]:
        """How many pairs there were, and what was left out."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            table = self._table()
        return {name: round(math.fsum(table[name])) for name in self.counted}

    def as_lists(self) -> dict[str, list[list[float]]]:
        """All that was added, as lists of numbers, for `add_lists`."""
        states: dict[str, list[Tensor]] = {name: getattr(self, name) for name in self._defaults}
        return {name: torch.cat(parts).tolist() if parts else [] for name, parts in states.items()}

    def add_lists(self, lists: Mapping[str, list[list[float]]]) -> None:
        """Add what another metric returned from `as_lists`."""
        states = {name: [torch.tensor(rows, dtype=torch.float64)] if rows else [] for name, rows in lists.items()}
        self.merge_state(states)
        self._update_count += 1  # as update does: otherwise compute warns

    def _add(self, rows: Sequence[Sequence[float]], image: Any) -> None:
        """Add a row for each pair; `image` is the number of the image that each pair shows."""
        images = _as_images(image, len(rows))
        table = [[number, *row] for number, row in zip(images, rows, strict=True)]
        self.rows.append(torch.tensor(table, dtype=torch.float64, device=self.device))

    def _table(self) -> Table:
        """The rows by column; "image" is NaN for pairs without a number."""
        parts = self.rows if isinstance(self.rows, list) else [self.rows]
        if not sum(len(part) for part in parts):
            raise InputError(f"{type(self).__name__} has no pairs yet: call update first")
        values = torch.cat(parts).T.tolist()
        return dict(zip(("image", *self.columns), values, strict=True))

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # for a process without rows torchmetrics puts in a float32 vector, which has another shape
        if not self.rows:
            self.rows = [torch.zeros(0, 1 + len(self.columns), dtype=torch.float64, device=self.device)]
        super()._sync_dist(*args, **kwargs)


class RatioMetric(RowMetric):
    """A metric whose result is the values by name."""

    def compute(self) -> dict[str, Tensor]:
        """The values, float32 scalars; NaN where nothing was there to compare."""
        table = self._table()
        return {name: torch.tensor(ratio.value(table), device=self.device) for name, ratio in self.ratios.items()}


def _by_image(table: Table) -> Table:
    """The sums of the rows of each image; a pair without a number is an image of its own."""
    keys = [pair if math.isnan(image) else f"{image:.0f}" for pair, image in enumerate(table["image"])]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    parts: dict[str, list[list[float]]] = {name: [[] for _ in places] for name in table}
    for name, values in table.items():
        for key, value in zip(keys, values, strict=True):
            parts[name][places[key]].append(value)
    return {name: list(map(math.fsum, of_image)) for name, of_image in parts.items()}


def _as_images(image: Any, count: int) -> list[float]:
    if image is None:
        return [math.nan] * count
    try:
        values = torch.as_tensor(image, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(f"image={shown(image)} must be the number of the image, or one for each pair") from None
    if values.shape not in ((), (count,)):
        raise InputError(f"image has shape {tuple(values.shape)}: use one number, or {count}, one for each pair")
    numbers: list[float] = values.expand(count).tolist()
    return numbers


class ValueMetric(RatioMetric):
    """A metric that also keeps single values, for their percentiles and the largest.

    Attributes:
        values: what stands after "p95" and "largest" in the names, for each kind of value.
    """

    values: ClassVar[tuple[str, ...]]

    singles: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("singles", default=[], dist_reduce_fx="cat")

    def compute(self) -> dict[str, Tensor]:
        """The values, float32 scalars; NaN where nothing was there to compare."""
        means = super().compute()
        parts = self.singles if isinstance(self.singles, list) else [self.singles]
        singles = torch.cat(parts)
        found = {}
        for column, ending in enumerate(self.values):
            known = singles[:, column][~singles[:, column].isnan()]
            # torch.quantile takes no more than 2**24 values
            p95, largest = np.quantile(known.cpu().numpy(), (0.95, 1.0)) if len(known) else (math.nan, math.nan)
            found[f"mean{ending}"] = means[f"mean{ending}"]
            found[f"p95{ending}"] = torch.tensor(float(p95), device=self.device)
            found[f"largest{ending}"] = torch.tensor(float(largest), device=self.device)
        return found

    def _add_values(self, values: Tensor) -> None:
        """Add single values (M, kinds); NaN where a kind has none."""
        self.singles.append(values.to(self.device, torch.float64))

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if not self.singles:
            self.singles = [torch.zeros(0, len(self.values), dtype=torch.float64, device=self.device)]
        super()._sync_dist(*args, **kwargs)
