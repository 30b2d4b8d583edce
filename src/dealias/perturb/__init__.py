"""What is done to images before a network sees them."""

from dealias.perturb.shifts import circular_shift, crop, resize_and_crop, zero_fill_shift

__all__ = ["circular_shift", "crop", "resize_and_crop", "zero_fill_shift"]
