"""Let the layers of a network wrap around at the borders of their maps, as exact shift-invariance asks for."""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dealias.convert.layers import Changed, subclass
from dealias.convert.windows import layer_classes, per_axis
from dealias.errors import InputTypeError, shown
from dealias.ops.reference import pad

_MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_REACH = {"linear": 1, "bilinear": 1, "trilinear": 1, "bicubic": 2}
"""By mode of a resampling: the pixels beside a place that it takes in."""


def to_circular(model: nn.Module) -> nn.Module:
    """A copy of `model` whose layers pad with the opposite side of their map; its weights and `state_dict` stay.

    >>> to_circular(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3, 2, 1)))[0].padding_mode
    'circular'

    Convolutions, transposed convolutions, max and average poolings, padding layers and `nn.Upsample` wrap around.
    Sizes of maps stay. What a forward pads by a function call stays as it is: `dealias.certify` names it. A network
    that was trained with other borders needs training to be as accurate as before.

    Raises:
        InputTypeError: `model` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model={shown(model)} must be a torch.nn.Module")
    model = copy.deepcopy(model)
    for module in model.modules():
        layer: Any = module
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            if module.padding != "valid" and any(module._reversed_padding_repeated_twice):
                layer.padding_mode = "circular"
        elif type(module) in _PADDING_LAYERS:
            layer.__class__ = _PADDING_LAYERS[type(module)]
        elif type(module) in _CLASSES and _reaches_over_the_border(layer):
            layer.__class__ = _CLASSES[type(module)]
            layer.period = getattr(module, "stride", 1)
    return model


def _reaches_over_the_border(layer: Any) -> bool:
    if type(layer) not in _POOLINGS:
        return True
    kernel, stride, padding = (per_axis(one, 3) for one in (layer.kernel_size, layer.stride, layer.padding))
    overhangs = layer.ceil_mode and any(taps > step for taps, step in zip(kernel, stride, strict=True))
    return (any(padding) or overhangs) and not getattr(layer, "return_indices", False)


_POOLINGS = layer_classes("MaxPool", "AvgPool")
_PADDING_LAYERS = {
    original: circular
    for kind in ("ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad")
    for original, circular in zip(layer_classes(kind), layer_classes("CircularPad"), strict=True)
}


class Wrapped(Changed):
    """A layer of PyTorch that takes the opposite side of its map for what lies beyond the border."""


class _Pool(Wrapped):
    """A pooling of which all windows are full. `period` is its stride at first: an anti-aliased one has stride 1.

    `rate` is the number of samples for each pixel of its map, with padding and dilation in samples.
    """

    rate = 1

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
        """`x` with as many samples of the opposite side as the windows need, the kernel and the stride."""
        parts = (self.kernel_size, self.stride, self.period, self.padding, getattr(self, "dilation", 1))
        kernel, stride, period, pads, dilation = (per_axis(part, self.spatial) for part in parts)
        after = []
        axes = zip(x.shape[-self.spatial :], kernel, stride, period, pads, dilation, strict=True)
        for size, k, step, whole, p, d in axes:
            reach = d * (k - 1)
            last = (size + 2 * p - reach) // self.rate - 1  # the first pixel of the last window
            windows = last // whole + 1
            if self.ceil_mode:
                windows = -(-last // whole) + 1
                windows -= (windows - 1) * whole * self.rate >= size + p  # the last one must start inside
            dense = windows * (whole // step) * self.rate
            after.append((dense - 1) * step + reach + 1 - size - p)
        return pad(x, pads, [max(more, 0) for more in after], "circular"), kernel, stride


class _MaxPool(_Pool):
    def forward(self, input: Tensor) -> Any:
        return _MAX_POOL[self.spatial](*self.padded(input), 0, self.dilation)


class _AvgPool(_Pool):
    def forward(self, input: Tensor) -> Any:
        more = {} if self.spatial == 1 else {"divisor_override": self.divisor_override}
        return _AVG_POOL[self.spatial](*self.padded(input), **more)


class _ConvTranspose(Wrapped):
    """A transposed convolution that wraps around where its map grows by its stride exactly."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Any:
        parts = (self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation)
        geometry = list(zip(*parts, strict=True))
        if output_size is not None or any(d * (k - 1) + o + 1 - 2 * p != s for k, s, p, o, d in geometry):
            return self.as_before(input, output_size)
        margins = [d * (k - 1) // s + 1 for k, s, _, _, d in geometry]
        x = pad(input, margins, margins, "circular")
        y = _CONV_TRANSPOSE[self.spatial](x, self.weight, self.bias, self.stride, 0, 0, self.groups, self.dilation)
        sizes = zip(input.shape[-self.spatial :], margins, geometry, strict=True)
        for axis, (size, margin, (_, s, p, _, _)) in enumerate(sizes, start=-self.spatial):
            y = y.narrow(axis, margin * s + p, size * s)
        return y


class _Upsample(Wrapped):
    """`nn.Upsample` that wraps around where it takes in neighbours and its factors are whole."""

    def forward(self, input: Tensor) -> Any:
        sizes, reach = input.shape[2:], _REACH.get(self.mode)
        if self.size is not None:
            factors = tuple(new / old for new, old in zip(per_axis(self.size, len(sizes)), sizes, strict=True))
        else:
            factors = per_axis(self.scale_factor, len(sizes))
        if reach is None or self.align_corners or any(factor != round(factor) for factor in factors):
            return self.as_before(input)
        margins, whole = (reach,) * len(sizes), [round(factor) for factor in factors]
        x = pad(input, margins, margins, "circular")
        y = F.interpolate(x, scale_factor=[float(factor) for factor in whole], mode=self.mode, align_corners=False)
        for axis, (size, factor) in enumerate(zip(sizes, whole, strict=True), start=2):
            y = y.narrow(axis, reach * factor, size * factor)
        return y


_CLASSES: dict[type[nn.Module], type[Wrapped]] = {
    original: subclass(globals(), "Circular", original, spatial, base)
    for name, base in (("MaxPool", _MaxPool), ("AvgPool", _AvgPool), ("ConvTranspose", _ConvTranspose))
    for spatial, original in enumerate(layer_classes(name), start=1)
}
_CLASSES[nn.Upsample] = subclass(globals(), "Circular", nn.Upsample, 0, _Upsample)
"""By class of PyTorch: the subclass that a layer of it becomes."""
