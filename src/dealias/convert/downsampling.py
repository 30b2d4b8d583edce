"""Find the downsampling sites of a recorded network: which operations subsample, and which layers they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

from torch import nn

from dealias.convert.grids import VIEWS, Grids, Shrink, is_stepped_further, step_of
from dealias.convert.trace import BLUR, Call, Node, Trace, Value
from dealias.convert.windows import Window, layer_classes, per_axis

Status: TypeAlias = Literal["placed", "left alone", "not placed"]


@dataclass(frozen=True)
class Site:
    """A place where a network subsamples: one call of one layer or function; or one of the places named last.

    Args:
        kind: "conv", "max_pool", "avg_pool", "lp_pool", "adaptive_pool", "interpolate", "slice", "unfold",
            "pixel_unshuffle" or "unknown" (an operation that makes a map smaller in another way); "blur" where the
            network is anti-aliased already; "conv_transpose", "upsample" or "pixel_shuffle" where the map grows;
            "nonlinearity" with `method="alias-free"`, an activation, a norm over channels or a maximum at stride 1.
        path: of the layer, as in `model.get_submodule(path)`; "" for a function, or where the layer is the model.
        stride: for each spatial axis; input size over output size, rounded, where the site has no stride of its own
            (the other way round where the map grows).
        input_size: pixels on each spatial axis, for the example input; empty where the layer was not reached.
        output_size: the same, of what the site returns.
        status: "placed" (`antialias` blurs here), "left alone" (on purpose), or "not placed" (it cannot be).
        action: what `antialias` does, if it does anything.
        reason: why it does nothing.
    """

    kind: str
    path: str
    stride: tuple[int, ...]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    status: Status
    action: str | None = None
    reason: str | None = None

    @property
    def placed(self) -> bool:
        """Whether `antialias` puts a blur here."""
        return self.status == "placed"


@dataclass(frozen=True, eq=False)
class Spot:
    """An operation that subsamples; `call` is the call of its layer, or None for a function."""

    kind: str
    node: Node
    call: Call | None
    stride: tuple[int, ...]
    source: Value  # what is subsampled
    result: Value
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]

    @property
    def window(self) -> Window:
        """The arguments by which a call is told from others."""
        if self.call is None and self.node.window is not None and self.node.window.kind not in ("conv", "avg_pool"):
            return self.node.window
        return Window.of(self.kind, len(self.stride), self.node.settings)

    def site(self, status: Status, text: str) -> Site:
        """The site of this operation; `text` is the action where one is placed, else the reason why none is."""
        action, reason = (text, None) if status == "placed" else (None, text)
        path = (self.call and self.call.path) or ""
        return Site(self.kind, path, self.stride, self.input_size, self.output_size, status, action, reason)

    @cached_property
    def dense_size(self) -> tuple[int, ...]:
        """The size of the map that a convolution or pooling without ceil_mode would return at stride 1."""
        settings, spatial = self.node.settings, len(self.stride)
        kernel = Window.of(self.kind, spatial, settings).kernel
        padding, dilation = per_axis(settings["padding"], spatial), per_axis(settings.get("dilation", 1), spatial)
        axes = zip(self.node.inputs[0].shape[-spatial:], kernel, padding, dilation, strict=True)
        return tuple(size + 2 * pads - gaps * (taps - 1) for size, taps, pads, gaps in axes)


_STRIDED = {"conv": "Conv", "max_pool": "MaxPool", "avg_pool": "AvgPool", "lp_pool": "LPPool"}
_LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    **{kind: layer_classes(name) for kind, name in _STRIDED.items()},
    "adaptive_pool": layer_classes("AdaptiveAvgPool", "AdaptiveMaxPool", "FractionalMaxPool"),
    "interpolate": (nn.Upsample,),
    "pixel_unshuffle": (nn.PixelUnshuffle,),
    "unfold": (nn.Unfold,),
    "conv_transpose": layer_classes("ConvTranspose"),
    "upsample": (nn.Upsample,),
    "pixel_shuffle": (nn.PixelShuffle,),
    "blur": (nn.Module,),
}
_OPERATIONS: dict[str, tuple[str, ...]] = {
    "conv": ("convolution",),
    "max_pool": ("max_pool2d_with_indices", "max_pool3d_with_indices"),
    "avg_pool": ("avg_pool2d", "avg_pool3d"),
    "adaptive_pool": (
        *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
        *("fractional_max_pool2d", "fractional_max_pool3d"),
    ),
    "pixel_unshuffle": ("pixel_unshuffle", *VIEWS),
    "pixel_shuffle": ("pixel_shuffle",),
    "unfold": ("im2col", "unfold"),
    "slice": ("slice",),
    "blur": (BLUR,),
}
_KINDS = {operation: kind for kind, operations in _OPERATIONS.items() for operation in operations}
GROWING = ("conv_transpose", "upsample", "pixel_shuffle")
"""The kinds of sites where the map grows: nothing is subsampled there."""
NONLINEARITY = "nonlinearity"
"""The kind of a site where `method="alias-free"` evaluates something at twice the rate."""


def find_downsampling(trace: Trace) -> tuple[list[Spot], Grids]:
    """Every operation of `trace` that changes the resolution, in order, and the spatial axes of its maps."""
    grids, spots = Grids(trace), []
    for node in trace.nodes:
        kind = _kind(node)
        spot = _SPOTTERS.get(kind, _resized)(kind, node, grids) if kind is not None and node.outputs else None
        if spot is None and node in grids.shrinks:
            spot = _shrunk(node, grids.shrinks[node])
        if spot is not None:
            spots.append(spot)
    return spots, grids


def _kind(node: Node) -> str | None:
    if "upsample_" in node.op:
        sizes = zip(node.inputs[0].shape[2:], node.outputs[0].shape[2:], strict=True)
        return "interpolate" if any(new < old for old, new in sizes) else "upsample"
    if node.op == "convolution" and node.settings.get("transposed"):
        return "conv_transpose"
    kind = _KINDS.get(node.op)
    if kind == "avg_pool" and (_layer_call("lp_pool", node) or (node.window and node.window.kind == "lp_pool")):
        return "lp_pool"
    return kind


def _shrunk(node: Node, shrink: Shrink) -> Spot:
    """A map that became smaller without a stride: blocks of pixels made channels, or something unknown."""
    stride = tuple(max(round(old / new), 1) for old, new in zip(shrink.before, shrink.after, strict=True))
    return Spot("pixel_unshuffle" if node.op in VIEWS else "unknown", node, None, stride, *shrink)


def _layer_call(kind: str, node: Node) -> Call | None:
    """The call of the layer that `node` is the work of; None for a function, or a layer that is not registered."""
    call = node.call
    return call if call.path is not None and isinstance(call.module, _LAYERS[kind]) else None


def _ends(kind: str, node: Node) -> tuple[Call | None, Value, Value]:
    """The layer's call, input and output; not those of the operation where PyTorch runs a 1-D layer on a 2-D map."""
    call = _layer_call(kind, node)
    source, result = node.inputs[0], node.outputs[0]
    return call, (call and call.input) or source, (call and call.output) or result


