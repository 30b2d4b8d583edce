"""What becomes of the axes of a feature map when an operation moves, splits, merges, reduces or multiplies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any, NamedTuple, TypeAlias

Axes: TypeAlias = tuple[int, ...]
"""What each axis of a value is: i for the i-th spatial axis, -i for pixels inside a block of it, `FLAT`, or 0."""

FLAT = 9
"""An axis of all pixels, such as that of a transformer's tokens."""


class Form(NamedTuple):
    """A shape, and what each axis is."""

    shape: tuple[int, ...]
    axes: Axes

    @property
    def pixels(self) -> dict[int, int]:
        """The sizes of the spatial axes and of flattened pixels."""
        return {axis: size for axis, size in zip(self.axes, self.shape, strict=True) if axis > 0}

    @property
    def is_split(self) -> bool:
        """Whether pixels are cut into blocks."""
        return any(axis < 0 for axis in self.axes)


def _transpose(settings: dict[str, Any], form: Form) -> Axes:
    moved = list(form.axes)
    one, other = settings["dim0"], settings["dim1"]
    moved[one], moved[other] = moved[other], moved[one]
    return tuple(moved)


def _named(settings: dict[str, Any], form: Form) -> set[int]:
    """The positions that the settings name; none where they mean all."""
    given = settings.get("dim")
    return {one % len(form.axes) for one in ([given] if isinstance(given, int) else given or ())}


def _without(settings: dict[str, Any], form: Form) -> Axes | None:
    gone = _named(settings, form)
    return tuple(axis for position, axis in enumerate(form.axes) if position not in gone) if gone else None


def _squeezed(settings: dict[str, Any], form: Form) -> Axes | None:
    named = _named(settings, form)
    kept = (axis for position, axis in enumerate(form.axes) if position not in named or form.shape[position] != 1)
    return tuple(kept) if named else None


def _blank(settings: dict[str, Any], form: Form) -> Axes | None:
    gone = _named(settings, form)
    return tuple(0 if position in gone else axis for position, axis in enumerate(form.axes)) if gone else None


def inserted(settings: dict[str, Any], form: Form, axis: int = 0) -> Axes:
    """The axes with a new one where the settings say."""
    position = settings["dim"] % (len(form.axes) + 1)
    return (*form.axes[:position], axis, *form.axes[position:])


MOVES: dict[str, Callable[[dict[str, Any], Form], Axes | None]] = {
    "permute": lambda settings, form: tuple(form.axes[one] for one in settings["dims"]),
    "transpose": _transpose,
    "select": _without,
    "unbind": _without,
    "squeeze": _squeezed,
    "unsqueeze": inserted,
    "stack": inserted,
    "unfold": lambda settings, form: (*form.axes, 0),
    "view_as_real": lambda settings, form: (*form.axes, 0),
    "view_as_complex": lambda settings, form: form.axes[:-1],
    "sort": _blank,
    "topk": _blank,
}
"""By operation: the axes of what it returns, by its settings and the form of what it takes in."""


def reduced(settings: dict[str, Any], form: Form, length: int) -> Axes | None:
    """The axes of a reduction that has `length` axes left."""
    return (_blank if length == len(form.axes) else _without)(settings, form)


def multiplied(form: Form, value: Sequence[int], left: bool, made: Sequence[int]) -> Form | None:
    """The form of a product of shape `made`: of a map, to the `left` of a constant matrix or to its right.

    `value` is the shape of the map as a matrix or a batch of matrices. The axis that the product sums over becomes
    another one. Where it is one of pixels and does not become longer, its pixels go on as fewer, each a sum of them, as
    long as there are channels or other pixels beside.
    """
    groups = _groups(form, value)
    if groups is None:
        return None
    position = -1 if left else -2
    summed, size = groups[position], made[position]
    meanings = [axis for length, axis in summed if length > 1]
    axis = 0
    if meanings and min(meanings) > 0 and 1 < size <= value[position]:
        axis = meanings[0] if len(meanings) == 1 else FLAT
    groups[position] = []
    beside = [length for group in groups for length, _ in group][1:]
    groups[position] = [(size, axis if max(beside, default=1) > 1 else 0)]
    parts = [one for group in groups for one in group]
    return Form(tuple(length for length, _ in parts), tuple(axis for _, axis in parts))


def _groups(form: Form, shape: Sequence[int]) -> list[list[tuple[int, int]]] | None:
    """The axes of `form`, sizes and meanings, by the axis of `shape` that they are merged into."""
    parts, groups = list(zip(*form, strict=True)), list[list[tuple[int, int]]]()
    for size in shape:
        group: list[tuple[int, int]] = []
        while parts and prod(length for length, _ in [*group, parts[0]]) <= size:
            group.append(parts.pop(0))
        groups.append(group)
    merged = [prod(length for length, _ in group) for group in groups]
    return groups if not parts and merged == list(shape) else None


def merges(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether a view of shape `new` merges axes of the shape `old` and splits none."""
    return {1, *accumulate(new, mul)} <= {1, *accumulate(old, mul)}


def reshaped(old: Sequence[int], axes: Axes, new: Sequence[int]) -> Axes | None:
    """The axes of a view of shape `new`; None where pixels and channels are mixed.

    >>> reshaped((2, 8, 6, 6), (0, 0, 1, 2), (2, 8, 3, 2, 6))
    (0, 0, 1, -1, 2)
    >>> reshaped((2, 8, 6, 6), (0, 0, 1, 2), (2, 8, 36))
    (0, 0, 9)
    """
    result: list[int] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first_old, first_new = i, j
        left = right = 1
        while True:  # as few axes as have equally many elements
            if i < len(old) and (left <= right and (left < right or i == first_old)):
                left *= old[i]
                i += 1
            elif j < len(new) and (right < left or j == first_new):
                right *= new[j]
                j += 1
            elif left == right:
                break
            else:
                return None
        made = _regrouped(old[first_old:i], axes[first_old:i], new[first_new:j])
        if made is None:
            return None
        result += made
    return tuple(result)


def _regrouped(old: Sequence[int], axes: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """The axes of neighbours with as many elements as the neighbours `old`; axes of one element are nobody's."""
    kept = [axis for size, axis in zip(old, axes, strict=True) if size > 1]
    wide = [position for position, size in enumerate(new) if size > 1]
    if len(kept) == len(wide) > 1 and any(kept):  # as many axes of other sizes: pixels are scrambled
        return None
    made = _split_or_merged(kept, len(wide))
    if made is None:
        return None
    result = [0] * len(new)
    for position, axis in zip(wide, made, strict=True):
        result[position] = axis
    return result


def _split_or_merged(kept: list[int], count: int) -> list[int] | None:
    pixels = [axis for axis in kept if axis > 0]
    if not pixels:
        return [0] * count  # channels, which take in the pixels of blocks
    if len(kept) == count:
        return kept
    if len(kept) == 1:
        if kept[0] == FLAT:
            return list(range(1, count + 1))
        return [kept[0], -kept[0]] if count == 2 else None
    if count == 1 and len(kept) == 2 and kept[1] == -kept[0]:
        return [kept[0]]
    return [FLAT] if count == 1 and len(pixels) == len(kept) else None
