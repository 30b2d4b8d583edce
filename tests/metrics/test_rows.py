"""Metrics of rows: sums, units of the intervals, batches and processes, against NumPy."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dealias.errors import InputError, InputTypeError
from dealias.metrics._rows import Ratio, RatioMetric, RowMetric, ValueMetric
from dealias.metrics.intervals import clustered_wilson_interval, ratio_interval

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")

Row = tuple[float, ...]


class Shots(RatioMetric):
    """Hits among shots, and the mean distance of the hits."""

    columns = ("pairs", "shots", "hits", "distance")
    ratios: ClassVar = {
        "share": Ratio("hits", "shots", is_share=True),
        "distance": Ratio("distance", "hits", largest=9.0),
    }
    counted = ("pairs", "shots")

    def update(self, rows: list[Row], image: Any = None) -> None:
        self._add(rows, image)


class Spread(ValueMetric):
    """Values of two kinds."""

    columns = ("count", "sum", "sum_b")
    ratios: ClassVar = {"mean": Ratio("sum", "count"), "mean_b": Ratio("sum_b", "count")}
    counted = ("count",)
    values: ClassVar = ("", "_b")

    def update(self, values: torch.Tensor) -> None:
        self._add([[len(values), *values.nansum(0).tolist()]], None)
        self._add_values(values)


def shots(count: int = 60, seed: int = 0) -> list[Row]:
    generator = np.random.default_rng(seed)
    fired = generator.integers(0, 6, count)
    hits = generator.binomial(fired, 0.7)
    return [(1, *row) for row in np.stack([fired, hits, hits * generator.uniform(1, 3, count)], 1).tolist()]


def of(rows: list[Row], image: Any = None) -> Shots:
    metric = Shots()
    metric.update(rows, image)
    return metric


def plain(metric: RowMetric) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def test_values_are_ratios_of_sums_and_intervals_those_of_the_images() -> None:
    rows, images = shots(), np.random.default_rng(1).integers(5, 25, 60)
    table = np.array(rows)
    metric = of(rows, torch.tensor(images))
    assert plain(metric) == pytest.approx(
        {"share": table[:, 2].sum() / table[:, 1].sum(), "distance": table[:, 3].sum() / table[:, 2].sum()}
    )
    assert metric.counts() == {"pairs": 60, "shots": table[:, 1].sum()}
    fired, hits, distances = (np.bincount(images, column)[np.unique(images)] for column in table.T[1:])
    found = metric.intervals(0.9)
    assert found["share"] == pytest.approx(clustered_wilson_interval(hits.tolist(), fired.tolist(), 0.9))
    assert found["distance"] == pytest.approx(ratio_interval(distances.tolist(), hits.tolist(), 0.9))
    # without a number each pair is an image of its own
    assert of(rows).intervals() == of(rows, torch.arange(60)).intervals()
    assert of(rows * 4, torch.arange(60).repeat(4)).intervals()["share"] == pytest.approx(
        clustered_wilson_interval(*((4 * table[:, column]).tolist() for column in (2, 1)))
    )


def test_intervals_end_at_what_a_value_can_be() -> None:
    low, high = of([(1, 1, 1, 9), (1, 1, 1, 0)]).intervals()["distance"]
    assert (low, high) == (0, 9)
    assert ratio_interval([9, 0], [1, 1])[0] < 0
    assert ratio_interval([9, 0], [1, 1])[1] > 9
    empty = of([(1, 0, 0, 0)])
    assert all(map(math.isnan, plain(empty).values()))
    assert all(math.isnan(end) for ends in empty.intervals().values() for end in ends)


@given(st.permutations(range(9)))
def test_the_order_of_the_pairs_changes_not_a_bit(order: list[int]) -> None:
    rows = [(1, 1, 1, distance) for distance in (1e16, 1.0, 1.0, 3.5, 1e-7, 1e9, 0.1, 0.2, 0.3)]
    found = of([rows[place] for place in order])
    assert plain(found) == plain(of(rows))
    assert Ratio("distance", "shots").value(found._table()) == math.fsum(row[3] for row in rows) / 9


def test_batches_and_processes_add_up() -> None:
    rows = shots(12)
    whole, parts = of(rows), Shots()
    for start in range(0, 12, 4):
        parts.update(rows[start : start + 4])
    assert plain(parts) == plain(whole)
    assert parts.intervals() == whole.intervals()
    assert plain(pickle.loads(pickle.dumps(copy.deepcopy(parts)))) == plain(whole)
    restored = Shots()
    for part in (rows[:5], rows[5:]):
        restored.add_lists(json.loads(json.dumps(of(part).as_lists())))
    assert plain(restored) == plain(whole)
    assert restored.intervals() == whole.intervals()
    # two processes; a third has nothing yet
    mine, other, empty = of(rows[:7]), of(rows[7:]), Shots()
    tables = [torch.cat(mine.rows), torch.cat(other.rows)]

    def gather(tensor: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        assert tensor.dtype == torch.float64
        assert tensor.shape[1] == tables[0].shape[1]
        return tables

    for metric in (mine, empty):
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = gather
    assert plain(mine) == plain(empty) == plain(whole)
    assert mine.intervals() == empty.intervals() == whole.intervals()
    assert mine.counts() == whole.counts()
    assert len(torch.cat(mine.rows)) == 7
    assert empty.rows == []


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(2).exponential(size=(50, 2))
    values[:10, 1] = np.nan
    metric = Spread()
    for part in (values[:20], values[20:]):
        metric.update(torch.tensor(part))
    expected = {"mean": values[:, 0].mean(), "mean_b": np.nansum(values[:, 1]) / 50}
    for column, ending in enumerate(("", "_b")):
        expected |= {f"p95{ending}": np.nanpercentile(values[:, column], 95)}
        expected |= {f"largest{ending}": np.nanmax(values[:, column])}
    assert plain(metric) == pytest.approx(expected)
    assert [*metric.compute()] == ["mean", "p95", "largest", "mean_b", "p95_b", "largest_b"]
    other = Spread()
    other.add_lists(metric.as_lists())
    assert plain(other) == plain(metric)
    metric.reset()
    metric.update(torch.full((1, 2), torch.nan))
    assert math.isnan(plain(metric)["p95"])


def test_bad_input() -> None:
    for image, kind, message in [
        ([1, 2], InputError, r"image has shape \(2,\): use one number, or 3, one for each pair"),
        ("first", InputTypeError, "image='first' must be the number of the image"),
    ]:
        with pytest.raises(kind, match=message):
            of([(1, 1, 1, 1)] * 3, image)
    for call in (Shots().compute, Shots().intervals, Shots().counts):
        with pytest.raises(InputError, match="Shots has no pairs yet: call update first"):
            call()
