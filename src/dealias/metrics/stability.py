"""Run any network on shifted images and measure how stable what it returns is.

>>> from dealias.models import vgg_small
>>> found = measure_stability(vgg_small(), torch.rand(4, 1, 32, 32))
>>> found.task, found.images, found.counts["pairs"]
('classes', 4, 20)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError, as_int, check_callable, check_kind
from dealias.metrics._evaluation import evaluating, placed_like
from dealias.metrics.comparisons import Comparison, comparison_of, merged
from dealias.metrics.intervals import upper_tail
from dealias.metrics.outputs import AnyTask, Predictions, Task, check_task, recognise
from dealias.metrics.views import Mode, ShiftedViews, make_views
from dealias.runtime import process_group


@dataclass(frozen=True)
class Stability:
    """The findings of `measure_stability`, with confidence intervals at `level`; images are their units.

    Attributes:
        task: what the network returns: one of `dealias.metrics.outputs.TASKS`.
        mode, reach: of the shifts.
        images: number of images.
        values: the values of the task's metric by name; NaN where there was nothing to compare.
        intervals: of those values that have one.
        counts: numbers of pairs, and of what was left out.
        level: of the intervals.
    """

    task: Task
    mode: Mode
    reach: str
    images: int
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    counts: Mapping[str, int]
    level: float = 0.95

    def __str__(self) -> str:
        """A table in plain text."""
        lines = [f"{self.task}, {self.images} images, {self.mode} shifts {self.reach}"]
        width = max(map(len, self.values), default=0)
        for name, value in self.values.items():
            bounds = self.intervals.get(name)
            known = bounds is not None and not any(map(math.isnan, bounds))
            interval = f"  [{bounds[0]:.4g}, {bounds[1]:.4g}]" if bounds is not None and known else ""
            lines.append(f"  {name:<{width}} {value:.4g}{interval}")
        lines.append(f"  ({', '.join(f'{count} {name}' for name, count in self.counts.items())})")
        return "\n".join(lines)


def measure_stability(
    model: Any,
    images: Any,
    *,
    task: AnyTask = "auto",
    views: ShiftedViews | Mode = "zero_fill",
    predict: Callable[[Any], Any] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    least_score: float | None = None,
    level: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> Stability:
    """How stable what a network returns is when an image moves by a few pixels; for any network, without labels.

    Each image is shifted, the network sees the views, the shift between two views is undone in what it returns, and the
    two answers are compared on the part of the image that both views show. The values are those of the task's metric:
        classes: `consistency`, the share of pairs with the same top-1, and `unanimity`, the share of images with the
            same top-1 in all views.
        detection: `DetectionConsistency`; where there are masks `mask_iou`, the mean IoU of the masks of matched boxes;
            where there are key points `point_...`, `KeypointConsistency` of matched boxes.
        segmentation: `SegmentationConsistency`. keypoints: `KeypointConsistency`.
        embeddings: `EmbeddingConsistency`. images: `psnr`, `EquivariancePSNR` for the range of all answers, the
            largest value less the smallest.

    >>> network = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")
    >>> measure_stability(network, torch.rand(2, 1, 16, 16), views="circular").values["pixels"]
    1.0

    Args:
        model: a network that takes float images (N, C, H, W), or a function; a network runs in eval mode, without
            gradients, on the device where it is, and its modes are restored. With `predict` it is not called.
        images: float images (N, C, H, W) as the network expects them; or an iterable of images (C, H, W), batches
            (N, C, H, W), or (batch, targets), of any sizes, which is read as it is needed. With `predict`: uint8
            pictures, NumPy arrays (H, W, 3), Pillow pictures or tensors (3, H, W), or one array (N, H, W, 3) of them.
        task: what the network returns, one of `dealias.metrics.outputs.TASKS`; "auto" recognises it, as
            `dealias.metrics.outputs.recognise` says.
        views: the kind of shift, one of the modes of `measure_consistency`, or an object of
            `dealias.metrics.views.make_views`. By default up to 3 pixels on both axes, with zeros at the border.
        predict: a pipeline that takes one uint8 picture (H, W, 3), such as `YOLO.predict` or `MTCNN.detect`.
        seed: of the shifts, where `views` is a mode.
        batch_size: number of views in a forward pass, at most.
        least_score: detections with a lower score are left out; see `dealias.metrics.outputs.recognise`.
        level: of the intervals.
        progress: called with the number of images done.

    The result depends neither on the batch size nor, under torchrun, on the number of processes, each of which takes a
    part of the images and returns the result of all.

    Raises:
        InputError: what the network returns is not recognised, an argument is out of range, or there are no images.
        InputTypeError: an argument is of the wrong type.
    """
    check_task(task)
    if not isinstance(views, ShiftedViews):
        views = make_views(views, seed=as_int("seed", seed, 0))
    upper_tail(level)  # refuses a level that is not one
    asking = _Asking(model, predict, task, least_score, as_int("batch_size", batch_size))
    comparison: Comparison | None = None
    count = 0
    with process_group() as (rank, processes), asking.running():
        for start, batch in _batches(images, asking, max(1, batch_size // views.count)):
            mine = [place for place in range(len(batch)) if (start + place) % processes == rank]
            if mine:
                numbers = [start + place for place in mine]
                shown_views = views.of(asking.placed(batch[mine]), numbers)
                answers = asking.about(shown_views)
                comparison = comparison or comparison_of(answers.task)
                comparison.add(answers, numbers, views, (shown_views.shape[2], shown_views.shape[3]))
            count = start + len(batch)
            if progress is not None:
                progress(count)
        if not count:
            raise InputError("images is empty: give at least one image")
        whole = _together(comparison, processes)
    found = whole.findings(level)
    return Stability(whole.task, views.mode, views.reach, count, found.values, found.intervals, found.counts, level)


@dataclass
class _Asking:
    """Asks the network, or the pipeline, about views."""

    model: Any
    predict: Callable[[Any], Any] | None
    task: AnyTask
    least_score: float | None
    batch_size: int

    def __post_init__(self) -> None:
        if self.predict is None:
            check_callable("model", self.model, "a network or a function")
            if any(kind.__module__.startswith("ultralytics.engine") for kind in type(self.model).__mro__):
                raise InputError(
                    "model is a pipeline of ultralytics: give its network, model.model, or predict=model.predict"
                )
        else:
            check_callable("predict", self.predict, "a function of one uint8 picture")

    def running(self) -> AbstractContextManager[Any]:
        """The network in eval mode; without gradients."""
        is_network = self.predict is None and isinstance(self.model, nn.Module)
        return evaluating(self.model) if is_network else torch.no_grad()

    def placed(self, images: Tensor) -> Tensor:
        """The images where the network is."""
        is_network = self.predict is None and isinstance(self.model, nn.Module)
        return placed_like(images, self.model) if is_network else images

    def about(self, views: Tensor) -> Predictions:
        """The answers to views (N, C, H, W)."""
        if self.predict is None:
            found = [self._recognised(self.model(part), part) for part in torch.split(views, self.batch_size)]
        else:
            pictures = views.round().clamp(0, 255).to(torch.uint8)
            found = [self._recognised(self.predict(_as_array(one)), one[None]) for one in pictures]
        return Predictions.joined(found)

    def _recognised(self, output: Any, views: Tensor) -> Predictions:
        found = recognise(
            output,
            count=len(views),
            size=(views.shape[2], views.shape[3]),
            channels=views.shape[1],
            task=self.task,
            model=self.model,
            least_score=self.least_score,
        )
        self.task = found.task  # what the first answer is, all are
        return found.compact()


def _together(comparison: Comparison | None, processes: int) -> Comparison:
    """The comparison of the images of all processes."""
    if processes == 1 and comparison is not None:
        return comparison
    state = None if comparison is None else comparison.state()
    states: list[Any] = [state] * processes
    dist.all_gather_object(states, state)
    return merged([each for each in states if each is not None])


def _batches(images: Any, asking: _Asking, size: int) -> Iterator[tuple[int, Tensor]]:
    """Images of one size in a row, at most `size` of them, (n, C, H, W), and the number of the first."""
    waiting: list[Tensor] = []
    done = 0
    for image in _singles(images, asking.predict is not None):
        if waiting and (len(waiting) == size or image.shape != waiting[0].shape):
            yield done, torch.stack(waiting)
            done, waiting = done + len(waiting), []
        waiting.append(image)
    if waiting:
        yield done, torch.stack(waiting)


def _singles(images: Any, pictures: bool) -> Iterator[Tensor]:
    """The images one by one, (C, H, W): float; of pictures from 0 to 255."""
    check_kind("images", images, Iterable, "images (N, C, H, W), or an iterable of images or batches")
    is_one = isinstance(images, Tensor | np.ndarray) or hasattr(images, "getbands")
    for item in [images] if is_one else images:
        pixels = item[0] if isinstance(item, list | tuple) and item else item
        yield from _picture(pixels) if pictures else _image(pixels)


def _image(pixels: Any) -> Tensor:
    """Float images (N, C, H, W), from a batch or a single one."""
    if not isinstance(pixels, Tensor):
        raise InputTypeError(f"images must be tensors (C, H, W) or (N, C, H, W), got {type(pixels).__name__}")
    if not pixels.is_floating_point():
        raise InputTypeError(
            f"images have dtype {pixels.dtype}: give the float images that the model expects, or predict="
        )
    if pixels.ndim not in (3, 4) or 0 in pixels.shape[1:]:
        raise InputError(f"images of shape {tuple(pixels.shape)}: use (C, H, W) or (N, C, H, W), none of them 0")
    return pixels if pixels.ndim == 4 else pixels[None]


def _picture(pixels: Any) -> Tensor:
    """uint8 pictures as float (N, 3, H, W), from arrays, Pillow pictures or tensors."""
    if isinstance(pixels, Tensor):
        channels_first = pixels
    else:
        array = np.asarray(pixels.convert("RGB") if hasattr(pixels, "convert") else pixels)
        array = array[..., None].repeat(3, -1) if array.ndim == 2 else array
        if array.dtype == object or array.ndim not in (3, 4):
            raise InputTypeError(f"images must be uint8 pictures (H, W, 3), got {type(pixels).__name__}")
        channels_first = torch.tensor(array).movedim(-1, -3)
    if channels_first.dtype != torch.uint8:
        raise InputTypeError(f"images have dtype {channels_first.dtype}: predict= takes uint8 pictures")
    if channels_first.ndim not in (3, 4) or channels_first.shape[-3] != 3 or 0 in channels_first.shape:
        raise InputError(f"images of shape {tuple(np.shape(pixels))}: use pictures (H, W, 3), or tensors (3, H, W)")
    return channels_first.float().reshape(-1, *channels_first.shape[-3:])


def _as_array(picture: Tensor) -> np.ndarray[Any, Any]:
    """A uint8 picture (H, W, 3) of a tensor (3, H, W)."""
    return np.ascontiguousarray(picture.movedim(0, -1).cpu().numpy())
