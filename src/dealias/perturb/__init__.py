"""Perturbations of images: shifts, ImageNet-C's corruptions and ImageNet-P's sequences."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dealias.perturb.names import (
    CORRUPTIONS,
    NOISE_PERTURBATIONS,
    PERTURBATIONS,
    VALIDATION_CORRUPTIONS,
    VALIDATION_PERTURBATIONS,
)
from dealias.perturb.pans import Pan, slide
from dealias.perturb.shifts import circular_shift, crop, fourier_shift, resize_and_crop, zero_fill_shift

if TYPE_CHECKING:
    from dealias.perturb.corruptions import corrupt
    from dealias.perturb.released import read_video, released_corruption, released_videos
    from dealias.perturb.sequences import sequence

__all__ = [
    "CORRUPTIONS",
    "NOISE_PERTURBATIONS",
    "PERTURBATIONS",
    "VALIDATION_CORRUPTIONS",
    "VALIDATION_PERTURBATIONS",
    "Pan",
    "circular_shift",
    "corrupt",
    "crop",
    "fourier_shift",
    "read_video",
    "released_corruption",
    "released_videos",
    "resize_and_crop",
    "sequence",
    "slide",
    "zero_fill_shift",
]

# These modules need SciPy, Pillow or PyAV: they are imported when first used.
_MODULES = {
    "corrupt": "corruptions",
    "read_video": "released",
    "released_corruption": "released",
    "released_videos": "released",
    "sequence": "sequences",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"dealias.perturb.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
