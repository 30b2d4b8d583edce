"""What is done to images before a network sees them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dealias.perturb.shifts import circular_shift, crop, fourier_shift, resize_and_crop, zero_fill_shift

if TYPE_CHECKING:
    from dealias.perturb.corruptions import CORRUPTIONS, VALIDATION_CORRUPTIONS, corrupt
    from dealias.perturb.released import read_video, released_corruption, released_videos
    from dealias.perturb.sequences import NOISE_PERTURBATIONS, PERTURBATIONS, VALIDATION_PERTURBATIONS, sequence

__all__ = [
    "CORRUPTIONS",
    "NOISE_PERTURBATIONS",
    "PERTURBATIONS",
    "VALIDATION_CORRUPTIONS",
    "VALIDATION_PERTURBATIONS",
    "circular_shift",
    "corrupt",
    "crop",
    "fourier_shift",
    "read_video",
    "released_corruption",
    "released_videos",
    "resize_and_crop",
    "sequence",
    "zero_fill_shift",
]

# These need SciPy and Pillow, shifts only PyTorch.
_CORRUPTIONS = ("CORRUPTIONS", "VALIDATION_CORRUPTIONS", "corrupt")
_RELEASED = ("read_video", "released_corruption", "released_videos")
_SEQUENCES = ("NOISE_PERTURBATIONS", "PERTURBATIONS", "VALIDATION_PERTURBATIONS", "sequence")


def __getattr__(name: str) -> Any:
    for module, names in (("corruptions", _CORRUPTIONS), ("released", _RELEASED), ("sequences", _SEQUENCES)):
        if name in names:
            return getattr(import_module(f"dealias.perturb.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