def _sizes(source: Value, result: Value) -> list[tuple[int, int]]:
    """The pixels before and after along each spatial axis."""
    axes = max(len(source.shape) - 2, 1)
    return list(zip(source.shape[-axes:], result.shape[-axes:], strict=True))


def _strided(kind: str, node: Node, grids: Grids) -> Spot | None:
    """A convolution or a pooling: it has a stride."""
    call, source, result = _ends(kind, node)
    steps = node.settings.get("stride") or node.settings["kernel_size"]
    if call is not None:
        stride = per_axis(getattr(call.module, "stride", None) or steps, _axes_of(call.module))
    else:
        is_1d = node.window is None or len(node.window.stride) == 1
        unsqueezed = source.producer is not None and source.producer.op == "unsqueeze" and source.shape[-2] == 1
        stride = tuple(steps[1:] if is_1d and unsqueezed else steps)
    return _spot(kind, node, call, stride, source, result) if max(stride) > 1 else None


def _blurred(kind: str, node: Node, grids: Grids) -> Spot | None:
    """A blur, ours or another's: a site if the map becomes smaller."""
    source, result = node.inputs[0], node.outputs[0]
    stride = tuple(max(-(-old // new), 1) for old, new in _sizes(source, result))
    return _spot(kind, node, _layer_call(kind, node), stride, source, result) if max(stride) > 1 else None


def _resized(kind: str, node: Node, grids: Grids) -> Spot | None:
    """A resampling to a given size: a site if the map becomes smaller, or larger, but not to or from a single pixel."""
    call, source, result = _ends(kind, node)
    sizes = _sizes(source, result)
    if kind in GROWING:
        sizes = [(new, old) for old, new in sizes]
        changes = any(1 < coarse < fine for fine, coarse in sizes)
    else:
        changes = any(coarse < fine for fine, coarse in sizes) and any(coarse > 1 for _, coarse in sizes)
    stride = tuple(max(round(fine / coarse), 1) for fine, coarse in sizes)
    return _spot(kind, node, call, stride, source, result) if changes else None


def _sliced(kind: str, node: Node, grids: Grids) -> Spot | None:
    """Strided slicing of pixels, e.g. x[:, :, ::2, ::2]: its last slice stands for it."""
    if step_of(node) == 1 or is_stepped_further(node):
        return None
    source, steps = node.inputs[0], {node.settings["dim"] % len(node.inputs[0].shape): step_of(node)}
    while (earlier := source.producer) is not None and earlier.op == "slice":
        if step_of(earlier) > 1 and not is_stepped_further(earlier):  # a site of its own
            break
        axis = earlier.settings["dim"] % len(source.shape)
        steps[axis] = steps.get(axis, 1) * step_of(earlier)
        source = earlier.inputs[0]
    axes = sorted(axis for axis, step in steps.items() if step > 1)
    pixels = grids.places(source)
    if pixels is None:
        last = len(source.shape) - 1
        # x[..., ::2] alone is how rotary embeddings take channels apart, and coordinates of boxes
        apart = axes == [last] and (last > 2 or source.producer is not None)
        if len(source.shape) < 3 or 0 in axes or apart or axes == [1]:
            return None
        first = 1 if 1 in axes else 2  # channels last, or first
        pixels = list(range(first, max(len(source.shape) - (2 - first), first + 1)))
    if not set(axes) <= set(pixels):
        return None
    stride = tuple(steps.get(axis, 1) for axis in pixels)
    return _spot(kind, node, None, stride, source, node.outputs[0], pixels)


def _unfolded(kind: str, node: Node, grids: Grids) -> Spot | None:
    """Windows of pixels at a stride, as `torch.nn.Unfold` takes them, or of one axis, as `Tensor.unfold` does."""
    if node.op == "unfold":
        return _unfolded_axis(node, grids)
    stride = tuple(node.settings["stride"])
    if max(stride) == 1:
        return None
    source, call = node.inputs[0], _layer_call(kind, node)
    size = source.shape[-2:]
    reach = zip(size, node.settings["kernel_size"], node.settings["padding"], node.settings["dilation"], strict=True)
    dense = [pixels + 2 * padding - dilation * (taps - 1) for pixels, taps, padding, dilation in reach]
    output = tuple(-(-pixels // step) for pixels, step in zip(dense, stride, strict=True))
    return None if set(output) == {1} else Spot(kind, node, call, stride, source, node.outputs[0], size, output)


def _unfolded_axis(node: Node, grids: Grids) -> Spot | None:
    source, result, step = node.inputs[0], node.outputs[0], int(node.settings["step"])
    axis = node.settings["dimension"] % max(len(source.shape), 1)
    pixels = grids.places(source)
    if pixels is None:
        pixels = list(range(2, len(source.shape)))
    if step == 1 or axis not in pixels or result.shape[axis] == 1:
        return None
    stride = tuple(step if position == axis else 1 for position in pixels)
    return _spot("unfold", node, None, stride, source, result, pixels)


def _unshuffled(kind: str, node: Node, grids: Grids) -> Spot | None:
    """Blocks of pixels made channels: `pixel_unshuffle`, or the views that Swin's patch merging is made of."""
    if node.op == "pixel_unshuffle":
        return _resized(kind, node, grids)
    moved = node.inputs[0]
    while moved.producer is not None and moved.producer.op in ("clone", "contiguous"):
        moved = moved.producer.inputs[0]
    if moved in grids.axes:  # what is known needs no guess
        return None
    permute = moved.producer
    split = permute.inputs[0].producer if permute is not None and permute.op == "permute" else None
    if permute is None or split is None or split.op not in VIEWS or len(moved.shape) != 6:
        return None
    source, shape = split.inputs[0], permute.inputs[0].shape
    if len(source.shape) != 4:
        return None
    for first in (1, 2):  # channels last, or first
        batch, spatial = shape[:first], shape[first : first + 4]
        size = source.shape[first : first + 2]
        if (spatial[0] * spatial[1], spatial[2] * spatial[3]) != size or batch != source.shape[:first]:
            continue
        stride, channels = (spatial[1], spatial[3]), source.shape[3 if first == 1 else 1]
        blocks = channels * stride[0] * stride[1]
        made = node.outputs[0].shape
        if max(stride) > 1 and blocks in (made[-1], made[1]) and made[0] == source.shape[0]:
            return Spot(kind, node, None, stride, source, node.outputs[0], size, (spatial[0], spatial[2]))
    return None


def _spot(
    kind: str,
    node: Node,
    call: Call | None,
    stride: tuple[int, ...],
    source: Value,
    result: Value,
    pixels: Sequence[int] = (),
) -> Spot:
    """A spot whose spatial axes are `pixels`, the last ones by default."""
    axes = pixels or range(-len(stride), 0)
    before, after = (tuple(value.shape[axis] for axis in axes) for value in (source, result))
    return Spot(kind, node, call, stride, source, result, before, after)


_SPOTTERS: dict[str, Callable[[str, Node, Grids], Spot | None]] = {
    **dict.fromkeys(_STRIDED, _strided),
    "blur": _blurred,
    "slice": _sliced,
    "unfold": _unfolded,
    "pixel_unshuffle": _unshuffled,
}


def _axes_of(module: nn.Module) -> int:
    """How many spatial axes a layer with a stride has."""
    return next(axes for kind in _STRIDED for axes, one in enumerate(_LAYERS[kind], 1) if isinstance(module, one))


def unreached_layers(trace: Trace, model: nn.Module) -> Iterator[Site]:
    """The layers that would subsample, but that the recorded pass did not call."""
    called = {call.module for call in trace.calls}
    reason = "example_input does not reach this layer by a call, so nothing is known of what follows it"
    for path, module in model.named_modules():
        for kind in _STRIDED:
            if isinstance(module, _LAYERS[kind]) and module not in called:
                stride = per_axis(cast(Any, module).stride, _axes_of(module))
                if max(stride) > 1:
                    yield Site(kind, path, stride, (), (), "not placed", reason=reason)
