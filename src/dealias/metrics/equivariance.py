"""Internal feature distance: measure where a network loses shift-equivariance (Zhang 2019, section 4.1).

>>> from dealias.models import vgg_small
>>> model = vgg_small(padding_mode="circular")
>>> heat_map = internal_feature_distance(model, torch.rand(2, 1, 32, 32), "features.3", shifts=(range(4), range(4)))
>>> heat_map.shape, bool(heat_map[1, 1] > heat_map[2, 2])
(torch.Size([4, 4]), True)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dealias.errors import InputError, InputTypeError, as_int, shown
from dealias.functional import per_axis
from dealias.metrics._evaluation import evaluating, placed_like
from dealias.nn import MaxBlurPool2d
from dealias.perturb.shifts import circular_shift

Stage: TypeAlias = Literal["input", "max", "output"]
Layer: TypeAlias = str | tuple[str, Stage]
Shifts: TypeAlias = tuple[Sequence[int] | Tensor, Sequence[int] | Tensor]


def internal_feature_distance(
    model: nn.Module,
    images: Tensor,
    layer: str,
    *,
    shifts: Shifts | None = None,
    stage: Stage = "output",
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The distance between a layer's features of circularly shifted images and its shifted features, for every shift.

    Let F be the layer's features, upsampled to the images' resolution by nearest neighbour. The distance is the mean
    over images and pixels of 1 - cosine similarity over channels between F(Shift(X)) and Shift(F(X)). It is 0 for
    perfect shift-equivariance. Two zero vectors have distance 0; a zero vector and another have distance 1.

    The features of the stage "input" are those that enter the layer, those of "output" leave it. A max-pooling layer
    has the stage "max" between them: the maximum at every pixel, before a blur and the subsampling. For a pool without
    padding this maximum wraps around, so that its map keeps the size.

    Args:
        model: it runs in eval mode, without gradients, on its own device; afterwards its modes are restored.
        images: float (N, C, H, W), normalised as the model expects.
        layer: path of a module with feature maps (N, C, h, w), as in `model.named_modules()`. If it runs several times
            in a forward pass, the last run counts.
        shifts: rows dy and columns dx, in pixels; by default all, `range(H)` and `range(W)`.
        stage: "output", "input", or "max" of an `nn.MaxPool2d` or `dealias.nn.MaxBlurPool2d`.
        batch_size: largest number of images in a forward pass.
        progress: called with the number of (image, shift) pairs done, after each forward pass.

    Returns:
        float64 on the CPU, (len(dy), len(dx)).

    Raises:
        InputError: the layer is unknown, or has no feature maps or no such stage, or an argument is out of range.
        InputTypeError: `images` is not a float tensor, or a shift is not an integer.
    """
    probed = (layer, stage)
    return internal_feature_distances(model, images, [probed], shifts=shifts, batch_size=batch_size, progress=progress)[
        probed
    ]


