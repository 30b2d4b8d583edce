"""torchmetrics' Metric, imported behind the shim: torchmetrics imports torchvision where that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dealias.optional import require

if TYPE_CHECKING:
    from torchmetrics import Metric as _Metric
else:
    _Metric = require("torchmetrics").Metric

__all__ = ["Metric"]


class Metric(_Metric):
    """The base of the metrics: torchmetrics', which plots nothing unless told how."""

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the value so far, a given one, or several as a course of time.

        Args:
            val: what `compute` or `forward` returned, or a list of that; by default `compute` is called.
            ax: Matplotlib axes to draw into; by default a new figure's.

        Returns:
            The figure (None where `ax` is given) and the axes, as torchmetrics' own metrics.

        Raises:
            MissingExtraError: Matplotlib is not installed.
        """
        require("matplotlib")
        return self._plot(val, ax)
