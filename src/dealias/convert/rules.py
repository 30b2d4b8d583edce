"""The rules of anti-aliasing: what becomes of one layer, or of the function calls of one module, that subsample.

Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dealias.convert.calls import Window, spatial_axes_of
from dealias.convert.edits import (
    AnswerAvgPool,
    AnswerConv,
    AnswerMaxPool,
    Blur,
    Edit,
    ReplaceAvgPool,
    ReplaceMaxPool,
    ReplaceReLU,
    SetStride,
)
from dealias.convert.placement import beyond, follow, receiving_modules, returning_modules
from dealias.convert.sites import GROWING, Spot, Status
from dealias.convert.trace import BLUR, Trace, Value


@dataclass(frozen=True)
class Decision:
    """What to do at the sites of one layer, or at the function calls of one module."""

    status: Status
    text: str  # the action, or the reason why there is none
    edits: tuple[Edit, ...] = ()
    ends: tuple[Value, ...] = ()  # the values that a blur could also stand behind, further on
    densify: tuple[Edit, ...] = ()  # what makes them dense then


@dataclass(frozen=True)
class Group:
    """All spots where one layer subsamples, or where one module makes the same function call."""

    trace: Trace
    module: Any
    path: str
    spots: tuple[Spot, ...]
    stem: bool
    recipe: str
    is_layer: bool

    @property
    def kind(self) -> str:
        """What subsamples."""
        return self.spots[0].kind

    @property
    def stride(self) -> tuple[int, ...]:
        """For each spatial axis."""
        return self.spots[0].stride

    @property
    def spatial(self) -> int:
        """The number of spatial axes."""
        return len(self.stride)

    @property
    def window(self) -> Window:
        """The arguments of the first call."""
        return self.spots[0].window

    @property
    def answered(self) -> bool:
        """Whether the stride is not to be changed by an attribute, as the forward of the layer pads by it."""
        if not self.is_layer or self.kind != "conv":
            return not self.is_layer or _own_forward(self.module)
        return _own_forward(self.module) and any(
            spot.window.stride != tuple(self.module.stride) or self.pads(spot) for spot in self.spots
        )

    def pads(self, spot: Spot) -> bool:
        """Whether the layer pads its input by itself."""
        call = spot.call
        nodes = self.trace.nodes[call.start : call.end] if call is not None else []
        return self.module.padding_mode == "zeros" and any("pad" in node.op for node in nodes)


def decide(group: Group) -> Decision:
    """What anti-aliasing does to `group`."""
    if group.kind in GROWING:
        return Decision("left alone", "the map grows: nothing is subsampled here")
    if group.kind == "pixel_unshuffle":
        return refuse(
            f"{_name(group)}: it keeps all pixels, as channels that each see the map at stride {group.stride[0]}; "
            "a blur in front would remove what it is to keep"
        )
    if group.kind not in _RULES:
        return refuse(f"{_name(group)}: antialias has no rule for it; low-pass filter in front of it where it matters")
    return _RULES[group.kind](group)


def refuse(reason: str) -> Decision:
    """The decision not to place a blur that should be there."""
    return Decision("not placed", reason)


def blur_name(stride: tuple[int, ...]) -> str:
    """How reports call the blur of this stride."""
    return f"BlurPool{len(stride)}d(stride={stride[0] if len(set(stride)) == 1 else stride})"


def _name(group: Group) -> str:
    """The layer, or the function and where it is called."""
    if group.is_layer:
        return type(group.module).__name__
    where = f"`{group.path}` ({type(group.module).__name__})" if group.path else type(group.module).__name__
    source = group.spots[0].node.source
    return f"{group.kind} in {where}{f', {source}' if source else ''}"


def _answer_text(group: Group) -> str:
    """Says so where a function call is answered."""
    return "" if group.is_layer else f" ({_name(group)})"


def _own_forward(module: nn.Module) -> bool:
    """Whether a layer has a forward of its own, which may depend on the stride."""
    return not type(module).forward.__module__.startswith("torch.nn.modules")


def _one_window(group: Group) -> str | None:
    """Why the calls of a layer cannot be answered, if so."""
    for spot in group.spots:
        function = spot.node.function
        if spatial_axes_of(function) is None:
            maker = getattr(function, "__name__", "compiled code")
            return f"{_name(group)} is made by {maker}, where no layer can answer it"
    if len({spot.window for spot in group.spots}) > 1:
        return f"{_name(group)} makes calls of several kinds"
    if group.is_layer and len(group.trace.calls_of(group.module)) != len(group.spots):
        return "the layer does not subsample once on each call"
    return None


def _decide_blur(group: Group) -> Decision:
    by = f" by {type(group.module).__name__}" if group.is_layer else ""
    return Decision("left alone", f"already anti-aliased{by}")


def _decide_interpolate(group: Group) -> Decision:
    if all(node.op.endswith("_aa") for node in (spot.node for spot in group.spots)):
        return Decision("left alone", "already anti-aliased by antialias=True")
    return refuse(
        f"{_name(group)}: resampling to a given size is no subsampling by a stride; antialias=True in the call filters"
    )


def _decide_max_pool(group: Group) -> Decision:
    if any(len(spot.node.outputs) > 1 and _is_used(spot.node.outputs[1]) for spot in group.spots) or getattr(
        group.module, "return_indices", False
    ):
        return refuse("return_indices=True: a blurred maximum has no index")
    text = f"max at stride 1, then {blur_name(group.stride)}{_answer_text(group)}"
    if group.answered:
        if (problem := _one_window(group)) is not None:
            return refuse(problem)
        return Decision("placed", text, (AnswerMaxPool(group.path, group.window),))
    if group.recipe == "zhang2019" and _is_resnet_stem(group):
        text = f"max over 2x2 at stride 1 without padding, then {blur_name(group.stride)}"
        return Decision("placed", text, (ReplaceMaxPool(group.path, {"kernel_size": 2, "padding": 0}),))
    return Decision("placed", text, (ReplaceMaxPool(group.path, {}),))


def _is_used(value: Value) -> bool:
    # PyTorch runs 1-D poolings on 2-D maps, and takes the additional axis off their indices whether used or not
    return value.returned or any(node.op != "squeeze" or any(map(_is_used, node.outputs)) for node in value.consumers)


def _is_resnet_stem(group: Group) -> bool:
    """The ResNets' first pooling: MaxPool2d(3, 2, 1) behind one convolution, in front of a residual branch."""
    window, spot = group.window, group.spots[0]
    consumers = [node.op for node in spot.result.consumers]
    return (
        len(group.spots) == 1
        and (window.kernel, window.stride, window.padding, window.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
        and spot.source.depth == 1
        and len(consumers) > 1
        and "cat" not in consumers
    )


def _decide_avg_pool(group: Group) -> Decision:
    window, path = group.window, group.path
    if all(
        set(spot.output_size) == {1} and all(k >= size for k, size in zip(window.kernel, spot.input_size, strict=True))
        for spot in group.spots
    ):
        return Decision("left alone", "global: the window covers the whole map, so that nothing is subsampled")
    if group.answered and (problem := _one_window(group)) is not None:
        return refuse(problem)
    whole_windows = group.recipe == "same-size" and not window.ceil_mode
    blur = blur_name(group.stride)
    if window.kernel == window.stride and not any(window.padding) and not window.divisor_override:
        text = f"{blur} in place of the average{_answer_text(group)}"
        if group.answered:
            return Decision("placed", text, (AnswerAvgPool(path, window, False, whole_windows),))
        return Decision("placed", text, (ReplaceAvgPool(path, group.stride, whole_windows),))
    if window.ceil_mode and set(window.kernel) != {1}:
        return refuse(f"ceil_mode=True with kernel_size={window.kernel} and stride={window.stride}")
    text = f"average at stride 1, then {blur}{_answer_text(group)}"
    if group.answered:
        return Decision("placed", text, (AnswerAvgPool(path, window, True, whole_windows),))
    dense = SetStride(path, (1,) * group.spatial)
    ends = tuple(spot.result for spot in group.spots)
    return Decision("placed", text, (dense, Blur(path, before=False, stride=group.stride)), ends, (dense,))


def _decide_conv(group: Group) -> Decision:
    stride, kept = group.stride, (1,) * group.spatial
    if any(spot.source.depth == 0 for spot in group.spots):
        if not group.stem and (group.recipe != "zhang2019" or set(stride) != {4}):
            return Decision("left alone", _stem_text(group))
        if max(stride) > 3 and all(step % 2 == 0 for step in stride):  # a dense one would cost 16 times as much
            stride, kept = (2,) * group.spatial, tuple(step // 2 for step in stride)
    if (problem := _conv_problem(group)) is not None:
        return refuse(problem)
    trace, path = group.trace, group.path
    outputs = [spot.result for spot in group.spots]
    chains = [follow(trace, value) for value in outputs]
    blur, lead = blur_name(stride), f"stride {kept[0]}, "
    restride = AnswerConv(path, group.window, kept) if group.answered else SetStride(path, kept)
    if all(chain.nonlinear for chain in chains):
        ends = tuple(chain.end for chain in chains)
        further = zip(*(beyond(end) for end in ends), strict=False)
        found = next(filter(None, (place(trace, values, stride) for values in (ends, *further))), None)
        if found is None:
            return Decision("not placed", _no_module(ends[0]), ends=ends, densify=(restride,))
        edit, where = found
        text = f"{lead}{blur} {where}, behind the non-linearity{_answer_text(group)}"
        return Decision("placed", text, (restride, edit))
    if any(node.op == BLUR for chain in chains for node in chain.end.consumers):
        return Decision("left alone", "a blur stands behind it already, before any non-linearity of its own")
    if any(chain.nonlinear for chain in chains):
        return refuse("a non-linearity stands behind some calls of this layer, and not behind others")
    if _commutes_with_blur(group):
        text = f"{lead}{blur} in front of it: no non-linearity stands behind{_answer_text(group)}"
        if group.answered:
            return Decision("placed", text, (AnswerConv(path, group.window, kept, "before", stride),))
        return Decision("placed", text, (restride, Blur(path, before=True, stride=stride)))
    for values in reversed(list(zip(*(chain.values for chain in chains), strict=False))):
        if (found := place(trace, values, stride)) is not None:
            edit, where = found
            text = f"{lead}{blur} {where}: no non-linearity of its own stands behind{_answer_text(group)}"
            return Decision("placed", text, (restride, edit))
    if group.answered:
        text = f"{lead}{blur} behind it: no non-linearity of its own stands behind{_answer_text(group)}"
        return Decision("placed", text, (AnswerConv(path, group.window, kept, "after", stride),))
    return refuse(_no_module(outputs[0]))


def _commutes_with_blur(group: Group) -> bool:
    """Whether a convolution can have its blur in front: 1x1, unpadded, its input where the blur can take it."""
    if set(group.window.kernel) != {1} or any(spot.dense_size != spot.input_size for spot in group.spots):
        return False
    # a hook in front sees no input that is given by keyword
    return group.answered or all(spot.call is not None and spot.call.input is not None for spot in group.spots)


def _stem_text(group: Group) -> str:
    if max(group.stride) > 3 and all(k <= s for k, s in zip(group.window.kernel, group.stride, strict=True)):
        return "the stem: patches that do not overlap, as the network was designed; stem=True splits their stride"
    return "the stem: the first convolution, where a blur costs most; stem=True places one"


def _conv_problem(group: Group) -> str | None:
    """Why the stride of a convolution cannot be changed, if so."""
    if group.answered:
        return _one_window(group)
    if len(group.trace.calls_of(group.module)) != len(group.spots):
        return "the layer does not convolve once on each call"
    for spot in group.spots:
        if spot.window.stride != tuple(group.module.stride):
            return "the layer convolves at another stride than that of its attribute"
    return None


def place(trace: Trace, values: Sequence[Value], stride: tuple[int, ...]) -> tuple[Edit, str] | None:
    """Blur `values` at a module that returns them, or else at one that takes them in."""
    paths = {id(call.module): call.path for call in trace.calls}
    for module in returning_modules(trace, values):
        path = paths[id(module)] or ""
        if type(module) is nn.ReLU and len(stride) == 2 and not module._forward_hooks:
            return ReplaceReLU(path, stride), f"with `{path}`"
        return Blur(path, before=False, stride=stride), f"behind {f'`{path}`' if path else 'the model'}"
    for module in receiving_modules(trace, values):
        path = paths[id(module)] or ""
        return Blur(path, before=True, stride=stride), f"in front of `{path}`"
    return None


def _no_module(value: Value) -> str:
    users = ", ".join(sorted({node.op for node in value.consumers})) or "the output of the model"
    return (
        "what is to be blurred is returned by no module of its own (a function or a shared module made it) and taken "
        f"in by none alone ({len(value.consumers)} uses: {users})"
    )


_RULES: dict[str, Callable[[Group], Decision]] = {
    "conv": _decide_conv,
    "max_pool": _decide_max_pool,
    "avg_pool": _decide_avg_pool,
    "blur": _decide_blur,
    "interpolate": _decide_interpolate,
}
