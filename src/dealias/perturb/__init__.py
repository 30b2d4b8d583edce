"""What is done to images before a network sees them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dealias.perturb.shifts import circular_shift, crop, resize_and_crop, zero_fill_shift

if TYPE_CHECKING:
    from dealias.perturb.corruptions import CORRUPTIONS, VALIDATION_CORRUPTIONS, corrupt

__all__ = [
    "CORRUPTIONS",
    "VALIDATION_CORRUPTIONS",
    "circular_shift",
    "corrupt",
    "crop",
    "resize_and_crop",
    "zero_fill_shift",
]


def __getattr__(name: str) -> Any:
    # Corruptions need SciPy and Pillow, shifts only PyTorch.
    if name in ("CORRUPTIONS", "VALIDATION_CORRUPTIONS", "corrupt"):
        return getattr(import_module("dealias.perturb.corruptions"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
