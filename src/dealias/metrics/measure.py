"""Run a network on shifted images and measure how consistent its predictions are.

>>> from dealias.models import vgg_small
>>> result = measure_consistency(vgg_small(), torch.rand(4, 1, 32, 32), mode="circular", pairs=3)
>>> result.total
12
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError
from dealias.metrics._evaluation import evaluating, placed_like
from dealias.metrics.consistency import top1
from dealias.metrics.intervals import clustered_wilson_interval
from dealias.perturb.shifts import circular_shift, crop, resize_and_crop, zero_fill_shift

Mode: TypeAlias = Literal["crop", "circular", "zero_fill", "diagonal"]
Batches: TypeAlias = Tensor | Iterable[Tensor | Sequence[Tensor]]
_DEFAULT_MAX_SHIFT = {"circular": 32, "zero_fill": 3}


@dataclass(frozen=True, eq=False)
class ConsistencyResult:
    """What `measure_consistency` found.

    Attributes:
        mode: as given.
        consistency: share of the pairs with the same top-1.
        interval: confidence interval of `consistency` at `level`; the images are its independent units, not the pairs.
        level: as given.
        agreements, total: numbers of pairs.
        images: number of images.
        probabilities: diagonal mode: P(correct) of every image at every shift, float32 (images, shifts).
        variation: diagonal mode: mean over the images and neighbouring shifts of |P(correct) - P(correct one pixel
            on)|.
    """

    mode: str
    consistency: float
    interval: tuple[float, float]
    level: float
    agreements: int
    total: int
    images: int
    probabilities: Tensor | None = None
    variation: float | None = None


def measure_consistency(
    model: nn.Module,
    images: Batches,
    *,
    mode: Mode = "crop",
    targets: Tensor | None = None,
    pairs: int = 5,
    seed: int = 0,
    batch_size: int = 64,
    crop_size: int = 224,
    image_size: int | None = None,
    max_shift: int | None = None,
    fill: float = 0.0,
    level: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> ConsistencyResult:
    """How often a network gives two shifts of the same image the same top-1 class.

    >>> from dealias.models import vgg_small
    >>> measure_consistency(vgg_small(), torch.rand(2, 1, 32, 32), mode="zero_fill", max_shift=3).images
    2

    Modes:
        "crop": two windows of `crop_size` pixels, both offsets drawn from 0..image_size - crop_size - 1: 0..31 for 224
            out of 256 (Zhang 2019, section 4.2).
        "circular": two rolls, both axes drawn from [-max_shift, max_shift); 32 by default.
        "zero_fill": two shifts, both axes drawn from [-max_shift, max_shift]; 3 by default; `fill` enters.
        "diagonal": the windows at the offsets (0, 0), (1, 1), ... (image_size - crop_size, ...): 33 for 224 out of 256.
            The pairs are the neighbours along the diagonal; P(correct) and its variation are returned too.

    The shifts of an image depend on `seed` and its place among the images alone, so the result does not depend on how
    they are batched. The interval is `clustered_wilson_interval`: the pairs of an image are alike.

    Args:
        model: run in eval mode, without gradients, on the device where it is; its modes are restored.
        images: float (N, C, H, W), normalised as the model expects; or an iterable of such batches or of (images,
            targets).
        mode: see above.
        targets: the classes (N,) of `images` where that is a tensor; only the diagonal mode needs them.
        pairs: drawn for each image.
        seed: of the shifts.
        batch_size: number of shifted images in a forward pass, at most.
        crop_size, image_size: of the modes crop and diagonal. Images whose short side is larger than `image_size` (8/7
            of `crop_size` by default) are resized to it and cropped in the middle.
        max_shift: of the modes circular and zero_fill, in pixels.
        fill: of the mode zero_fill, in the units of the normalised images.
        level: of the interval.
        progress: called with the number of images done, after each forward pass.

    Raises:
        InputError: an argument is out of range, images are too small, there are none, or the model's logits have NaN.
        InputTypeError: an argument is of the wrong type.
    """
    views = _Views(mode, pairs, seed, crop_size, image_size, max_shift, fill)
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} is too small: it must be at least 1")
    chunk = max(1, batch_size // views.count)
    agreements: list[int] = []
    probabilities: list[Tensor] = []
    with evaluating(model):
        for batch, classes in _chunks(images, targets, chunk):
            if mode == "diagonal" and classes is None:
                raise InputError(
                    "mode='diagonal' needs the correct classes: give targets, or batches of (images, targets)"
                )
            shifted = views.of(placed_like(batch, model), first=len(agreements))
            logits = torch.cat([_logits(model, part) for part in torch.split(shifted, batch_size)])
            predictions = top1("the model's output", logits).view(len(batch), views.count)
            if mode == "diagonal":
                same = predictions[:, 1:] == predictions[:, :-1]
                assert classes is not None  # checked above
                probabilities.append(_probabilities(logits.view(len(batch), views.count, -1), classes))
            else:
                same = predictions[:, 0::2] == predictions[:, 1::2]
            agreements += same.sum(1).tolist()
            if progress is not None:
                progress(len(agreements))
    if not agreements:
        raise InputError("images is empty: give at least one image")
    trials = views.count - 1 if mode == "diagonal" else pairs
    curve = torch.cat(probabilities) if probabilities else None
    return ConsistencyResult(
        mode=mode,
        consistency=sum(agreements) / (len(agreements) * trials),
        interval=clustered_wilson_interval(agreements, trials, level),
        level=level,
        agreements=sum(agreements),
        total=len(agreements) * trials,
        images=len(agreements),
        probabilities=curve,
        variation=None if curve is None else float(curve.diff(dim=1).abs().mean()),
    )


class _Views:
    """The shifted copies of an image that a mode compares."""

    def __init__(
        self,
        mode: str,
        pairs: int,
        seed: int,
        crop_size: int,
        image_size: int | None,
        max_shift: int | None,
        fill: float,
    ) -> None:
        if mode not in ("crop", "circular", "zero_fill", "diagonal"):
            raise InputError(f"mode={mode!r} is unknown: use crop, circular, zero_fill or diagonal")
        for name, value in (("pairs", pairs), ("crop_size", crop_size), ("max_shift", max_shift)):
            if value is not None and value < 1:
                raise InputError(f"{name}={value!r} is too small: it must be at least 1")
        self.mode, self.seed, self.fill, self.crop_size = mode, seed, fill, crop_size
        self.max_shift = max_shift or _DEFAULT_MAX_SHIFT.get(mode, 0)
        self.image_size = image_size or round(crop_size * 8 / 7)
        self.room = self.image_size - crop_size
        if mode in ("crop", "diagonal") and self.room < 1:
            raise InputError(f"image_size={self.image_size} must be larger than crop_size={crop_size}")
        self.count = self.room + 1 if mode == "diagonal" else 2 * pairs

    def of(self, images: Tensor, first: int) -> Tensor:
        """(N * count, C, h, w) of images (N, C, H, W), the first of them number `first`; an image's views in a row."""
        if self.mode in ("crop", "diagonal"):
            height, width = images.shape[2:]
            if min(height, width) < self.image_size:
                raise InputError(
                    f"images of {height}x{width} are smaller than image_size={self.image_size}: "
                    f"resize them, or pass a smaller crop_size and image_size"
                )
            images = resize_and_crop(images, self.image_size)
        shifts = [self._shifts(first + offset) for offset in range(len(images))]
        dy, dx = torch.tensor(shifts, device=images.device).flatten(0, 1).unbind(1)
        copies = images.repeat_interleave(self.count, 0)
        if self.mode == "circular":
            return circular_shift(copies, dy, dx)
        if self.mode == "zero_fill":
            return zero_fill_shift(copies, dy, dx, self.fill)
        return crop(copies, dy, dx, self.crop_size)

    def _shifts(self, index: int) -> list[tuple[int, int]]:
        if self.mode == "diagonal":
            return [(offset, offset) for offset in range(self.count)]
        low, high = {
            "crop": (0, self.room),
            "circular": (-self.max_shift, self.max_shift),
            "zero_fill": (-self.max_shift, self.max_shift + 1),
        }[self.mode]
        draw = Random(f"{self.seed}/{index}")
        return [(draw.randrange(low, high), draw.randrange(low, high)) for _ in range(self.count)]


