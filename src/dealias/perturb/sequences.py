"""The sequences of ImageNet-P: an image changes a little from frame to frame.

>>> import numpy as np
>>> image = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
>>> frames = sequence(image, "translate", generator=np.random.default_rng((0, 7)))
>>> frames.shape, frames[:, 0, 16].tolist()
((11, 32, 32), [21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11])

Source: Hendrycks and Dietterich, as in `dealias.perturb.corruptions`, by whose rule lengths scale. The released
sequences are `sequence(image, name, size=224, generator=...)` of images resized to 256 pixels, but that tilt turns the
picture about its centre, seen from a distance of its diagonal, and that theirs are stored as compressed videos.
Translation moves one pixel a frame at any size; on small images it moves less far and has fewer frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dealias.errors import InputError, as_int
from dealias.optional import require
from dealias.perturb._filters import gaussian_blur, motion_blur, scaled_sigma
from dealias.perturb._images import Floats, Image, check_generator, length_scale, like, to_bytes, to_floats
from dealias.perturb._weather import drip, liquid_field, snow_fall, snow_flakes, splash_water
from dealias.perturb.corruptions import brightness, gaussian_noise, shot_noise, speckle_noise
from dealias.perturb.names import NOISE_PERTURBATIONS, PERTURBATIONS, VALIDATION_PERTURBATIONS, check_perturbation

pillow = require("PIL.Image")

__all__ = ["NOISE_PERTURBATIONS", "PERTURBATIONS", "VALIDATION_PERTURBATIONS", "sequence"]

_FRAMES = 31
_REACH = 20


def sequence(
    image: Image, name: str, *, difficulty: int = 1, generator: np.random.Generator, size: int | None = None
) -> Image:
    """The frames of one of ImageNet-P's perturbations of `image`.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0, 1], at least 8x8.
        name: one of `PERTURBATIONS`, the ten of the benchmark, or of `VALIDATION_PERTURBATIONS`, the four for tuning.
        difficulty: 1, 2 or 3: the strength of the noise of `NOISE_PERTURBATIONS`. The other sequences are the same at
            any difficulty: the metrics compare frames further apart instead.
        generator: source of the random draws, such as `numpy.random.default_rng((seed, index))`.
        size: side of the middle square that the frames show; the whole image by default. Places beyond the image are
            black.

    Returns:
        31 frames, up to 41 of translate: (frames, H, W) or (frames, H, W, C), in the dtype of `image`.

    Raises:
        InputError: the name or the difficulty is unknown, `size` is larger than the image or less than 8, or `image` is
            invalid as for `corrupt`.
        InputTypeError: as for `corrupt`.
    """
    check_perturbation(name, difficulty)
    check_generator(generator)
    floats = to_floats(image)
    if size is not None and not 8 <= as_int("size", size) <= min(floats.shape[1:]):
        raise InputError(
            f"size={size!r} does not suit an image of {floats.shape[1]}x{floats.shape[2]}: use 8 up to its shorter side"
        )
    frames = _SEQUENCES[name](_Scene(floats, size, image.dtype == np.uint8), generator, difficulty - 1)
    return np.stack([like(frame, image) for frame in frames])


class _Scene:
    """An image whose middle the frames show."""

    def __init__(self, image: Floats, size: int | None, levels: bool) -> None:
        _, height, width = image.shape
        self.rows, self.columns = size or height, size or width
        # torchvision's CenterCrop
        self.top, self.left = round((height - self.rows) / 2), round((width - self.columns) / 2)
        self.image = image
        self.scale = length_scale(self.rows, self.columns)
        self._levels = levels

    def window(self, image: Floats) -> Floats:
        return image[:, self.top : self.top + self.rows, self.left : self.left + self.columns]

    def middle(self) -> Floats:
        return np.ascontiguousarray(self.window(self.image))

    def moved(self, back: npt.NDArray[np.float64]) -> Floats:
        """Warp the image: the pixel at p takes the value at `back` (3, 3) times p, with p = (x, y, 1) from the centre.

        Values are bilinear, and black outside the image.
        """
        _, height, width = self.image.shape
        to_centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
        matrix = np.linalg.inv(to_centre) @ back @ to_centre
        coefficients = tuple((matrix / matrix[2, 2]).ravel()[:8])
        # Pillow warps 8-bit pictures of three channels, as published, but floats one channel at a time
        if self._levels:
            levels = to_bytes(self.image)
            pictures = [pillow.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0).copy())]
        else:
            pictures = [pillow.fromarray(plane) for plane in self.image]
        warped = [
            np.asarray(
                picture.transform(
                    (width, height), pillow.Transform.PERSPECTIVE, coefficients, pillow.Resampling.BILINEAR
                )
            )
            for picture in pictures
        ]
        if self._levels:
            return self.window(to_floats(warped[0]))
        return self.window(np.stack(warped))


def _noise(function: Callable[[Floats, np.random.Generator, float], Floats], *parameters: float) -> _Sequence:
    """The image, followed by 30 copies with noise."""

    def frames(scene: _Scene, generator: np.random.Generator, difficulty: int) -> list[Floats]:
        image = scene.middle()
        return [image, *(function(image, generator, parameters[difficulty]) for _ in range(_FRAMES - 1))]

    return frames


def _motion(matrix: Callable[[int], list[list[float]]]) -> _Sequence:
    """31 frames, warped by `matrix` of the steps -15 to 15."""

    def frames(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
        return [scene.moved(np.array(matrix(step))) for step in range(-15, 16)]

    return frames


def _rotate(step: int) -> list[list[float]]:
    cosine, sine = math.cos(math.radians(step)), math.sin(math.radians(step))
    return [[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]


def _scale(step: int) -> list[list[float]]:
    factor = (2.5 * (step + 15) + 40) / 100
    return [[1 / factor, 0, 0], [0, 1 / factor, 0], [0, 0, 1]]


def _shear(step: int) -> list[list[float]]:
    return [[1, math.tan(math.radians(step)), 0], [0, 1, 0], [0, 0, 1]]


def _tilt(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
    """Turn the picture's plane about its horizontal and its vertical axis, seen from a distance of its diagonal."""
    far = math.hypot(*scene.image.shape[1:])
    frames = []
    for step in range(-15, 16):
        cosine, sine = math.cos(math.radians(step)), math.sin(math.radians(step))
        about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        about_y = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
        in_space = (about_x @ about_y)[:, :2]
        project = np.column_stack([in_space * [[far], [far], [1]], [0, 0, far]])
        frames.append(scene.moved(np.linalg.inv(project)))
    return frames