def internal_feature_distances(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer],
    *,
    shifts: Shifts | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> dict[Layer, Tensor]:
    """`internal_feature_distance` of several layers in one pass.

    Args:
        layers: paths of modules, or pairs of path and stage; a path alone means its output.
        model, images, shifts, batch_size, progress: as in `internal_feature_distance`.

    Returns:
        The distances, float64 (len(dy), len(dx)), by layer as given.

    Raises:
        InputError, InputTypeError: as in `internal_feature_distance`, or `layers` is empty.
    """
    images = placed_like(images, model)
    batch_size = as_int("batch_size", batch_size)
    if not layers:
        raise InputError(f"layers={layers!r} is empty: name at least one")
    rows, columns = check_shifts(shifts, images)
    probes = [_Probe.of(model, layer) for layer in layers]
    sums = torch.zeros(len(probes), len(rows), len(columns), dtype=torch.float64)
    done = 0
    with evaluating(model), ExitStack() as hooks:
        for probe in probes:
            hooks.enter_context(probe.listen())
        for part in torch.split(images, batch_size):
            for probe in probes:
                probe.start()
            model(part)
            for row, dy in enumerate(rows):
                for probe in probes:
                    probe.move_rows(dy, images.shape[2])
                for numbers in torch.split(torch.arange(len(columns)), max(1, batch_size // len(part))):
                    chosen = columns[numbers[0] : numbers[-1] + 1]
                    for probe in probes:
                        probe.expect(chosen, images.shape[3])
                    shifted = circular_shift(part.repeat(len(chosen), 1, 1, 1), dy, [dx for dx in chosen for _ in part])
                    model(shifted)
                    sums[:, row, numbers] += torch.stack([probe.cosine_sums() for probe in probes])
                    done += len(shifted)
                    if progress is not None:
                        progress(done)
    means = sums / (len(images) * images.shape[2] * images.shape[3])
    # a rounded cosine may be a little above 1
    return dict(zip(layers, (1 - means).clamp_min(0), strict=True))


@dataclass
class _Probe:
    """Compares the features of one stage of a module for shifted images with those for the images themselves.

    In maps upsampled by nearest neighbour, many pixels compare the same two samples: (b, d) of the shifted images'
    features with (a, c) of the images' own. `_pair_counts` counts the pairs (b, a) and (d, c) along each axis. The sum
    of the cosines over all pixels is the sum over b, d of shifted[b, d] . (sum over a, c of rows[b, a] columns[d, c]
    own[a, c]): exact, without upsampling. Later layers may change the features in place: they are used at once.
    """

    path: str
    stage: str
    module: nn.Module
    own: Tensor | None = None
    moved: Tensor | None = None
    expected: Tensor | None = None
    sums: Tensor | None = None

    @classmethod
    def of(cls, model: nn.Module, layer: Layer) -> _Probe:
        path, stage = (layer, "output") if isinstance(layer, str) else layer
        module = dict(model.named_modules()).get(path)
        if module is None:
            raise InputError(f"layer={path!r} is not a module of {type(model).__name__}: see model.named_modules()")
        if stage not in get_args(Stage):
            raise InputError(f"stage={stage!r} is unknown: use input, max or output")
        if stage == "max" and not isinstance(module, nn.MaxPool2d | MaxBlurPool2d):
            raise InputError(
                f"layer={path!r} is a {type(module).__name__}: "
                "only nn.MaxPool2d and dealias.nn.MaxBlurPool2d have stage='max'"
            )
        return cls(path, stage, module)

    def start(self) -> None:
        self.own = self.moved = self.expected = self.sums = None

    def move_rows(self, dy: int, height: int) -> None:
        if self.own is None:
            raise InputError(f"layer={self.path!r} does not run in a forward pass of the model")
        self.moved = torch.matmul(_pair_counts(self.own.shape[2], height, dy).to(self.own), self.own)

    def expect(self, columns: Sequence[int], width: int) -> None:
        """Compute the expected features for the shifts by these columns: (shifts, N, C + 1, h, w)."""
        assert self.moved is not None  # move_rows comes first
        size = self.moved.shape[3]
        counts = torch.stack([_pair_counts(size, width, dx).T for dx in columns]).to(self.moved)
        self.expected = torch.matmul(self.moved.reshape(-1, size), counts).view(len(columns), *self.moved.shape)
        self.sums = None

    def cosine_sums(self) -> Tensor:
        """The sum of the cosines over images and pixels for each shift, float64 on the CPU."""
        if self.sums is None:
            raise InputError(f"layer={self.path!r} does not run in every forward pass of the model")
        return self.sums.cpu()

    def listen(self) -> RemovableHandle:
        """Catch the features in every forward pass, until the handle is removed."""
        if self.stage == "output":
            return self.module.register_forward_hook(lambda module, inputs, output: self._catch(output))
        return self.module.register_forward_pre_hook(lambda module, inputs: self._catch(inputs[0] if inputs else None))

    def _catch(self, value: object) -> None:
        if not isinstance(value, Tensor) or value.ndim != 4:
            kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"layer={self.path!r} gives {kind}: the distance takes feature maps (N, C, h, w)")
        features = value if value.dtype == torch.float64 else value.float()
        if self.stage == "max":
            features = _dense_max(self.module, features)
        if self.expected is None:
            self.own = _unit_vectors(features)
            return
        lengths, zero = _lengths(features)
        expected = self.expected.flatten(0, 1)
        cosines = (features * expected[:, :-1]).sum(1) / lengths + zero * expected[:, -1]
        self.sums = cosines.view(self.expected.shape[0], -1).sum(1, dtype=torch.float64)


def _dense_max(pool: nn.Module, features: Tensor) -> Tensor:
    """The maximum of a max-pooling layer at every pixel, axis by axis: `max_pool2d` would compute indices too."""
    kernel, padding, dilation = (
        per_axis(name, getattr(pool, name), 2, minimum)
        for name, minimum in (("kernel_size", 1), ("padding", 0), ("dilation", 1))
    )
    (down, right), (above, left) = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)], padding
    if any(padding):
        features = F.pad(features, (left, left, above, above), value=-torch.inf)
    else:
        features = F.pad(features, (0, right, 0, down), mode="circular")
    for axis, taps, step, reach in ((2, kernel[0], dilation[0], down), (3, kernel[1], dilation[1], right)):
        size = features.shape[axis] - reach
        features = reduce(torch.maximum, (features.narrow(axis, tap * step, size) for tap in range(taps)))
    return features


