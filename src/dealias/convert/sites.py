"""Find the downsampling sites of a recorded network: which operations subsample, and which layers they belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import nn

from dealias.convert.edits import spatial_axes
from dealias.convert.trace import BLUR, Call, Node, Trace, Value

Status: TypeAlias = Literal["placed", "left alone", "not placed"]


@dataclass(frozen=True)
class Site:
    """A place where a network subsamples: one call of one layer or function.

    Args:
        kind: "conv", "max_pool", "avg_pool", "adaptive_pool", "interpolate", "slice", "pixel_unshuffle", or "blur"
            where the network is anti-aliased already.
        path: of the layer, as in `model.get_submodule(path)`; "" for a function, or where the layer is the model.
        stride: for each spatial axis; input size over output size, rounded, where the site has no stride of its own.
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


@dataclass(frozen=True)
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


_LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "max_pool": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    "avg_pool": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    "adaptive_pool": (
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveAvgPool3d,
        nn.AdaptiveMaxPool1d,
        nn.AdaptiveMaxPool2d,
        nn.AdaptiveMaxPool3d,
        nn.FractionalMaxPool2d,
        nn.FractionalMaxPool3d,
    ),
    "interpolate": (nn.Upsample,),
    "pixel_unshuffle": (nn.PixelUnshuffle,),
    "slice": (),
    "blur": (nn.Module,),
}
_KINDS = {
    "convolution": "conv",
    "max_pool2d_with_indices": "max_pool",
    "max_pool3d_with_indices": "max_pool",
    "avg_pool2d": "avg_pool",
    "avg_pool3d": "avg_pool",
    "_adaptive_avg_pool2d": "adaptive_pool",
    "_adaptive_avg_pool3d": "adaptive_pool",
    "adaptive_max_pool2d": "adaptive_pool",
    "adaptive_max_pool3d": "adaptive_pool",
    "fractional_max_pool2d": "adaptive_pool",
    "fractional_max_pool3d": "adaptive_pool",
    "pixel_unshuffle": "pixel_unshuffle",
    "slice": "slice",
    BLUR: "blur",
}


def find_spots(trace: Trace) -> list[Spot]:
    """Every operation of `trace` that subsamples, in order."""
    spots = []
    for node in trace.nodes:
        kind = "interpolate" if "upsample_" in node.op else _KINDS.get(node.op)
        if kind is None or not node.outputs:
            continue
        spot = _SPOTTERS.get(kind, _resized)(kind, node)
        if spot is not None:
            spots.append(spot)
    return spots


def layer_call(kind: str, node: Node) -> Call | None:
    """The call of the layer that `node` is the work of; None for a function, or a layer that is not registered."""
    call = node.call
    return call if call.path is not None and isinstance(call.module, _LAYERS[kind]) else None


def _strided(kind: str, node: Node) -> Spot | None:
    """A convolution, a pooling or a blur: it has a stride."""
    call = layer_call(kind, node)
    source, result = node.inputs[0], node.outputs[0]
    steps = node.settings.get("stride") or node.settings["kernel_size"]
    if node.settings.get("transposed"):
        return None
    if call is not None:  # the layer knows its axes: PyTorch runs some 1-D layers on 2-D maps
        source, result = call.input or source, call.output or result
        steps = getattr(call.module, "stride", steps)
    elif source.producer is not None and source.producer.op == "unsqueeze" and source.shape[-2] == 1:
        steps = list(steps)[1:]
    spatial = spatial_axes(call.module) if call is not None and kind != "blur" else None
    stride = _per_axis(steps, spatial or len(source.shape) - 2)
    return _spot(kind, node, call, stride, source, result) if max(stride) > 1 else None


def _per_axis(steps: Any, spatial: int) -> tuple[int, ...]:
    return (steps,) * spatial if isinstance(steps, int) else tuple(steps)


def _resized(kind: str, node: Node) -> Spot | None:
    """A resampling to a given size: a site if the map becomes smaller, but not a single pixel."""
    call = layer_call(kind, node)
    source, result = node.inputs[0], node.outputs[0]
    if call is not None:
        source, result = call.input or source, call.output or result
    axes = max(len(source.shape) - 2, 1)
    sizes = list(zip(source.shape[-axes:], result.shape[-axes:], strict=True))
    if all(new == 1 for _, new in sizes) or not any(new < old for old, new in sizes):
        return None
    stride = tuple(max(round(old / new), 1) for old, new in sizes)
    return _spot(kind, node, call, stride, source, result)


def _sliced(kind: str, node: Node) -> Spot | None:
    """Strided slicing of pixels, e.g. x[:, :, ::2, ::2]: its last slice stands for it."""
    if any(_step(consumer) > 1 for consumer in node.outputs[0].consumers) or _step(node) == 1:
        return None
    source, steps = node.inputs[0], {node.settings["dim"] % len(node.inputs[0].shape): _step(node)}
    while source.producer is not None and source.producer.op == "slice":
        steps[source.producer.settings["dim"] % len(source.shape)] = _step(source.producer)
        source = source.producer.inputs[0]
    axes = sorted(axis for axis, step in steps.items() if step > 1)
    last = len(source.shape) - 1
    # x[..., ::2] alone is how rotary embeddings take channels apart
    if len(source.shape) < 3 or 0 in axes or (axes == [last] and last > 2) or axes == [1]:
        return None
    first = 1 if 1 in axes else 2  # channels last, or first
    spatial = range(first, max(len(source.shape) - (2 - first), first + 1))
    return Spot(
        kind,
        node,
        None,
        tuple(steps.get(axis, 1) for axis in spatial),
        source,
        node.outputs[0],
        tuple(source.shape[axis] for axis in spatial),
        tuple(node.outputs[0].shape[axis] for axis in spatial),
    )


def _step(node: Node) -> int:
    return int(node.settings.get("step", 1)) if node.op == "slice" else 1


def _spot(kind: str, node: Node, call: Call | None, stride: tuple[int, ...], source: Value, result: Value) -> Spot:
    axes = len(stride)
    return Spot(kind, node, call, stride, source, result, source.shape[-axes:], result.shape[-axes:])


_SPOTTERS: dict[str, Callable[[str, Node], Spot | None]] = {
    "conv": _strided,
    "max_pool": _strided,
    "avg_pool": _strided,
    "blur": _strided,
    "slice": _sliced,
}


def unreached_layers(trace: Trace, model: nn.Module) -> list[tuple[str, str, tuple[int, ...]]]:
    """Kind, path and stride of the layers that would subsample, but that the recorded pass did not call."""
    called = {id(call.module) for call in trace.calls}
    found = []
    for path, module in model.named_modules():
        for kind in ("conv", "max_pool", "avg_pool"):
            if isinstance(module, _LAYERS[kind]) and id(module) not in called:
                stride = _per_axis(module.stride, spatial_axes(module))
                if max(stride) > 1:
                    found.append((kind, path, stride))
    return found
