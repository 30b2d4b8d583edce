"""Operations on pictures (H, W, C), in NumPy and float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gaussian_blurred(image: NDArray[np.float64], sigma: float, truncate: float = 4.0) -> NDArray[np.float64]:
    """Correlation with a sampled, normalised Gaussian along both axes; the border's pixels are repeated."""
    reach = int(truncate * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        places = np.arange(image.shape[axis])
        image = sum(
            tap * image.take((places + offset).clip(0, places[-1]), axis)
            for tap, offset in zip(taps, range(-reach, reach + 1), strict=True)
        )
    return image
