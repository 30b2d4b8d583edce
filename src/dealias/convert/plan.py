"""Decide for each downsampling site what anti-aliasing does to it.

Source of the rules: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dealias.convert.edits import (
    Blur,
    Edit,
    ReplaceAvgPool,
    ReplaceMaxPool,
    ReplaceReLU,
    SetStride,
    spatial_axes,
)
from dealias.convert.placement import follow, receiving_modules, returning_modules
from dealias.convert.sites import Site, Spot, Status, find_spots, unreached_layers
from dealias.convert.trace import BLUR, Trace, Value
from dealias.functional import per_axis

RECIPES = ("same-size", "zhang2019")


@dataclass(frozen=True)
class Decision:
    """What to do at the sites of one layer, or at one function call."""

    status: Status
    text: str  # the action, or the reason why there is none
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The sites that one decision covers, and the spots in the trace where they are."""

    decision: Decision
    spots: tuple[Spot, ...]
    sites: tuple[Site, ...]

    @property
    def blurs(self) -> bool:
        """Whether `antialias` places a blur at these sites."""
        return self.decision.status == "placed"


@dataclass(frozen=True)
class _Layer:
    """One layer and all spots where it subsamples."""

    trace: Trace
    module: Any
    path: str
    spots: tuple[Spot, ...]
    stem: bool
    recipe: str

    @property
    def spatial(self) -> int:
        return spatial_axes(self.module)

    @property
    def stride(self) -> tuple[int, ...]:
        return self.spots[0].stride

    def blur_name(self, stride: tuple[int, ...]) -> str:
        return f"BlurPool{self.spatial}d(stride={stride[0] if len(set(stride)) == 1 else stride})"


def make_plan(trace: Trace, model: nn.Module, *, stem: bool, recipe: str) -> list[Plan]:
    """What to do at every downsampling site of `trace`, by the layer that subsamples there, in order of first use."""
    groups: dict[Any, list[Spot]] = {}
    for spot in find_spots(trace):
        groups.setdefault(spot if spot.call is None else spot.call.module, []).append(spot)
    plans = []
    for spots in groups.values():
        call = spots[0].call
        if call is None or call.path is None:
            decision = _decide_function(spots[0])
        else:
            layer = _Layer(trace, call.module, call.path, tuple(spots), stem, recipe)
            decision = _DECIDE.get(spots[0].kind, _decide_resampling)(layer)
        plans.append(Plan(decision, tuple(spots), tuple(_site(spot, decision) for spot in spots)))
    for kind, path, stride in unreached_layers(trace, model):
        reason = "example_input does not reach this layer by a call, so nothing is known of what follows it"
        site = Site(kind, path, stride, (), (), "not placed", reason=reason)
        plans.append(Plan(Decision("not placed", reason), (), (site,)))
    return plans


def _site(spot: Spot, decision: Decision) -> Site:
    return Site(
        spot.kind,
        "" if spot.call is None or spot.call.path is None else spot.call.path,
        spot.stride,
        spot.input_size,
        spot.output_size,
        decision.status,
        action=decision.text if decision.status == "placed" else None,
        reason=decision.text if decision.status != "placed" else None,
    )


def _refuse(reason: str) -> Decision:
    return Decision("not placed", reason)


def _decide_function(spot: Spot) -> Decision:
    call = spot.node.call
    where = f"in `{call.path}` ({type(call.module).__name__})" if call.path else f"in {type(call.module).__name__}"
    source = f", {spot.node.source}" if spot.node.source else ""
    if spot.kind == "blur":
        return Decision("left alone", "already anti-aliased")
    if spot.kind in ("conv", "max_pool", "avg_pool"):
        return _refuse(f"a function call {where}{source}: there is no layer to change; make it a torch.nn layer")
    return _refuse(f"{spot.kind} {where}{source}: antialias has no rule for it; low-pass filter in front of it")


def _decide_resampling(layer: _Layer) -> Decision:
    name = type(layer.module).__name__
    return _refuse(f"{name}: antialias has no rule for it; low-pass filter in front of it where that matters")


def _decide_blur(layer: _Layer) -> Decision:
    return Decision("left alone", f"already anti-aliased by {type(layer.module).__name__}")


def _own_forward(module: nn.Module) -> bool:
    """Whether a subclass of one of PyTorch's layers has a forward of its own, which may depend on the stride."""
    return not type(module).forward.__module__.startswith("torch.nn.modules")


def _decide_max_pool(layer: _Layer) -> Decision:
    pool = layer.module
    if _own_forward(pool):
        return _refuse(f"{type(pool).__name__} has a forward of its own, which may pad according to its stride")
    if pool.return_indices:
        return _refuse("return_indices=True: a blurred maximum has no index")
    if layer.recipe == "zhang2019" and _is_resnet_stem(layer):
        changes = {"kernel_size": 2, "padding": 0}
        text = f"max over 2x2 at stride 1 without padding, then {layer.blur_name(layer.stride)}"
    else:
        changes, text = {}, f"max at stride 1, then {layer.blur_name(layer.stride)}"
    return Decision("placed", text, (ReplaceMaxPool(layer.path, changes),))


def _is_resnet_stem(layer: _Layer) -> bool:
    """The ResNets' first pooling: MaxPool2d(3, 2, 1) behind one convolution, in front of a residual branch."""
    pool, spot = layer.module, layer.spots[0]
    if layer.spatial != 2:
        return False
    arguments = [per_axis(name, getattr(pool, name), 2, 0) for name in ("kernel_size", "stride", "padding", "dilation")]
    consumers = [node.op for node in spot.result.consumers]
    return (
        len(layer.spots) == 1
        and arguments == [(3, 3), (2, 2), (1, 1), (1, 1)]
        and spot.source.depth == 1
        and len(consumers) > 1
        and "cat" not in consumers
    )


