"""What in a trace hinders exact shift-invariance: where the answer depends on the place of a pixel, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dealias.convert.axes import FLAT
from dealias.convert.circular import Wrapped
from dealias.convert.downsampling import Spot
from dealias.convert.fractions import Aliasing, filters_ideally
from dealias.convert.frames import Coverage, Maps, subsamples
from dealias.convert.grids import VIEWS
from dealias.convert.placement import enclosing
from dealias.convert.trace import HALVE, Node, Value

_WRAP = "use dealias.to_circular(model), and train it so"
_ANCHOR = 'use dealias.antialias(model, example_input, method="polyphase")'
_MOST_NAMES = 6
_PADDING = {
    "constant_pad_nd": "with a constant",
    "reflection_pad": "by reflection",
    "replication_pad": "by replication",
}
_PRODUCTS = ("mm", "addmm", "bmm", "linear")
_CLAMPING = ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")


class Reason(NamedTuple):
    """Why shifts change an answer: the cause, the layer, and what to do."""

    cause: str
    place: str
    cure: str


def reasons_of(maps: Maps, fractional: bool = False) -> list[Reason]:
    """Why shifts may change what a network returns, whatever its weights are, in the order of its layers.

    With `fractional` also shifts by a part of a pixel, for which no anchor is of help.
    """
    coverage = Coverage(maps)
    found: list[Reason] = []
    aliasing: dict[Node, list[Reason]] = {}
    for node, cause, cure in Aliasing(maps, coverage.uncovered, fractional).found():
        aliasing.setdefault(node, []).append(Reason(cause, _name(node), cure))
    for node in maps.trace.nodes:
        spot = maps.spots.get(node)
        if spot is not None and subsamples(spot):
            found += _undivided(spot)
            if spot in coverage.uncovered and not (fractional or filters_ideally(spot)):
                found.append(Reason("no anchor in front of", _name(node), _ANCHOR))
        found += aliasing.get(node, [])
        if node in coverage.parted:
            found.append(_branches(node, coverage.parted[node]))
        found += [*_padding(node), *_flattened(node, maps), *_positions(node, maps)]
    return found


def doubts_of(maps: Maps) -> list[Reason]:
    """What else may be the cause where shifts do change the answer."""
    found = []
    for node, sources, results in maps.steps():
        strided = node.op == "convolution" and not node.settings.get("transposed")
        if not (strided or "_pool" in node.op) or "adaptive" in node.op:
            continue
        spot, output = maps.spots.get(node), (results or node.outputs)[0]
        before, after = (maps.grids.size(value) or value.shape[2:] for value in (sources[0], output))
        stride = spot.stride if spot is not None else (1,) * len(after)
        sizes = list(zip(before, after, stride, strict=False))
        if set(after) != {1} and any(m != n * s and m % s == 0 for m, n, s in sizes):
            cause = f"a border that is cut off or added ({_size(before)} to {_size(after)} pixels) in"
            found.append(Reason(cause, _name(node), "give it the padding that its kernel asks for"))
    return found


def listed(reasons: Sequence[Reason]) -> list[str]:
    """A line for each cause, with the layers that share it."""
    places: dict[tuple[str, str], list[str]] = {}
    for cause, place, cure in reasons:
        places.setdefault((cause, cure), []).append(place)
    lines = []
    for (cause, cure), found in places.items():
        names = list(dict.fromkeys(found))
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        lines.append(f"{cause} {', '.join(names[:_MOST_NAMES])}{more}: {cure}")
    return lines


def _name(node: Node) -> str:
    """The layer that runs `node`, or the operation and the module whose forward runs it."""
    call = next((call for call in enclosing(node) if call.path is not None), None)
    kind = node.op.removesuffix("_with_indices")
    if call is None:
        return f"a {kind}"
    own = [name for name in call.module._modules if not name.startswith("antialias_")]
    path = (call.path or "").partition("antialias_")[0].strip(".") if node.op == HALVE else call.path
    where = f"`{path}`" if path else "the model"
    return where if path and (not own or node.op == HALVE) else f"{kind} in {where}"


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _undivided(spot: Spot) -> Iterator[Reason]:
    if any(size % step for size, step in zip(spot.input_size, spot.stride, strict=True)):
        stride = spot.stride[0] if len(set(spot.stride)) == 1 else spot.stride
        cause = f"a map of {_size(spot.input_size)} pixels, which the stride {stride} does not divide, at"
        yield Reason(cause, _name(spot.node), "use an input whose size the total stride divides")


def _branches(node: Node, maps: tuple[Value, Value]) -> Reason:
    made = [_name(value.producer) if value.producer is not None else "the input" for value in maps]
    cause = f"branches that part: what {made[0]} and {made[1]} return comes from different anchors, and meets in"
    return Reason(cause, _name(node), "put one anchor in front of both, or undo what one of them has rolled")


def _padding(node: Node) -> Iterator[Reason]:
    """Borders that do not wrap around."""
    settings, name = node.settings, _name(node)
    if isinstance(node.call.module, Wrapped):
        return
    pads = settings.get("pad", settings.get("padding")) or ()
    for op, how in _PADDING.items():
        if node.op.startswith(op) and any(one > 0 for one in pads):
            yield Reason(f"padding {how} in", name, _WRAP)
    if node.op == "convolution" and settings.get("transposed"):
        steps = zip(settings["weight"][2:], settings["stride"], strict=True)
        if any(settings["padding"]) or any(taps > step for taps, step in steps):
            yield Reason("what reaches over the border is cut off in", name, _WRAP)
    elif node.op == "convolution" or "_pool" in node.op:
        if any([pads] if isinstance(pads, int) else pads):
            what = "zeros" if node.op == "convolution" or "avg" in node.op else "-inf"
            yield Reason(f"padding with {what} in", name, _WRAP)
        elif settings.get("ceil_mode") and _overhangs(node):
            yield Reason("windows that reach over the border (ceil_mode) in", name, _WRAP)
    elif node.op.removesuffix("_aa").endswith(_CLAMPING) and "upsample" in node.op:
        yield Reason("a resampling that repeats the border of its map in", name, f"{_WRAP}; or take mode='nearest'")


def _overhangs(node: Node) -> bool:
    kernel = node.settings["kernel_size"]
    stride = node.settings.get("stride") or kernel
    axes = len(kernel)
    sizes = zip(node.inputs[0].shape[-axes:], node.outputs[0].shape[-axes:], kernel, stride, strict=True)
    return any((after - 1) * step + taps > before for before, after, taps, step in sizes)


def _flattened(node: Node, maps: Maps) -> Iterator[Reason]:
    if node.op not in _PRODUCTS:
        return
    for value in node.inputs:
        view = value.producer
        while view is not None and view.op in ("clone", "t", "detach", "_to_copy", "native_dropout"):
            view = view.inputs[0].producer
        if view is None or view.op not in VIEWS or view.inputs[0] not in maps:
            continue
        flat = view.outputs[0]
        if flat not in maps and FLAT not in maps.grids.axes.get(flat, ()):
            size = maps.grids.size(view.inputs[0]) or view.inputs[0].shape[2:]
            cause = f"a map of {_size(size)} pixels, flattened in front of"
            yield Reason(cause, _name(node), "pool it globally in front")


def _positions(node: Node, maps: Maps) -> Iterator[Reason]:
    """Constants with a value of its own for each pixel, such as a position embedding."""
    if not node.inputs or not (node.pointwise or node.op == "native_layer_norm"):
        return
    source = node.inputs[0]
    axes = maps.grids.axes.get(source) or ((0, 0, *range(1, len(source.shape) - 1)) if source in maps.early else ())
    spatial = [position - len(axes) for position, axis in enumerate(axes) if axis > 0 and source.shape[position] > 1]
    if node.reads_constant(spatial):
        yield Reason("a value for each place, as in a position embedding, in", _name(node), "leave it out")
