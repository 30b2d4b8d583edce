"""dealias makes convolutional networks stable under small shifts."""

from dealias.nn import BlurPool1d, BlurPool2d, BlurPool3d, MaxBlurPool1d, MaxBlurPool2d, MaxBlurPool3d

__version__ = "0.1.0"

__all__ = [
    "BlurPool1d",
    "BlurPool2d",
    "BlurPool3d",
    "MaxBlurPool1d",
    "MaxBlurPool2d",
    "MaxBlurPool3d",
]
