"""Follow the spatial axes of feature maps through a trace: which axes of a value are pixels, and what makes them fewer.

A map begins where a convolution or a pooling returns it.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from dealias.convert.axes import FLAT, MOVES, Axes, Form, inserted, merges, multiplied, reduced, reshaped
from dealias.convert.trace import BLUR, DOUBLE, HALVE, Node, Trace, Value

VIEWS = ("view", "_unsafe_view", "reshape")
_CROPS = {"slice", "narrow", "split", "split_with_sizes", "chunk", "constant_pad_nd", "select", "unbind"}
_COPIES = ("clone", "alias", "detach", "_to")
_PICKS = {"index", "index_select", "gather", "take", "masked_select"}
_REDUCTIONS = {
    *("amax", "amin", "any", "all", "argmax", "argmin", "logsumexp", "max", "mean", "median", "min", "nanmean"),
    *("prod", "std", "sum", "var", "var_mean", "std_mean", "linalg_vector_norm", "norm"),
}
_PRODUCTS = {"mm": "self", "bmm": "self", "addmm": "mat1", "baddbmm": "batch1"}  # the factor on the left
_MIXING = ("mm", "attention", "dot", "cdist")  # their axes are no longer those of what they take in
_RESAMPLING = ("convolution", "_pool", "upsample_", "conv2d", "conv1d", "conv3d", "pixel_shuffle", "pixel_unshuffle")


class Shrink(NamedTuple):
    """A map that became smaller without a stride, and the sizes of its spatial axes before and after."""

    source: Value
    result: Value
    before: tuple[int, ...]
    after: tuple[int, ...]


class _Piece(NamedTuple):
    """What was taken out of a map along one of its axes: the pixels [start, stop)."""

    whole: Value
    axis: int
    start: int
    stop: int


class Grids:
    """The spatial axes of the values of a trace, and what makes maps smaller without a stride."""

    def __init__(self, trace: Trace) -> None:
        self.axes: dict[Value, Axes] = {}  # of each value that is a map, or part of one
        self.shrinks: dict[Node, Shrink] = {}
        self._finer: dict[Value, Form] = {}  # by a value with merged axes: its form before
        self._origins: dict[Value, Value] = {}  # by blocks: the map that was cut; by a spectrum: itself
        self._transformed: dict[Value, Value] = {}  # by a spectrum: the map that it is of
        self._pieces: dict[Value, _Piece] = {}
        for node in trace.nodes:
            self._follow(node)

    def places(self, value: Value) -> list[int] | None:
        """Where the spatial axes of a map are, in their order; None where `value` is not known to be one."""
        if value not in self.axes:
            return None
        found = {axis: position for position, axis in enumerate(self.axes[value]) if 0 < axis < FLAT}
        return [found[axis] for axis in sorted(found)]

    def size(self, value: Value) -> tuple[int, ...] | None:
        """The pixels of a map along its spatial axes, in their order; None where `value` is no map."""
        return tuple(value.shape[position] for position in self.places(value) or ()) or None

    def is_whole(self, value: Value) -> bool:
        """Whether `value` is a map with all its spatial axes, none of them cut into blocks or merged."""
        return all(0 <= axis < FLAT for axis in self.axes.get(value, ())) and self.size(value) is not None

    def _follow(self, node: Node) -> None:
        if node.op == BLUR or any(name in node.op for name in _RESAMPLING):
            self._begin(node)
            return
        known = [value for value in node.inputs if value in self.axes or value in self._finer]
        if not known:
            return
        source = next((value for value in known if value in self.axes), known[0])
        for output in node.outputs:
            form = self._form_behind(node, source, output)
            if form is not None and (any(form.axes) or _is_crop(node)):  # single pixels may come together again
                self._note(output, form)
                self._compare(node, source, output)
        self._note_pieces(node, source)
        self._compare_picked(node, source)

    def _begin(self, node: Node) -> None:
        source = node.inputs[0].shape
        spatial = _spatial_axes(node)
        for output in node.outputs[:1]:
            if len(output.shape) > spatial:
                self.axes[output] = (*(0,) * (len(output.shape) - spatial), *range(1, spatial + 1))
            named = node.op == "convolution" or "_pool" in node.op or not node.op.endswith(("conv2d", "conv1d"))
            if not named and node.op != BLUR and len(source) == len(output.shape):
                before, after = source[-spatial:], output.shape[-spatial:]
                if any(new * 1.5 <= old for old, new in zip(before, after, strict=True)):  # only its kernel knows why
                    self.shrinks[node] = Shrink(node.inputs[0], output, before, after)

    # The axes of what an operation returns ----------------------------------------------------------------------------

    def _note(self, value: Value, form: Form) -> None:
        axes = form.axes if form.shape == value.shape else reshaped(*form, value.shape)
        if axes is not None:
            self.axes[value] = axes
        if form.shape != value.shape:
            self._finer[value] = form

    def _form(self, value: Value) -> Form:
        return Form(value.shape, self.axes[value]) if value in self.axes else self._finer[value]

    def _form_behind(self, node: Node, source: Value, output: Value) -> Form | None:
        op, finest = _name(node), self._finer.get(source) or self._form(source)
        if op in _PRODUCTS:
            factor = node.settings[_PRODUCTS[op]]
            # a product of two activations, as in attention, is no sum of a map's pixels with fixed weights
            return multiplied(finest, source.shape, factor == source.shape, output.shape) if _is_fixed(node) else None
        if op in VIEWS:
            if merges(finest.shape, output.shape):
                return finest
            axes = reshaped(*self._form(source), output.shape)
        elif source in self.axes:
            axes = self._axes_behind(node, source, output)
        else:
            return finest if op in _COPIES or (node.pointwise and source.shape == output.shape) else None
        return None if axes is None else Form(output.shape, axes)

    def _axes_behind(self, node: Node, source: Value, output: Value) -> Axes | None:
        form, op = self._form(source), _name(node)
        axes = form.axes
        if op == "stack" and (pieces := self._pieces_of_one(node)):
            return inserted(node.settings, form, pieces[0].axis)
        if op == "unsqueeze" and source in self._pieces:
            return inserted(node.settings, form, self._pieces[source].axis)
        if op in MOVES:
            return MOVES[op](node.settings, form)
        if op in _REDUCTIONS:
            return reduced(node.settings, form, len(output.shape))
        if any(name in op for name in _MIXING):
            return None
        if node.pointwise or (op == "expand" and len(axes) != len(output.shape)):
            return self._broadcast(node, output)
        if len(axes) != len(output.shape):
            return None
        if FLAT in axes:
            old, new = (value.shape[axes.index(FLAT)] for value in (source, output))
            # a few of many flattened pixels, and those that data pick, are coordinates or scores, no map
            if new < old and not _takes_fixed(node) and not (_is_crop(node) and 2 * new >= old):
                return tuple(0 if axis == FLAT else axis for axis in axes)
        return axes

    def _broadcast(self, node: Node, output: Value) -> Axes:
        """The axes of an operation that works pixel by pixel: those of its largest map, aligned at the last axis."""
        largest = max((value for value in node.inputs if value in self.axes), key=lambda value: prod(value.shape))
        axes = [0] * len(output.shape)
        for position, axis in enumerate(reversed(self.axes[largest]), start=1):
            if axis and largest.shape[-position] == output.shape[-position]:
                axes[-position] = axis
        return tuple(axes)

    # What makes a map smaller -----------------------------------------------------------------------------------------

    def _compare(self, node: Node, source: Value, output: Value) -> None:
        """Note where a map became smaller other than by cropping it; what is cut into blocks or transformed waits."""
        origin, transforms = self._origins.get(source), node.op.startswith("_fft_")
        inverts = transforms and not node.settings.get("forward", node.op != "_fft_c2r")
        if self._form(output).is_split or is_stepped_further(node):
            self._origins[output] = origin or source
        elif transforms and not inverts and origin is None:
            self._origins[output], self._transformed[output] = output, source
        elif origin is not None and output.dtype.is_complex and not inverts and not output.returned:
            self._origins[output] = origin
        elif origin is not None:
            self._note_shrink(node, self._transformed.get(origin, origin) if inverts else origin, output)
        elif _name(node) in ("stack", "cat"):
            pieces = self._pieces_of_one(node)
            taken = {pixel for piece in pieces for pixel in range(piece.start, piece.stop)}
            if pieces and len(taken) <= max(taken) - min(taken):  # pixels in between are left out
                self._note_shrink(node, pieces[0].whole, output)
        elif not (_is_crop(node) or transforms or node.op in ("unfold", DOUBLE, HALVE)):  # whose step is known
            self._note_shrink(node, source, output)

    def _note_shrink(self, node: Node, source: Value, output: Value) -> None:
        before, after = self._form(source).pixels, self._form(output).pixels
        if before.keys() == after.keys() and any(after[axis] < before[axis] for axis in before):
            sizes = (tuple(pixels[axis] for axis in sorted(before)) for pixels in (before, after))
            self.shrinks[node] = Shrink(source, output, *sizes)

    def _compare_picked(self, node: Node, source: Value) -> None:
        """Note where fixed pixels are picked from a map by their place among all of its elements."""
        output, pixels = node.outputs[0], prod(self._form(source).pixels.values())
        flattened = len(source.shape) == 1 or _name(node) in ("take", "masked_select")
        if output in self.axes or not (flattened and _takes_fixed(node)) or _name(node) == "slice":
            return
        left = pixels * prod(output.shape) // prod(source.shape)
        if 1 < left < pixels:
            self.shrinks[node] = Shrink(source, output, (pixels,), (left,))

    def _note_pieces(self, node: Node, source: Value) -> None:
        """Note what a crop took out of a map, so that pieces that are put together again are known."""
        if _name(node) == "unsqueeze" and source in self._pieces:
            self._pieces[node.outputs[0]] = self._pieces[source]
        if not _is_crop(node) or "dim" not in node.settings or source not in self.axes:
            return
        position, start = node.settings["dim"] % len(source.shape), 0
        axis, length = self.axes[source][position], source.shape[position]
        if _name(node) == "select":
            start = node.settings["index"] % length
        elif _name(node) == "slice":
            start = slice(node.settings["start"], node.settings["end"]).indices(length)[0]
        for output in node.outputs:
            stop = start + (output.shape[position] if len(output.shape) == len(source.shape) else 1)
            if axis > 0:
                self._pieces[output] = _Piece(source, axis, start, stop)
            start = stop

    def _pieces_of_one(self, node: Node) -> list[_Piece]:
        """What `node` puts together, where all of it was cut out of one map along the axis that it is to make."""
        pieces = [self._pieces.get(value) for value in node.inputs]
        first = pieces[0]
        if first is None or any(one is None or (one.whole, one.axis) != (first.whole, first.axis) for one in pieces):
            return []
        if _name(node) == "cat" and self.axes[node.inputs[0]][node.settings["dim"]] != first.axis:
            return []
        return [one for one in pieces if one is not None]


def _name(node: Node) -> str:
    """The operation; one that copies its result goes by the name of the one that returns a view."""
    return node.op.removesuffix("_copy")


def _is_fixed(node: Node) -> bool:
    """Whether all that a map meets in `node` is constant, so that the data have no say in it."""
    return len(node.inputs) == 1


def step_of(node: Node) -> int:
    """The step of a slice; 1 for any other operation."""
    return int(node.settings.get("step", 1)) if _name(node) == "slice" else 1


def is_stepped_further(node: Node) -> bool:
    """Whether a slice with a step is part of a longer one: x[::2, ::2] takes steps along one axis after the other."""
    result = node.outputs[0]
    steps = [step_of(reader) for reader in result.consumers]
    return step_of(node) > 1 and not result.returned and min(steps, default=1) > 1


def _is_crop(node: Node) -> bool:
    return _name(node) in _CROPS and step_of(node) == 1


def _takes_fixed(node: Node) -> bool:
    """Whether an operation takes pixels that the data have no say in."""
    return _is_fixed(node) and (_name(node) in _PICKS or step_of(node) > 1)


def _spatial_axes(node: Node) -> int:
    weight = node.settings.get("weight")
    if node.op == "convolution" and weight is not None:
        return len(weight) - 2
    digits = [int(one) for one, unit in zip(node.op, node.op[1:], strict=False) if one in "123" and unit == "d"]
    return digits[0] if digits else len(node.inputs[0].shape) - 2