def _decide_avg_pool(layer: _Layer) -> Decision:
    pool = layer.module
    kernel = per_axis("kernel_size", pool.kernel_size, layer.spatial, 1)
    if all(
        set(spot.output_size) == {1} and all(k >= size for k, size in zip(kernel, spot.input_size, strict=True))
        for spot in layer.spots
    ):
        return Decision("left alone", "global: the window covers the whole map, so that nothing is subsampled")
    if _own_forward(pool):
        return _refuse(f"{type(pool).__name__} has a forward of its own, which may pad according to its stride")
    if kernel != layer.stride:
        return _refuse(f"kernel_size={kernel} and stride={layer.stride} differ: the average overlaps or leaves gaps")
    if any(per_axis("padding", pool.padding, layer.spatial, 0)):
        return _refuse(f"padding={pool.padding}: the windows do not start at the first pixel")
    if getattr(pool, "divisor_override", None):
        return _refuse(f"divisor_override={pool.divisor_override}: the pooling is no average")
    whole_windows = layer.recipe == "same-size" and not pool.ceil_mode
    edit = ReplaceAvgPool(layer.path, layer.stride, whole_windows)
    return Decision("placed", f"{layer.blur_name(layer.stride)} in place of the average", (edit,))


def _decide_conv(layer: _Layer) -> Decision:
    conv, stride, kept = layer.module, layer.stride, (1,) * layer.spatial
    if any(spot.source.depth == 0 for spot in layer.spots) and not layer.stem:
        if layer.recipe != "zhang2019" or set(stride) != {4}:
            return Decision(
                "left alone", "the stem: the first convolution, where a blur costs most; stem=True places one"
            )
        stride, kept = (2,) * layer.spatial, (2,) * layer.spatial
    if (problem := _conv_problem(layer)) is not None:
        return _refuse(problem)
    outputs = [spot.result for spot in layer.spots]
    chains = [follow(layer.trace, value) for value in outputs]
    blur = layer.blur_name(stride)
    lead, restride = f"stride {kept[0]}, ", SetStride(layer.path, kept)
    if all(chain.nonlinear for chain in chains):
        found = _place(layer, [chain.end for chain in chains], stride)
        if found is None:
            return _refuse(_no_module(chains[0].end))
        edit, where = found
        return Decision("placed", f"{lead}{blur} {where}, behind the non-linearity", (restride, edit))
    if any(node.op == BLUR for chain in chains for node in chain.end.consumers):
        return Decision("left alone", "a blur stands behind it already, before any non-linearity of its own")
    if any(chain.nonlinear for chain in chains):
        return _refuse("a non-linearity stands behind some calls of this layer, and not behind others")
    if set(conv.kernel_size) == {1} and set(conv.padding) <= {0, "valid"}:
        text = f"{lead}{blur} in front of it: no non-linearity stands behind"
        return Decision("placed", text, (restride, Blur(layer.path, before=True, stride=stride)))
    for values in reversed(list(zip(*(chain.values for chain in chains), strict=False))):
        if (found := _place(layer, values, stride)) is not None:
            edit, where = found
            text = f"{lead}{blur} {where}: no non-linearity of its own stands behind"
            return Decision("placed", text, (restride, edit))
    return _refuse(_no_module(outputs[0]))


def _conv_problem(layer: _Layer) -> str | None:
    """Why the stride of a convolution cannot be changed by its attribute, if so."""
    conv, trace = layer.module, layer.trace
    if len(trace.calls_of(conv)) != len(layer.spots):
        return "the layer does not convolve once on each call"
    for spot in layer.spots:
        call = spot.call
        if tuple(spot.node.settings["stride"]) != tuple(conv.stride):
            return "the layer convolves at another stride than that of its attribute"
        pads = call is not None and any("pad" in node.op for node in trace.nodes[call.start : call.end])
        if pads and conv.padding_mode == "zeros":
            return f"{type(conv).__name__} pads its input according to its stride (SAME padding of TensorFlow)"
    return None


def _place(layer: _Layer, values: Sequence[Value], stride: tuple[int, ...]) -> tuple[Edit, str] | None:
    """Blur `values` at a module that returns them, or else at one that takes them in."""
    paths = {id(call.module): call.path for call in layer.trace.calls}
    for module in returning_modules(layer.trace, values):
        path = paths[id(module)] or ""
        if type(module) is nn.ReLU and layer.spatial == 2 and not module._forward_hooks:
            return ReplaceReLU(path, stride), f"with `{path}`"
        return Blur(path, before=False, stride=stride), f"behind `{path}`"
    for module in receiving_modules(layer.trace, values):
        path = paths[id(module)] or ""
        return Blur(path, before=True, stride=stride), f"in front of `{path}`"
    return None


def _no_module(value: Value) -> str:
    users = ", ".join(sorted({node.op for node in value.consumers})) or "the output of the model"
    return (
        "what is to be blurred is returned by no module of its own (a function or a shared module made it) and taken "
        f"in by none alone ({len(value.consumers)} uses: {users})"
    )


_DECIDE: dict[str, Callable[[_Layer], Decision]] = {
    "conv": _decide_conv,
    "max_pool": _decide_max_pool,
    "avg_pool": _decide_avg_pool,
    "blur": _decide_blur,
}
