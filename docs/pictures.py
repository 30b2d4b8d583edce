"""Draw the pictures of aliasing.md with the library itself: python docs/pictures.py."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dealias.nn import MaxBlurPool1d

SIGNAL = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]).view(1, 1, 8)
PLAIN = torch.nn.MaxPool1d(2)
BLURRED = MaxBlurPool1d(2, filter="tri3", padding_mode="circular")


def _stems(axis: Axes, values: torch.Tensor, color: str, title: str) -> None:
    heights = values.flatten().numpy()
    places = np.arange(len(heights)) * (8 // len(heights))
    axis.vlines(places, 0, heights, color=color, linewidth=2)
    axis.plot(places, heights, "o", color=color)
    axis.set(ylim=(-0.1, 1.25), xlim=(-0.7, 7.7), xticks=[], yticks=[0, 1])
    axis.set_title(title, fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def max_pooling() -> Figure:
    """The paper's example: a signal and the same one sample later, through both poolings."""
    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots(3, 2, sharey=True)
    for column, shift in enumerate((0, 1)):
        signal = SIGNAL.roll(shift, -1)
        where = "" if not shift else ", one sample later"
        _stems(axes[0, column], signal, "#57534e", f"signal{where}")
        _stems(axes[1, column], PLAIN(signal), "#c2410c", "MaxPool(2, 2)")
        _stems(axes[2, column], BLURRED(signal), "#0f766e", "MaxBlurPool(2, 2), [1 2 1]")
    return figure


def wheel() -> Figure:
    """A wave sampled too seldom looks like a slower one; averaged first, it fades instead."""
    figure = Figure(figsize=(7.2, 2), layout="constrained")
    axis = figure.subplots()
    fine, coarse = np.linspace(0, 12, 600), np.arange(0, 13, 1.0)
    axis.plot(fine, np.cos(2 * np.pi * 0.85 * fine), color="#d6d3d1", linewidth=1, label="wave, 0.85 periods a sample")
    axis.plot(fine, np.cos(2 * np.pi * 0.15 * fine), color="#c2410c", linewidth=1.4, label="its samples: 0.15")
    axis.plot(coarse, np.cos(2 * np.pi * 0.85 * coarse), "o", color="#1c1917")
    axis.set(xticks=[], yticks=[])
    axis.spines[["top", "right", "bottom", "left"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    folder = Path(__file__).parent / "images"
    for name, figure in (("max-pooling", max_pooling()), ("aliased-wave", wheel())):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, facecolor="white")
