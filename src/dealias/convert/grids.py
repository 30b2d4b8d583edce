"""Follow the spatial axes of feature maps through a trace: which axes of a value are pixels, and what makes them fewer.

A map begins where a convolution or a pooling returns it. From there its axes are followed through views, permutations,
slices and reductions, so that what subsamples by other means than a stride is seen too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

from dealias.convert.trace import BLUR, Node, Trace, Value

Axes: TypeAlias = tuple[int, ...]
"""What each axis of a value is: i for the i-th spatial axis, -i for pixels inside a block of it, `FLAT`, or 0."""

FLAT = 9
_CROPS = {"slice", "split", "split_with_sizes", "chunk", "constant_pad_nd", "select", "unbind", "as_strided_copy"}
_VIEWS = {"view", "_unsafe_view", "reshape"}
_REDUCTIONS = {
    *("amax", "amin", "any", "all", "argmax", "argmin", "logsumexp", "max", "mean", "median", "min", "nanmean"),
    *("prod", "std", "sum", "var", "var_mean", "std_mean", "linalg_vector_norm", "norm"),
}
_MIXING = ("mm", "attention", "dot", "cdist")  # their axes are no longer those of what they take in
_RESAMPLING = ("convolution", "_pool", "upsample_", "conv2d", "conv1d", "conv3d", "pixel_shuffle", "pixel_unshuffle")


@dataclass(eq=False)
class Grids:
    """The spatial axes of the values of a trace, and the nodes that make maps smaller without a stride.

    Args:
        axes: of each value that is a map, or part of one.
        shrinks: node, the map that it shrinks, and what becomes of it.
    """

    axes: dict[Value, Axes] = field(default_factory=dict)
    shrinks: list[tuple[Node, Value, Value]] = field(default_factory=list)
    _whole: dict[Value, Value] = field(default_factory=dict)  # by a map in blocks: what was cut into them

    def size(self, value: Value) -> tuple[int, ...] | None:
        """The pixels of a map along its spatial axes, in their order; None where `value` is no map."""
        axes = self.axes.get(value)
        if axes is None:
            return None
        pixels = {axis: size for axis, size in zip(axes, value.shape, strict=True) if 0 < axis < FLAT}
        return tuple(pixels[axis] for axis in sorted(pixels)) or None

    def is_whole(self, value: Value) -> bool:
        """Whether `value` is a map with all its spatial axes, none of them cut into blocks or merged."""
        return all(0 <= axis < FLAT for axis in self.axes.get(value, ())) and self.size(value) is not None

    def follow(self, node: Node) -> None:
        """Note the axes of what `node` returns."""
        source = next((value for value in node.inputs if value in self.axes), None)
        if node.op == BLUR or any(name in node.op for name in _RESAMPLING):
            self._begin(node)
        elif source is not None:
            for output in node.outputs:
                axes = self._axes(node, source, output)
                if axes is not None and any(axes):
                    self.axes[output] = axes
                    self._compare(node, source, output)

    def _begin(self, node: Node) -> None:
        source = node.inputs[0].shape
        spatial = _spatial_axes(node)
        for output in node.outputs[:1]:
            if len(output.shape) > spatial:
                self.axes[output] = (*(0,) * (len(output.shape) - spatial), *range(1, spatial + 1))
            named = node.op == "convolution" or "_pool" in node.op or not node.op.endswith(("conv2d", "conv1d"))
            if not named and node.op != BLUR and len(source) == len(output.shape):
                pairs = zip(source[-spatial:], output.shape[-spatial:], strict=True)
                if any(new * 1.5 <= old for old, new in pairs):  # a stride that only its kernel knows
                    self.shrinks.append((node, node.inputs[0], output))

    def _axes(self, node: Node, source: Value, output: Value) -> Axes | None:
        axes, old, new = self.axes[source], source.shape, output.shape
        rule = _RULES.get(node.op)
        if rule is not None:
            moved: Axes | None = rule(node.settings, axes)
            return moved
        if node.op in _VIEWS:
            return self._view(node, source, output)
        if node.op in _REDUCTIONS:
            return _reduce(node.settings, axes, len(new))
        if any(name in node.op for name in _MIXING):
            return None
        if len(old) == len(new):
            if node.pointwise:
                return self._broadcast(node, output)
            return axes
        return self._broadcast(node, output) if node.pointwise or node.op == "expand" else None

    def _broadcast(self, node: Node, output: Value) -> Axes:
        """The axes of an operation that works pixel by pixel: those of its largest map, aligned at the last axis."""
        largest = max((value for value in node.inputs if value in self.axes), key=lambda value: prod(value.shape))
        axes = [0] * len(output.shape)
        for position, axis in enumerate(reversed(self.axes[largest]), start=1):
            if axis and largest.shape[-position] == output.shape[-position]:
                axes[-position] = axis
        return tuple(axes)

    def _view(self, node: Node, source: Value, output: Value) -> Axes | None:
        axes = reshaped(source.shape, self.axes[source], output.shape)
        if axes is not None and any(axis < 0 for axis in axes):
            self._whole[output] = self._whole.get(source, source)
        return axes

    def _compare(self, node: Node, source: Value, output: Value) -> None:
        """Note where a map became smaller other than by cropping it."""
        before, after = self.axes[source], self.axes[output]
        whole = self._whole.get(source)
        if whole is not None:
            if any(axis < 0 for axis in after):
                self._whole.setdefault(output, whole)
            elif (size := self.size(output)) is not None and size != self.size(whole):
                self.shrinks.append((node, whole, output))
            return
        old, new = self.size(source), self.size(output)
        cut = node.op in _CROPS and not source.dtype.is_complex
        fourier = node.op.startswith("_fft_")
        if cut or fourier or not old or not new or len(before) != len(after) or len(old) != len(new):
            return
        if any(fewer < more for more, fewer in zip(old, new, strict=True)):
            self.shrinks.append((node, source, output))


def _spatial_axes(node: Node) -> int:
    weight = node.settings.get("weight")
    if node.op == "convolution" and weight is not None:
        return len(weight) - 2
    digits = [int(one) for one, unit in zip(node.op, node.op[1:], strict=False) if one in "123" and unit == "d"]
    return digits[0] if digits else len(node.inputs[0].shape) - 2


def _permute(settings: dict[str, Any], axes: Axes) -> Axes:
    return tuple(axes[one] for one in settings["dims"])


def _transpose(settings: dict[str, Any], axes: Axes) -> Axes:
    moved = list(axes)
    one, other = settings["dim0"], settings["dim1"]
    moved[one], moved[other] = moved[other], moved[one]
    return tuple(moved)


def _without(settings: dict[str, Any], axes: Axes) -> Axes:
    return tuple(axis for position, axis in enumerate(axes) if position != settings["dim"] % len(axes))


def _squeeze(settings: dict[str, Any], axes: Axes) -> Axes | None:
    given = settings.get("dim")
    if given is None:
        return None
    dims = {one % len(axes) for one in ([given] if isinstance(given, int) else given)}
    return tuple(axis for position, axis in enumerate(axes) if position not in dims)


def _insert(settings: dict[str, Any], axes: Axes) -> Axes:
    position = settings["dim"] % (len(axes) + 1)
    return (*axes[:position], 0, *axes[position:])


def _unfold(settings: dict[str, Any], axes: Axes) -> Axes:
    return (*axes, 0)


_RULES: dict[str, Any] = {
    "permute": _permute,
    "transpose": _transpose,
    "select": _without,
    "unbind": _without,
    "squeeze": _squeeze,
    "unsqueeze": _insert,
    "stack": _insert,
    "unfold": _unfold,
}


def _reduce(settings: dict[str, Any], axes: Axes, length: int) -> Axes | None:
    given = settings.get("dim")
    if given is None or given == []:
        return None
    dims = {one % len(axes) for one in ([given] if isinstance(given, int) else given)}
    if length == len(axes):  # keepdim
        return tuple(0 if position in dims else axis for position, axis in enumerate(axes))
    return tuple(axis for position, axis in enumerate(axes) if position not in dims)


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


def find_grids(trace: Trace) -> Grids:
    """Follow the maps of `trace`."""
    grids = Grids()
    for node in trace.nodes:
        grids.follow(node)
    return grids