def _chunks(images: Batches, targets: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    if isinstance(images, Tensor):
        if targets is not None and len(targets) != len(images):
            raise InputError(f"targets has {len(targets)} classes for {len(images)} images")
        batches: Iterable[Tensor | Sequence[Tensor]] = [images] if targets is None else [(images, targets)]
    elif targets is not None:
        raise InputError("targets go with images as one tensor: give batches of (images, targets) instead")
    else:
        batches = images
    for batch in batches:
        pixels, classes = (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1])
        if not isinstance(pixels, Tensor):
            raise InputTypeError(f"images must be tensors (N, C, H, W), got {type(pixels).__name__}")
        for start in range(0, len(pixels), size):
            part = slice(start, start + size)
            yield pixels[part], None if classes is None else torch.as_tensor(classes)[part]


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    output = model(images)
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the model's output is {found}: shift consistency takes classifiers with logits (N, classes)")
    return output


def _probabilities(logits: Tensor, classes: Tensor) -> Tensor:
    """P(correct) (N, views) of logits (N, views, classes)."""
    known = logits.shape[-1]
    if int(classes.min()) < 0 or int(classes.max()) >= known:
        raise InputError(
            f"targets from {int(classes.min())} to {int(classes.max())}: the model knows classes 0 to {known - 1}"
        )
    index = classes.to(logits.device).view(-1, 1, 1).expand(-1, logits.shape[1], 1)
    return logits.float().softmax(-1).gather(-1, index).squeeze(-1).cpu()
