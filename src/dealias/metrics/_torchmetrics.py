"""torchmetrics' Metric, imported behind the shim: torchmetrics imports torchvision where that is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dealias.models._torchvision import import_beside_torchvision

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    Metric = import_beside_torchvision("torchmetrics", "metrics").Metric

__all__ = ["Metric"]
