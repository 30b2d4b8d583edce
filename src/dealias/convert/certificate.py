"""`certify`: whether circular shifts of the input change what a network returns, and why."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from dealias.convert.borders import doubts_of, listed, reasons_of
from dealias.convert.frames import Frames, Maps, subsamples
from dealias.convert.recording import ExampleInput, call_arguments, record, undisturbed
from dealias.errors import InputError, InputTypeError, as_int, shown

EXACT = 1e-10
"""The largest relative change that counts as rounding in float64; deep networks come to 1e-15."""


@dataclass(frozen=True)
class Certificate:
    """Whether circular shifts of the input change what a network returns.

    Args:
        exact: no shift does beyond rounding, and nothing in the network hinders it for other inputs.
        worst: the largest change of an output over the shifts, divided by the largest absolute value of the output.
        worst_shift: in pixels along each axis.
        reasons: why it is not exact: which layer, and what to do.
        period: the total stride of the network along each axis: all other shifts repeat those of one period.
        shifts: how many were tried.
    """

    exact: bool
    worst: float
    worst_shift: tuple[int, ...]
    reasons: tuple[str, ...]
    period: tuple[int, ...]
    shifts: int

    def __str__(self) -> str:
        verdict = "exact" if self.exact else "not exact"
        size = "x".join(map(str, self.period))
        line = f"{verdict}: {self.shifts} shifts, total stride {size}, largest relative change {self.worst:.1e}"
        if not self.exact:
            line += f" at shift {self.worst_shift}"
        return "\n".join([line, *(f"- {reason}" for reason in self.reasons)])


def certify(
    model: nn.Module, example_input: ExampleInput, *, shifts: Sequence[int | Sequence[int]] | None = None
) -> Certificate:
    """Try circular shifts of `example_input` in float64, and say why they change what `model` returns, if they do.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1))
    >>> certify(model, torch.rand(1, 1, 8, 8)).exact
    True

    Outputs with spatial axes are to move along: by the shift where they have the size of the input, by whole pixels of
    theirs next to it where they are coarser. Other outputs are to stay. A copy of the model runs, in evaluation mode.

    Args:
        model: any module that runs in float64.
        example_input: see `dealias.sites`. Its floating-point tensors (N, C, *spatial) are shifted together.
        shifts: in pixels, one int for all axes or one for each; by default every shift of one period of the total
            stride, along all axes.

    Raises:
        InputError: `shifts` is empty or of another length than the axes, or `model` does not take `example_input`.
        InputTypeError: `model` is no module, or an argument of another type.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model={shown(model)} must be a torch.nn.Module")
    args, kwargs = call_arguments(example_input)
    model = copy.deepcopy(model).double()
    args, kwargs = tree_map(lambda leaf: leaf.double() if _is_floating(leaf) else leaf, (args, kwargs))
    trace = record(model, kwargs or args)
    maps = Maps(trace)
    period = _period(maps)
    if not period:
        raise InputError(f"example_input={shown(example_input)} has no tensor of shape (N, C, *spatial) to shift")
    tried = _shifts(shifts, period)
    worst, worst_shift = _largest_change(model, args, kwargs, tried)
    reasons = listed(reasons_of(maps))
    exact = worst <= EXACT and not reasons
    if worst > EXACT:
        reasons += listed(doubts_of(maps))
    if not exact and not reasons:
        reasons = ["no layer stands out: the network may compute with the places of pixels, or at random"]
    return Certificate(exact, worst, worst_shift, tuple(reasons), period, len(tried))


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _period(maps: Maps) -> tuple[int, ...]:
    """The total stride along each spatial axis of the input; empty where no input has spatial axes."""
    axes = max((len(value.shape) - 2 for value in maps.early if value.producer is None), default=0)
    frames, total = Frames(maps, subsamples), (1,) * axes
    for levels in frames.ways.values():
        strides = [level.spot.stride for level in levels if len(level.spot.stride) == axes]
        whole = tuple(map(math.prod, zip(*strides, strict=True))) or total
        total = tuple(map(math.lcm, total, whole))
    return total


def _shifts(given: Sequence[int | Sequence[int]] | None, period: tuple[int, ...]) -> list[tuple[int, ...]]:
    if given is None:
        return list(itertools.product(*(range(1, step + 1) for step in period)))
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputTypeError(f"shifts={shown(given)} must be a sequence of ints, or of one int for each axis")
    tried = []
    for one in given:
        amounts = (one,) * len(period) if not isinstance(one, Sequence) else one
        if len(amounts) != len(period):
            raise InputError(f"shifts={shown(given)}: each needs one int, or {len(period)} for the spatial axes")
        tried.append(tuple(as_int("shifts", amount, -(2**31), given=given) for amount in amounts))
    return tried


def _largest_change(
    model: nn.Module, args: Any, kwargs: Any, shifts: Sequence[tuple[int, ...]]
) -> tuple[float, tuple[int, ...]]:
    axes = len(shifts[0])

    def roll(leaf: Any, shift: tuple[int, ...]) -> Any:
        movable = _is_floating(leaf) and leaf.ndim == axes + 2
        return leaf.roll(shift, tuple(range(2, axes + 2))) if movable else leaf

    def run(shift: tuple[int, ...]) -> list[Tensor]:
        shifted_args, shifted_kwargs = tree_map(lambda leaf: roll(leaf, shift), (args, kwargs))
        return list(filter(_is_floating, tree_leaves(model(*shifted_args, **shifted_kwargs))))

    size = next(leaf.shape[2:] for leaf in tree_leaves((args, kwargs)) if roll(leaf, (0,) * axes) is not leaf)
    worst, worst_shift = 0.0, shifts[0]
    with undisturbed(model):
        still = run((0,) * axes)
        for shift in shifts:
            moved = run(shift)
            changes = [_change(a, b, shift, size) for a, b in zip(still, moved, strict=False)]
            change = max(changes, default=0.0) if len(still) == len(moved) else math.inf
            if change > worst:
                worst, worst_shift = change, shift
    return worst, worst_shift


def _change(still: Tensor, moved: Tensor, shift: tuple[int, ...], size: Sequence[int]) -> float:
    """The largest relative difference, where `moved` is moved along by `shift` pixels of an input of `size`."""
    if still.shape != moved.shape:
        return math.inf
    scale = float(still.abs().max()) if still.numel() else 0.0
    if not math.isfinite(scale):
        return math.inf
    if not scale:
        return 0.0
    # of coarse maps, each sample moves to the pixel next to the shift on a side of its own
    samples = len(still) if still.ndim > 2 else 1
    differences = [(one - moved).abs().reshape(samples, -1).amax(1) for one in _expected(still, shift, size)]
    return float(torch.stack(differences).amin(0).max()) / scale


def _expected(still: Tensor, shift: tuple[int, ...], size: Sequence[int]) -> Iterator[Tensor]:
    """What a shifted input may return: `still`, moved along if it is a map."""
    pixels = still.shape[2:]
    if len(pixels) != len(size) or math.prod(pixels) == 1 or any(n % m for n, m in zip(size, pixels, strict=True)):
        yield still
        return
    reach = []
    for n, m, amount in zip(size, pixels, shift, strict=True):
        step = n // m
        reach.append((amount,) if step == 1 else range(amount // step - 1, -(-amount // step) + 2))
    for amounts in itertools.product(*reach):
        yield still.roll(amounts, tuple(range(2, still.ndim)))
