"""dealias makes convolutional networks stable under small shifts.

>>> import dealias
>>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
>>> dealias.antialias(model, torch.rand(1, 3, 32, 32))[2]
MaxBlurPool2d(kernel_size=2, padding=0, dilation=1, ceil_mode=False, filter='bin4', stride=2, padding_mode='reflect')
"""

from importlib import import_module
from types import ModuleType

from dealias.convert import Site, antialias, sites
from dealias.nn import BlurPool1d, BlurPool2d, BlurPool3d, MaxBlurPool1d, MaxBlurPool2d, MaxBlurPool3d

__version__ = "0.1.0"

__all__ = [
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
    "MaxBlurPool1d",
    "MaxBlurPool2d",
    "MaxBlurPool3d",
    "Site",
    "antialias",
    "sites",
]

_LAZY = ("data", "metrics", "models", "perturb", "report", "training")


def __getattr__(name: str) -> ModuleType:
    """`dealias.models` and its like are imported when first used: they need extras."""
    if name in _LAZY:
        return import_module(f"dealias.{name}")
    raise AttributeError(f"module 'dealias' has no attribute {name!r}")
