"""dealias makes convolutional networks stable under small shifts.

>>> import dealias
>>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
>>> pool = dealias.antialias(model, torch.rand(1, 3, 32, 32))[2]
>>> isinstance(pool, nn.MaxPool2d), isinstance(pool, dealias.MaxBlurPool2d), pool(torch.rand(1, 8, 30, 30)).shape
(True, True, torch.Size([1, 8, 15, 15]))
"""

TYPE_CHECKING = False  # as in typing, which takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any

    from dealias.convert import Certificate, Site, antialias, certify, to_circular
    from dealias.convert.api import sites
    from dealias.metrics import measure_stability
    from dealias.nn import BlurPool1d, BlurPool2d, BlurPool3d, MaxBlurPool1d, MaxBlurPool2d, MaxBlurPool3d

__version__ = "0.2.0"

__all__ = [
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
    "Certificate",
    "MaxBlurPool1d",
    "MaxBlurPool2d",
    "MaxBlurPool3d",
    "Site",
    "antialias",
    "certify",
    "measure_stability",
    "sites",
    "to_circular",
]

# Imported when first used: the command line starts without PyTorch, and some modules need extras.
_PLACES = {
    "dealias.convert": ("Certificate", "Site", "antialias", "certify", "sites", "to_circular"),
    "dealias.metrics": ("measure_stability",),
    "dealias.nn": ("BlurPool1d", "BlurPool2d", "BlurPool3d", "MaxBlurPool1d", "MaxBlurPool2d", "MaxBlurPool3d"),
}
_MODULES = (
    "convert",
    "data",
    "errors",
    "filters",
    "functional",
    "metrics",
    "models",
    "nn",
    "ops",
    "perturb",
    "report",
    "training",
)


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"dealias.{name}")
    for module, names in _PLACES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'dealias' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
