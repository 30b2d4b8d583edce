"""Run a network on shifted images and measure how consistent its predictions are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError, as_int, check_kind
from dealias.metrics._evaluation import evaluating, placed_like
from dealias.metrics.intervals import clustered_wilson_interval, upper_tail, wilson_interval
from dealias.metrics.predictions import check_logits, checked_classes, correct_probabilities
from dealias.metrics.views import Mode, ShiftedViews, make_views

Batches: TypeAlias = Tensor | Iterable[Tensor | Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class ConsistencyResult:
    """The findings of `measure_consistency`: shares, with confidence intervals at `level`; images are their units.

    Attributes:
        mode, level: as given.
        reach: the range of the shifts, in words.
        consistency: share of the pairs with the same top-1; 1 - consistency is the flip probability.
        interval: of `consistency`; the others are of the values that they are named after.
        agreements, total: numbers of pairs.
        images, views: number of images, and of the views of each.
        unanimity: share of the images of which all views have the same top-1 (k-way agreement, k = `views`).
        correct_consistency: of the pairs with at least one right prediction, the share with the same; None without
            targets, or without such a pair. It does not reward a network for being wrong in the same way twice.
        accuracy: share of right predictions over all views; None without targets.
        worst_case_accuracy: share of the images right in every view; None without targets.
        probabilities: diagonal mode: P(correct) of every image at every shift, float32 (images, shifts).
        variation: diagonal mode: mean over the images and neighbouring shifts of |P(correct) - P(correct one pixel
            on)|: the total variation along the diagonal over the number of its steps.
    """

    mode: str
    reach: str
    consistency: float
    interval: tuple[float, float]
    level: float
    agreements: int
    total: int
    images: int
    unanimity: float
    unanimity_interval: tuple[float, float]
    views: int
    correct_consistency: float | None = None
    correct_consistency_interval: tuple[float, float] | None = None
    accuracy: float | None = None
    worst_case_accuracy: float | None = None
    worst_case_accuracy_interval: tuple[float, float] | None = None
    probabilities: Tensor | None = None
    variation: float | None = None


def measure_consistency(
    model: nn.Module,
    images: Batches,
    *,
    mode: Mode = "crop",
    targets: Tensor | None = None,
    batch_size: int = 64,
    level: float = 0.95,
    progress: Callable[[int], None] | None = None,
    pairs: int = 5,
    seed: int = 0,
    crop_size: int = 224,
    image_size: int | None = None,
    max_shift: int | None = None,
    step: int | None = None,
    fill: float = 0.0,
) -> ConsistencyResult:
    """How often a network gives two shifts of the same image the same top-1 class.

    >>> from dealias.models import vgg_small
    >>> measure_consistency(vgg_small(), torch.rand(2, 1, 32, 32), mode="zero_fill", max_shift=3).images
    2

    Modes:
        "crop": two windows of `crop_size` pixels, both offsets drawn from 0..image_size - crop_size - 1: 0..31 for 224
            out of 256 (Zhang 2019, section 4.2).
        "circular": two rolls, both axes drawn from [-max_shift, max_shift); 32 by default (Chaman and Dokmanic, Truly
            shift-invariant convolutional neural networks, CVPR 2021).
        "fractional": two rolls by fractions of a pixel, both axes drawn uniformly from [-max_shift, max_shift), by
            `dealias.perturb.fourier_shift` (after Michaeli et al., Alias-Free Convnets, CVPR 2023).
        "half_pixel", "third_pixel": two rolls by whole pixels drawn as in the mode circular, of which the second goes
            on by a multiple of 1/2 or 1/3 pixel, on one axis or both (after the same paper).
        "zero_fill": two shifts, both axes drawn from [-max_shift, max_shift]; 3 by default; `fill` enters.
        "diagonal": the windows at the offsets (0, 0), (1, 1), ... (image_size - crop_size, ...): 33 for 224 out of 256.
            The pairs are the neighbours along the diagonal; P(correct) and its variation are returned too (Zhang 2019,
            section 4.2, figure 6).
        "one_pixel": two windows one pixel apart, drawn from all such pairs; 1 - consistency is the probability that
            the top-1 changes with one pixel (Azulay and Weiss, Why do deep convolutional networks generalize so poorly
            to small image transformations?, JMLR 2019).
        "grid": the windows at every `step`-th offset on both axes, by default 5 x 5; the pairs are each of them with
            the one in the middle. `worst_case_accuracy` is what an adversary who may choose among them leaves
            (Engstrom et al., Exploring the landscape of spatial robustness, ICML 2019).
        "circular_grid", "half_pixel_grid": the rolls by every whole pixel from -max_shift to max_shift, 2 by default,
            or by every half pixel, 1 by default; compared as in the mode grid. `worst_case_accuracy` is also called
            adversarial accuracy.

    The shifts of an image depend on `seed` and its place among the images alone, so the result does not depend on how
    they are batched. The interval is `clustered_wilson_interval`: the pairs of an image are alike.

    Args:
        model: run in eval mode, without gradients, on the device where it is; its modes are restored.
        images: float (N, C, H, W), normalised as the model expects; or an iterable of such batches or of (images,
            targets).
        mode: see above.
        targets: the classes (N,) of `images` where that is a tensor; the mode diagonal needs them, others tell
            accuracies with them.
        batch_size: number of shifted images in a forward pass, at most.
        level: of the intervals.
        progress: called with the number of images done, after each forward pass.
        pairs: drawn for each image.
        seed: of the shifts.
        crop_size, image_size: of the modes crop, diagonal, one_pixel and grid. Images whose short side is larger than
            `image_size` (8/7 of `crop_size` by default) are resized to it and cropped in the middle.
        max_shift: of the modes that roll or fill, in pixels.
        step: of the mode grid, in pixels; a quarter of the room by default.
        fill: of the mode zero_fill, in the units of the normalised images.

    Raises:
        InputError: an argument is out of range, images are too small or missing, or the model's logits contain NaN.
        InputTypeError: an argument is of the wrong type.
    """
    arguments: dict[str, Any] = {"pairs": pairs, "seed": seed, "crop_size": crop_size, "image_size": image_size}
    arguments |= {"max_shift": max_shift, "step": step, "fill": fill}
    return measure_consistencies(
        model, images, {mode: arguments}, targets=targets, batch_size=batch_size, level=level, progress=progress
    )[mode]


def measure_consistencies(
    model: nn.Module,
    images: Batches,
    modes: Mapping[Mode, Mapping[str, Any]],
    *,
    targets: Tensor | None = None,
    batch_size: int = 64,
    level: float = 0.95,
    progress: Callable[[int], None] | None = None,
) -> dict[Mode, ConsistencyResult]:
    """`measure_consistency` in several modes in one pass over the images.

    >>> from dealias.models import vgg_small
    >>> modes = {"circular": {"max_shift": 16}, "zero_fill": {"max_shift": 3}}
    >>> found = measure_consistencies(vgg_small(), torch.rand(4, 1, 32, 32), modes)
    >>> [(mode, result.total) for mode, result in found.items()]
    [('circular', 20), ('zero_fill', 20)]

    Args:
        modes: for each mode its own arguments: those from `pairs` on of `measure_consistency`.
        model, images, targets, batch_size, level, progress: as for `measure_consistency`.

    Raises:
        InputError, InputTypeError: as for `measure_consistency`; or `modes` is empty.
    """
    if not modes:
        raise InputError("modes is empty: name at least one")
    check_kind("model", model, nn.Module, "a torch.nn.Module")
    batch_size = as_int("batch_size", batch_size)
    upper_tail(level)  # refuses a level that is not one
    kinds = {mode: make_views(mode, **arguments) for mode, arguments in modes.items()}
    counts = {mode: ViewCounts() for mode in modes}
    chunk = max(1, batch_size // max(views.count for views in kinds.values()))
    probabilities: list[Tensor] = []
    done = 0
    with evaluating(model):
        for batch, classes in _chunks(images, targets, chunk):
            if "diagonal" in kinds and classes is None:
                raise InputError(
                    "mode='diagonal' needs the correct classes: give targets, or batches of (images, targets)"
                )
            placed = placed_like(batch, model)
            for mode, views in kinds.items():
                shifted = views.of(placed, range(done, done + len(batch)))
                logits = torch.cat([check_logits(model(part)) for part in torch.split(shifted, batch_size)])
                predictions = checked_classes("the model's output", logits).view(len(batch), views.count)
                counts[mode].add(predictions, classes, views)
                if mode == "diagonal" and classes is not None:
                    probabilities.append(correct_probabilities(logits.view(len(batch), views.count, -1), classes))
            done += len(batch)
            if progress is not None:
                progress(done)
    if not done:
        raise InputError("images is empty: give at least one image")
    curve = torch.cat(probabilities) if probabilities else None
    return {mode: counts[mode].result(kinds[mode], level, curve if mode == "diagonal" else None) for mode in kinds}


@dataclass
class ViewCounts:
    """Counts of the views of images: whole numbers, one of each for each image.

    Attributes:
        agreements, unanimous: compared pairs with the same top-1; 1 where all views have it.
        right_views: views with the right top-1; empty without targets, as the others below.
        right_pairs, right_agreements: compared pairs with at least one right top-1, and with two.
    """

    agreements: list[int] = field(default_factory=list)
    unanimous: list[int] = field(default_factory=list)
    right_views: list[int] = field(default_factory=list)
    right_pairs: list[int] = field(default_factory=list)
    right_agreements: list[int] = field(default_factory=list)

    def add(self, predictions: Tensor, targets: Tensor | None, views: ShiftedViews) -> None:
        """Count a batch: the top-1 (N, views), -1 where there is none as a logit is NaN, and the classes (N,)."""
        first, second = (predictions[:, list(side)] for side in zip(*views.compared, strict=True))
        self.agreements.extend(((first == second) & (first >= 0)).sum(1).tolist())
        same = (predictions == predictions[:, :1]) & (predictions >= 0)
        self.unanimous.extend(same.all(1).int().tolist())
        if targets is None:
            return
        right = targets.to(predictions.device).unsqueeze(1)
        self.right_views.extend((predictions == right).sum(1).tolist())
        self.right_pairs.extend(((first == right) | (second == right)).sum(1).tolist())
        self.right_agreements.extend(((first == right) & (second == right)).sum(1).tolist())

    def result(self, views: ShiftedViews, level: float, probabilities: Tensor | None = None) -> ConsistencyResult:
        """The shares and their intervals."""
        images, trials = len(self.agreements), len(views.compared)
        known: dict[str, Any] = {}
        if self.right_views:
            always = sum(count == views.count for count in self.right_views)
            known["accuracy"] = sum(self.right_views) / (images * views.count)
            known["worst_case_accuracy"] = always / images
            known["worst_case_accuracy_interval"] = wilson_interval(always, images, level)
        if any(self.right_pairs):
            known["correct_consistency"] = sum(self.right_agreements) / sum(self.right_pairs)
            known["correct_consistency_interval"] = clustered_wilson_interval(
                self.right_agreements, self.right_pairs, level
            )
        return ConsistencyResult(
            mode=views.mode,
            reach=views.reach,
            consistency=sum(self.agreements) / (images * trials),
            interval=clustered_wilson_interval(self.agreements, trials, level),
            level=level,
            agreements=sum(self.agreements),
            total=images * trials,
            images=images,
            unanimity=sum(self.unanimous) / images,
            unanimity_interval=wilson_interval(sum(self.unanimous), images, level),
            views=views.count,
            **known,
            probabilities=probabilities,
            variation=None if probabilities is None else float(probabilities.diff(dim=1).abs().mean()),
        )


def _chunks(images: Batches, targets: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    if isinstance(images, Tensor):
        if targets is not None and len(targets) != len(images):
            raise InputError(f"targets has {len(targets)} classes for {len(images)} images")
        batches: Iterable[Tensor | Sequence[Tensor]] = [images] if targets is None else [(images, targets)]
    elif targets is not None:
        raise InputError("targets go with images as one tensor: give batches of (images, targets) instead")
    else:
        batches = images
    check_kind("images", batches, Iterable, "a tensor (N, C, H, W) or batches of such tensors")
    for batch in batches:
        is_pair = isinstance(batch, Sequence) and len(batch) == 2
        pixels, classes = (batch[0], batch[1]) if is_pair else (batch, None)
        if not isinstance(pixels, Tensor):
            raise InputTypeError(f"images must be tensors (N, C, H, W), got {type(pixels).__name__}")
        for start in range(0, len(pixels), size):
            part = slice(start, start + size)
            yield pixels[part], None if classes is None else torch.as_tensor(classes)[part]