def _translate(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
    reach = min(round(_REACH * scene.scale), _REACH)
    padded = np.pad(scene.image, ((0, 0), (0, 0), (reach, reach)))
    width = scene.image.shape[2]
    return [scene.window(padded[:, :, reach - step : reach - step + width]) for step in range(-reach, reach + 1)]


def _motion_blur(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
    image = scene.middle()
    return [motion_blur(image, 10 * scene.scale, 3 * scene.scale, 4 * (i - 30)) for i in range(_FRAMES)]


def _zoom_blur(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
    total = scene.middle()
    frames = [total]
    for i in range(1, _FRAMES):
        total = total + scene.moved(np.diag([1 / (1 + 0.004 * i), 1 / (1 + 0.004 * i), 1]))
        frames.append(total / np.float32(i + 1))
    return frames


def _snow(scene: _Scene, generator: np.random.Generator, _: int) -> list[Floats]:
    flakes = snow_flakes(scene.rows, scene.columns, 0.05, 0.3, 3, 0.5, generator)
    image = scene.middle()
    return [snow_fall(image, flakes, 14, 4, 4 * i - 150, 0.85) for i in range(_FRAMES)]


def _brightness(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
    return [brightness(scene.middle(), 0.02 * step) for step in range(-15, 16)]


def _gaussian_blur(scene: _Scene, _: np.random.Generator, __: int) -> list[Floats]:
    image = scene.middle()
    return [gaussian_blur(image, scaled_sigma(0.25 + 0.035 * i, scene.scale, 6), 6) for i in range(_FRAMES)]


def _spatter(scene: _Scene, generator: np.random.Generator, _: int) -> list[Floats]:
    image = scene.middle()
    liquid = liquid_field(scene.rows, scene.columns, 0.65, 0.27, 3.7, generator)
    liquid = np.where(liquid < 0.69, np.float32(0), liquid)
    frames = []
    for _frame in range(_FRAMES):
        frames.append(splash_water(image, liquid, 0.6))
        liquid = drip(liquid)
    return frames


_Sequence = Callable[[_Scene, np.random.Generator, int], list[Floats]]
_SEQUENCES: dict[str, _Sequence] = {
    "gaussian_noise": _noise(gaussian_noise, 0.03, 0.05, 0.08),
    "shot_noise": _noise(shot_noise, 300, 120, 60),
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "brightness": _brightness,
    "translate": _translate,
    "rotate": _motion(_rotate),
    "tilt": _tilt,
    "scale": _motion(_scale),
    "speckle_noise": _noise(speckle_noise, 0.05, 0.1, 0.15),
    "gaussian_blur": _gaussian_blur,
    "spatter": _spatter,
    "shear": _motion(_shear),
}
