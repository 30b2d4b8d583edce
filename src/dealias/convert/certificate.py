"""`certify`: whether circular shifts of the input, whole or not, change what a network returns, and why."""

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
from dealias.ops import fourier

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
    worst_shift: tuple[float, ...]
    reasons: tuple[str, ...]
    period: tuple[int, ...]
    shifts: int

    def __str__(self) -> str:
        verdict = "exact" if self.exact else "not exact"
        size = "x".join(map(str, self.period))
        line = f"{verdict}: {self.shifts} shifts, total stride {size}, largest relative change {self.worst:.1e}"
        if not self.exact:
            line += f" at shift ({', '.join(f'{amount:.4g}' for amount in self.worst_shift)})"
        return "\n".join([line, *(f"- {reason}" for reason in self.reasons)])


def certify(
    model: nn.Module, example_input: ExampleInput, *, shifts: Sequence[float | Sequence[float]] | None = None
) -> Certificate:
    """Try circular shifts of `example_input` in float64, and say why they change what `model` returns, if they do.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1))
    >>> certify(model, torch.rand(1, 1, 8, 8)).exact
    True

    Outputs with spatial axes are to move along: by the shift where they have the size of the input, by whole pixels of
    theirs next to it where they are coarser, or by the shift over their stride. Other outputs are to stay. A copy of
    the model runs, in evaluation mode.

    Shifts by fractions of a pixel are made, and expected of outputs with spatial axes, by the Fourier transform. The
    input is shifted without its Nyquist frequency then, of whose waves the pixels do not say where they stand.

    Args:
        model: any module that runs in float64.
        example_input: see `dealias.sites`. Its floating-point tensors (N, C, *spatial) are shifted together.
        shifts: in pixels, one number for all axes or one for each, whole or not; by default every whole shift of one
            period of the total stride, along all axes.

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
    fractional = any(amount % 1 for shift in tried for amount in shift)
    if fractional:
        args, kwargs = tree_map(lambda leaf: _without_nyquist(leaf, len(period)), (args, kwargs))
    worst, worst_shift = _largest_change(model, args, kwargs, tried)
    reasons = listed(reasons_of(maps, fractional))
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


def _shifts(given: Sequence[float | Sequence[float]] | None, period: tuple[int, ...]) -> list[tuple[float, ...]]:
    if given is None:
        return list(itertools.product(*(range(1, step + 1) for step in period)))
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputTypeError(f"shifts={shown(given)} must be a sequence of numbers, or of one for each axis")
    tried: list[tuple[float, ...]] = []
    for one in given:
        amounts = (one,) * len(period) if not isinstance(one, Sequence) else one
        if len(amounts) != len(period):
            raise InputError(f"shifts={shown(given)}: each needs one number, or {len(period)} for the spatial axes")
        tried.append(tuple(_amount(amount, given) for amount in amounts))
    return tried


def _amount(amount: Any, given: Any) -> float:
    """A shift along one axis; an int where it is whole."""
    if not isinstance(amount, float):
        return as_int("shifts", amount, -(2**31), given=given, valid="a sequence of numbers")
    if not abs(amount) < 2**31:
        raise InputError(f"shifts={shown(given)}: {amount} is not a number of pixels")
    return int(amount) if amount.is_integer() else amount


def _is_movable(leaf: Any, axes: int) -> bool:
    return _is_floating(leaf) and leaf.ndim == axes + 2


def _without_nyquist(leaf: Any, axes: int) -> Any:
    """A map without its waves that cannot be moved by a fraction of a pixel."""
    for axis in range(2, axes + 2) if _is_movable(leaf, axes) else ():
        leaf = fourier.subsampled(leaf, axis, 1)
    return leaf


def _moved(x: Tensor, shift: Sequence[float]) -> Tensor:
    """`x` moved along its spatial axes, by whole pixels exactly."""
    for axis, amount in enumerate(shift, start=2):
        if amount % 1:
            x = fourier.shifted(x, axis, torch.tensor([amount], dtype=x.dtype, device=x.device))
        else:
            x = x.roll(int(amount), axis)
    return x


def _largest_change(
    model: nn.Module, args: Any, kwargs: Any, shifts: Sequence[tuple[float, ...]]
) -> tuple[float, tuple[float, ...]]:
    axes = len(shifts[0])

    def move(leaf: Any, shift: tuple[float, ...]) -> Any:
        return _moved(leaf, shift) if _is_movable(leaf, axes) else leaf

    def run(shift: tuple[float, ...]) -> list[Tensor]:
        shifted_args, shifted_kwargs = tree_map(lambda leaf: move(leaf, shift), (args, kwargs))
        return list(filter(_is_floating, tree_leaves(model(*shifted_args, **shifted_kwargs))))

    size = next(leaf.shape[2:] for leaf in tree_leaves((args, kwargs)) if _is_movable(leaf, axes))
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


def _change(still: Tensor, moved: Tensor, shift: tuple[float, ...], size: Sequence[int]) -> float:
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


def _expected(still: Tensor, shift: tuple[float, ...], size: Sequence[int]) -> Iterator[Tensor]:
    """What a shifted input may return: `still`, moved along if it is a map."""
    pixels = still.shape[2:]
    if len(pixels) != len(size) or math.prod(pixels) == 1 or any(n % m for n, m in zip(size, pixels, strict=True)):
        yield still
        return
    steps = [n // m for n, m in zip(size, pixels, strict=True)]
    pairs = list(zip(shift, steps, strict=True))
    yield _moved(still, [amount / step if amount % step else amount // step for amount, step in pairs])
    if any(amount % 1 for amount in shift) or max(steps) == 1:
        return
    reach = []
    for amount, step in pairs:
        whole = int(amount)
        reach.append((whole,) if step == 1 else range(whole // step - 1, -(-whole // step) + 2))
    for amounts in itertools.product(*reach):
        yield still.roll(amounts, tuple(range(2, still.ndim)))
