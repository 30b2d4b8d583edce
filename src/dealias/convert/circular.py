"""Let the layers of a network wrap around at the borders of their maps, as exact shift-invariance asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from dealias.convert.windows import per_axis
from dealias.errors import InputTypeError, shown
from dealias.ops.reference import pad

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
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
    if not isinstance(layer, _POOLINGS):
        return True
    kernel, stride, padding = (per_axis(one, 3) for one in (layer.kernel_size, layer.stride, layer.padding))
    overhangs = layer.ceil_mode and any(taps > step for taps, step in zip(kernel, stride, strict=True))
    return (any(padding) or overhangs) and not getattr(layer, "return_indices", False)


_POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_PADDING_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, f"{kind}Pad{axes}d"): getattr(nn, f"CircularPad{axes}d")
    for kind in ("Zero", "Constant", "Reflection", "Replication")
    for axes in (1, 2, 3)
}


class Wrapped(nn.Module):
    """A layer of PyTorch that takes the opposite side of its map for what lies beyond the border."""

    spatial = 0


class _Pool(Wrapped):
    """A pooling of which all windows are full. `period` is its stride at first: an anti-aliased one has stride 1."""

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
        """`x` with as many samples of the opposite side as the windows need, the kernel and the stride."""
        layer: Any = self
        parts = (layer.kernel_size, layer.stride, layer.period, layer.padding, getattr(layer, "dilation", 1))
        kernel, stride, period, pads, dilation = (per_axis(part, self.spatial) for part in parts)
        after = []
        axes = zip(x.shape[-self.spatial :], kernel, stride, period, pads, dilation, strict=True)
        for size, k, step, whole, p, d in axes:
            reach = d * (k - 1)
            windows = (size + 2 * p - reach - 1) // whole + 1
            if layer.ceil_mode:
                windows = -(-(size + 2 * p - reach - 1) // whole) + 1
                windows -= (windows - 1) * whole >= size + p  # the last one must start inside
            dense = windows * (whole // step)
            after.append((dense - 1) * step + reach + 1 - size - p)
        return pad(x, pads, [max(more, 0) for more in after], "circular"), kernel, stride


class _MaxPool(_Pool):
    def forward(self, input: Tensor) -> Tensor:
        x, kernel, stride = self.padded(input)
        layer: Any = self
        pool: Callable[..., Tensor] = _MAX_POOL[self.spatial]
        return pool(x, kernel, stride, 0, layer.dilation)


class _AvgPool(_Pool):
    def forward(self, input: Tensor) -> Tensor:
        x, kernel, stride = self.padded(input)
        layer: Any = self
        more = {} if self.spatial == 1 else {"divisor_override": layer.divisor_override}
        pool: Callable[..., Tensor] = _AVG_POOL[self.spatial]
        return pool(x, kernel, stride, **more)


class _ConvTranspose(Wrapped):
    """A transposed convolution that wraps around where its map grows by its stride exactly."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        layer: Any = self
        spatial, x = self.spatial, input
        parts = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation)
        geometry = list(zip(*parts, strict=True))
        if output_size is not None or any(d * (k - 1) + o + 1 - 2 * p != s for k, s, p, o, d in geometry):
            return cast(Tensor, super().forward(input, output_size))
        margins = [d * (k - 1) // s + 1 for k, s, _, _, d in geometry]
        x = pad(x, margins, margins, "circular")
        convolve: Callable[..., Tensor] = _CONV_TRANSPOSE[spatial]
        y = convolve(x, layer.weight, layer.bias, layer.stride, 0, 0, layer.groups, layer.dilation)
        for axis, (size, margin, (_, s, p, _, _)) in enumerate(
            zip(input.shape[-spatial:], margins, geometry, strict=True), start=-spatial
        ):
            y = y.narrow(axis, margin * s + p, size * s)
        return y


class _Upsample(Wrapped):
    """`nn.Upsample` that wraps around where it takes in neighbours and its factors are whole."""

    def forward(self, input: Tensor) -> Tensor:
        layer: Any = self
        sizes, reach = input.shape[2:], _REACH.get(layer.mode)
        given = layer.scale_factor if layer.size is None else None
        if given is None:
            wanted = per_axis(layer.size, len(sizes))
            factors = tuple(new / old for new, old in zip(wanted, sizes, strict=True))
        else:
            factors = (given,) * len(sizes) if isinstance(given, int | float) else tuple(given)
        if reach is None or layer.align_corners or any(factor != round(factor) for factor in factors):
            return cast(Tensor, super().forward(input))
        margins = (reach,) * len(sizes)
        x = pad(input, margins, margins, "circular")
        whole = [round(factor) for factor in factors]
        y = F.interpolate(x, scale_factor=[float(factor) for factor in whole], mode=layer.mode, align_corners=False)
        for axis, (size, factor) in enumerate(zip(sizes, whole, strict=True), start=2):
            y = y.narrow(axis, reach * factor, size * factor)
        return y


def _wrapped_classes() -> dict[type[nn.Module], type[Wrapped]]:
    classes: dict[type[nn.Module], type[Wrapped]] = {nn.Upsample: _subclass(nn.Upsample, _Upsample, 0)}
    kinds: list[tuple[str, type[Wrapped]]] = [
        ("MaxPool", _MaxPool),
        ("AvgPool", _AvgPool),
        ("ConvTranspose", _ConvTranspose),
    ]
    for prefix, base in kinds:
        for axes in (1, 2, 3):
            original = getattr(nn, f"{prefix}{axes}d")
            classes[original] = _subclass(original, base, axes)
    return classes


def _subclass(original: type[nn.Module], base: type[Wrapped], axes: int) -> type[Wrapped]:
    """A subclass of a layer of PyTorch, with a name by which it can be pickled."""
    name = f"Circular{original.__name__}"
    members = {"spatial": axes, "__module__": __name__, "__doc__": f"`torch.nn.{original.__name__}` that wraps around."}
    made = type(name, (base, original), members)
    globals()[name] = made
    return cast(type[Wrapped], made)


_CLASSES = _wrapped_classes()
