"""`plot` of every torchmetrics Metric."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot

from dealias import metrics
from dealias.errors import MissingExtraError
from dealias.metrics._torchmetrics import Metric

FOUND = {"boxes": torch.tensor([[1.0, 1, 5, 5]]), "scores": torch.ones(1), "labels": torch.ones(1)}
UPDATES = {
    "ShiftConsistency": (torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])),
    "FlipRate": (torch.tensor([[0, 1, 1, 1, 1]]),),
    "T5D": (torch.eye(6)[None, [0, 1, 1]],),
    "DetectionConsistency": ([FOUND], [FOUND], (0, 0), (9, 9)),
    "ShiftAveragePrecision": ([[FOUND]], [FOUND], [(0, 0)], (9, 9)),
    "SegmentationConsistency": (torch.tensor([[[0, 1], [1, 1]]]), torch.tensor([[[0, 1], [0, 1]]]), (0, 0)),
    "KeypointConsistency": (torch.zeros(1, 2, 2), torch.ones(1, 2, 2), (0, 0), torch.tensor([[0, 0, 3, 4]])),
    "EmbeddingConsistency": (torch.eye(2), torch.ones(2, 2)),
    "EquivariancePSNR": (torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), (0, 0)),
    "TrackStability": ([FOUND] * 3,),
    "CorruptionError": ("fog", 1, torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])),
}


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    yield
    pyplot.close("all")
    matplotlib.use(before)


def heights(axes: pyplot.Axes) -> list[float]:
    return [float(y) for line in axes.lines for y in line.get_ydata()]


def test_all_metrics_are_plotted_here() -> None:
    names = [name for name in metrics.__all__ if inspect.isclass(getattr(metrics, name))]
    assert {name for name in names if issubclass(getattr(metrics, name), Metric)} <= set(UPDATES)


@pytest.mark.parametrize("name", UPDATES)
def test_plots_show_the_value(name: str) -> None:
    metric = getattr(metrics, name)()
    metric.update(*UPDATES[name])
    value = metric.compute()
    values = [float(each) for each in (value.values() if isinstance(value, dict) else [value])]
    figure, axes = metric.plot()
    assert heights(axes) == pytest.approx(values, nan_ok=True)
    assert axes.figure is figure
    assert axes.get_ylabel() == name
    _, own = pyplot.subplots()
    assert metric.plot(value, own) == (None, own)
    assert heights(own) == pytest.approx(values, nan_ok=True)
    _, course = metric.plot([value, value, value])
    assert heights(course) == pytest.approx([each for each in values for _ in range(3)], nan_ok=True)
    assert course.get_xlabel() == "Step"


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"dealias\[report\]"):
        metrics.ShiftConsistency().plot(torch.tensor(0.5))