def _lengths(features: Tensor) -> tuple[Tensor, Tensor]:
    """The lengths (N, h, w) of the vectors over the channels, 1 for zero vectors, and a mask of the zero vectors."""
    squared = (features * features).sum(1)
    small = squared < torch.finfo(squared.dtype).tiny
    # few maps have small squares: the others are not searched for features that vanish
    vanishing = bool(small.any()) and bool((small & (features != 0).any(1)).any())
    if squared.isfinite().all() and not vanishing:
        lengths = squared.sqrt()
    else:  # the squares overflow or vanish
        largest = features.abs().amax(1)
        scaled = features / largest.masked_fill(largest == 0, 1).unsqueeze(1)
        lengths = largest * (scaled * scaled).sum(1).sqrt()
    zero = lengths == 0
    return lengths.masked_fill(zero, 1), zero


def _unit_vectors(features: Tensor) -> Tensor:
    """Unit vectors over the channels, and one channel more, which is 1 for zero vectors: two of these have cosine 1."""
    lengths, zero = _lengths(features)
    return torch.cat([features / lengths.unsqueeze(1), zero.unsqueeze(1).to(features)], 1)


def _pair_counts(size: int, length: int, shift: int) -> Tensor:
    """The number of pixels that compare sample b of the shifted map with sample a of the reference, (b, a)."""
    pixels = torch.arange(length)
    sample = pixels * size // length
    counts = torch.zeros(size * size, dtype=torch.int64)
    pairs = sample * size + sample[(pixels - shift) % length]
    return counts.index_add_(0, pairs, torch.ones_like(pairs)).view(size, size)


def check_shifts(shifts: Shifts | None, images: Tensor) -> tuple[list[int], list[int]]:
    """The rows dy and the columns dx as lists; by default all of images (N, C, H, W).

    Raises:
        InputError: `shifts` are not two sequences, or one is empty.
        InputTypeError: a shift is not an integer.
    """
    if shifts is None:
        return list(range(images.shape[2])), list(range(images.shape[3]))
    if not isinstance(shifts, Sequence) or len(shifts) != 2:
        raise InputError(f"shifts={shown(shifts)}: give the rows dy and the columns dx, for example two ranges")
    rows, columns = (torch.as_tensor(axis).cpu() for axis in shifts)
    for axis in (rows, columns):
        if axis.ndim != 1 or not len(axis):
            raise InputError(f"shifts of shape {tuple(axis.shape)}: give two 1-D sequences of ints, none of them empty")
        if axis.is_floating_point() or axis.is_complex():
            raise InputTypeError(f"shifts have dtype {axis.dtype}: they must be whole pixels")
    return rows.tolist(), columns.tolist()
