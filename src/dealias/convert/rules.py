"""The rules of anti-aliasing: what becomes of the layers, or of the function calls of one module, that subsample.

Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dealias.convert.downsampling import GROWING, Downsampling, Spot, Status
from dealias.convert.edits import (
    AnswerActivation,
    AnswerConv,
    AnswerPool,
    AnswerSlice,
    Blur,
    Caller,
    Densify,
    Edit,
    KeepStride,
    ReplacePool,
    SetStride,
)
from dealias.convert.layers import CONVERTED
from dealias.convert.placement import Host, Region, explore, follows_linearly, hosts_of, runner_of
from dealias.convert.trace import BLUR, Call, Node, Trace, Value
from dealias.convert.windows import Window


@dataclass(frozen=True)
class Decision:
    """What to do at the sites of a group.

    Args:
        status: as of a site.
        text: the action, or the reason why there is none.
        edits: that make the action.
        gated: whether a gate in front of the blur sees the mean of the dense map, not that of the subsampled one.
        dense: the convolutions between the sites and the blur, which convolve the dense map.
    """

    status: Status
    text: str
    edits: tuple[Edit, ...] = ()
    gated: bool = False
    dense: frozenset[Node] = frozenset()


@dataclass(frozen=True, eq=False)
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
    def window(self) -> Window:
        """The arguments of the first call."""
        return self.spots[0].window

    @property
    def is_stem(self) -> bool:
        """Whether it is the first convolution, which stays as it is unless `stem` is set."""
        return self.kind == "conv" and any(spot.source.depth == 0 for spot in self.spots)

    @property
    def caller(self) -> Caller:
        """The module and its method that call the function; for a layer, its own forward."""
        method = self.spots[0].node.method
        if self.is_layer:
            own = method is not None and method.module is self.module
            return Caller(self.path, method.name if own and method is not None else None)
        return Caller(self.path, None if method is None else method.name)

    @property
    def steps(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The stride that a convolution keeps, and that of the blur: a stem that jumps far gives up part of it."""
        kept, stride = (1,) * len(self.stride), self.stride
        if self.is_stem and max(stride) > 3 and all(step % 2 == 0 for step in stride):
            return tuple(step // 2 for step in stride), (2,) * len(stride)  # a dense one would cost 16 times as much
        return kept, stride

    @property
    def answered(self) -> bool:
        """Whether to intercept the calls: the layer's own forward reads `stride` to compute its padding."""
        if not self.is_layer or self.kind != "conv":
            return not self.is_layer or _own_forward(self.module)
        return _own_forward(self.module) and any(
            spot.window.stride != tuple(self.module.stride) or self._pads(spot) for spot in self.spots
        )

    def _pads(self, spot: Spot) -> bool:
        """Whether the layer pads its input by itself."""
        call = spot.call
        nodes = self.trace.nodes[call.start : call.end] if call is not None else []
        return self.module.padding_mode == "zeros" and any("pad" in node.op for node in nodes)

    def densify(self) -> Densify | None:
        """The edit that computes every pixel; None where that takes more than a stride."""
        kept, _ = self.steps
        if self.kind == "conv":
            if self.problem is not None:
                return None
            return AnswerConv(self.caller, self.window, kept) if self.answered else SetStride(self.path, kept)
        if self.kind not in ("max_pool", "avg_pool") or self.window.ceil_mode or _indices_are_used(self):
            return None
        if self.answered:
            return None if self.problem is not None else AnswerPool(self.caller, self.window, dense=True)
        return SetStride(self.path, kept)

    @property
    def problem(self) -> str | None:
        """Why the stride cannot be changed, if so."""
        if self.answered:
            return _one_window(self)
        if len(self.trace.calls_of(self.module)) != len(self.spots):
            return "the layer does not subsample once on each call"
        if self.kind == "conv" and any(spot.window.stride != tuple(self.module.stride) for spot in self.spots):
            return "the layer convolves at another stride than that of its attribute"
        return None


class Rules:
    """Decides for each group; knows the regions of all spots, since branches that meet are blurred once."""

    def __init__(self, trace: Trace, downsampling: Downsampling, groups: Sequence[Group]) -> None:
        self.trace, self.grids = trace, downsampling.grids
        self.group_of = {spot: group for group in groups for spot in group.spots}
        self.followers = {node.inputs[0] for node in trace.nodes if node.op == BLUR}
        self._regions: dict[tuple[Spot, bool], Region] = {}
        self._joining: set[Spot] = set()

    def decide(self, group: Group) -> tuple[tuple[Group, ...], list[Decision]]:
        """What anti-aliasing may do to `group`, the best first, and the groups that it does it to."""
        if group.kind == "conv" and not self._stays(group) and group.problem is None:
            for groups, regions in self._bundles(group):
                if found := self._behind(groups, regions):
                    return groups, found
            regions = [self.region(spot) for spot in group.spots]
            if found := self._behind((group,), regions, runners=True):
                return (group,), found
        return (group,), self.decide_alone(group)

    def decide_alone(self, group: Group) -> list[Decision]:
        """What anti-aliasing may do to `group` where it shares no blur with others, the best first."""
        if group.kind in GROWING:
            return [Decision("left alone", "the map grows: nothing is subsampled here")]
        if group.kind == "pixel_unshuffle":
            keeps = f"it keeps all pixels, as channels that each see the map at stride {max(group.stride)}"
            return [refuse(f"{name(group)}: {keeps}; a blur in front would remove what it is to keep")]
        rule: Callable[[Group], list[Decision]] | None = getattr(self, f"_{group.kind}", None)
        if rule is None:
            return [refuse(_no_rule(group))]
        return rule(group)

    def region(self, spot: Spot, mixing: bool = False) -> Region:
        """What becomes of the map that `spot` returns."""
        key = (spot, mixing)
        if key not in self._regions:
            self._regions[key] = explore(self.grids, [spot.result], mixing=mixing)
        return self._regions[key]

    def _stays(self, group: Group) -> bool:
        return group.is_stem and not group.stem and (group.recipe != "zhang2019" or set(group.stride) != {4})

    # Where the blur goes ----------------------------------------------------------------------------------------------

    def _bundles(self, group: Group) -> Iterator[tuple[tuple[Group, ...], list[Region]]]:
        """By call of the layer, the region of its map: first by itself, then with all branches that it meets."""
        alone = [self.region(spot) for spot in group.spots]
        if all(region.behind for region in alone):
            yield (group,), alone
        joined = [self._joined(spot) for spot in group.spots]
        members = {tuple(sorted({id(self.group_of[spot]) for spot in spots})) for spots, _ in joined}
        spots = [spot for spots, _ in joined for spot in spots]
        groups = tuple(dict.fromkeys(self.group_of[spot] for spot in spots))
        whole = {spot for one in groups for spot in one.spots} == set(spots) and len(spots) == len(set(spots))
        if len(members) == 1 and len(groups) > 1 and whole:
            yield groups, [region for _, region in joined]

    def _joined(self, spot: Spot) -> tuple[list[Spot], Region]:
        """`spot` and the strided branches whose maps it meets, and the region of all of them."""
        self._joining.add(spot)
        spots, region = [spot], self.region(spot)
        while region.foreign:
            partners = [self._partners(value, spots) for value in region.foreign]
            if not all(partners):
                break
            spots += dict.fromkeys(spot for some in partners for spot in some)
            pooled = [one.result for one in spots if one.kind != "conv"]
            region = explore(self.grids, [one.result for one in spots], pooled=pooled, mixing=True)
        self._joining.discard(spot)
        return spots, region

    def _partners(self, value: Value, spots: Sequence[Spot]) -> list[Spot]:
        """The spots that can stay dense until their map, become `value`, meets those of `spots`; none if others do."""
        fitting = [spot for spot in self.group_of if spot not in spots and self._fits(spot, spots[0])]
        for spot in fitting:
            if value in self.region(spot, mixing=True).values:
                return [spot]
        for spot in fitting:  # branches that meet others in front of it
            if spot not in self._joining:
                joined, region = self._joined(spot)
                if value in region.values and set(joined).isdisjoint(spots):
                    return joined
        return []

    def _fits(self, spot: Spot, other: Spot) -> bool:
        """Whether `spot` can share a blur with `other`."""
        group = self.group_of[spot]
        if spot.kind not in ("conv", "max_pool", "avg_pool") or spot.stride != other.stride or self._stays(group):
            return False
        same = spot.dense_size == other.dense_size and group.steps == self.group_of[other].steps
        return same and group.densify() is not None

    def _behind(self, groups: Sequence[Group], regions: Sequence[Region], *, runners: bool = False) -> list[Decision]:
        """One blur behind the non-linearity that follows all of `groups`, a decision for each place that will do.

        With `runners` the places are the activations themselves, wherever they run.
        """
        group = groups[0]
        kept, stride = group.steps
        densify = [one for one in (group.densify() for group in groups) if one is not None]
        meeting = f" where {len(groups)} branches that subsample meet" if len(groups) > 1 else ""
        lead = f"stride {kept[0]}, {blur_name(stride)}"
        dense = frozenset(node for region in regions for node in region.convolutions)
        decisions = []
        for cuts in zip(*(region.behind for region in regions), strict=False):
            values = [cut.value for cut in cuts]
            hosts = [runner_of(self.trace, values)] if runners else hosts_of(self.trace, values)
            if hosts := [host for host in hosts or () if host is not None]:
                text = f"{lead} {_where(hosts)}, behind the non-linearity{meeting}{_answer_text(group)}"
                gated = any(cut.gated for cut in cuts)
                decisions.append(Decision("placed", text, (*densify, *_blurs(hosts, stride)), gated, dense))
        decisions.sort(key=lambda decision: len(decision.edits))  # one blur for all readers before one for each
        kept_strides = [KeepStride.of(edit, group.module) for edit, group in zip(densify, groups, strict=True)]
        if decisions and all(kept_strides):
            first = decisions[0]
            edits = (*filter(None, kept_strides), *first.edits[len(densify) :])
            answered = replace(first, edits=edits)
            decisions.insert(0 if any(map(_reads_stride, groups)) else len(decisions), answered)
        return decisions

    # One rule for each kind of site -----------------------------------------------------------------------------------

    def _blur(self, group: Group) -> list[Decision]:
        by = f" by {type(group.module).__name__}" if group.is_layer else ""
        return [Decision("left alone", f"already anti-aliased{by}")]

    def _conv(self, group: Group) -> list[Decision]:
        if self._stays(group):
            return [Decision("left alone", _stem_text(group))]
        if group.problem is not None:
            return [refuse(group.problem)]
        regions = [self.region(spot) for spot in group.spots]
        if all(region.behind for region in regions):
            return self._behind((group,), regions) or [refuse(_no_module(regions[0].behind[0].value))]
        if any(value in self.followers for region in regions for value in region.in_front):
            return [Decision("left alone", "a blur stands behind it already, before any non-linearity of its own")]
        if any(region.behind for region in regions):
            return [refuse("a non-linearity stands behind some calls of this layer, and not behind others")]
        return self._linear_conv(group, regions)

    def _linear_conv(self, group: Group, regions: Sequence[Region]) -> list[Decision]:
        """A convolution without a non-linearity behind it: a blur in front where that is the same, else behind."""
        kept, stride = group.steps
        lead, blur = f"stride {kept[0]}, ", blur_name(stride)
        no_one = f": no non-linearity of its own stands behind{_answer_text(group)}"
        decisions, densify = [], group.densify()
        if densify is None:
            return [refuse(group.problem or "the layer cannot be made dense")]
        if _commutes_with_blur(group):
            text = f"{lead}{blur} in front of it{no_one}"
            if group.answered:
                decisions.append(
                    Decision("placed", text, (AnswerConv(group.caller, group.window, kept, "before", stride),))
                )
            else:
                decisions.append(Decision("placed", text, (densify, Blur(group.path, before=True, stride=stride))))
        for values in reversed(list(zip(*(region.in_front for region in regions), strict=False))):
            if hosts := hosts_of(self.trace, values):
                text = f"{lead}{blur} {_where(hosts)}{no_one}"
                decisions.append(Decision("placed", text, (densify, *_blurs(hosts, stride))))
        if group.answered:
            edit = AnswerConv(group.caller, group.window, kept, "after", stride)
            decisions.append(Decision("placed", f"{lead}{blur} behind it{no_one}", (edit,)))
        return decisions or [refuse(_no_module(group.spots[0].result))]

    def _max_pool(self, group: Group) -> list[Decision]:
        if _indices_are_used(group):
            return [refuse("return_indices=True: a blurred maximum has no index")]
        if group.answered and (problem := _one_window(group)) is not None:
            return [refuse(problem)]
        decisions = self._pool_before_activation(group)
        text = f"max at stride 1, then {blur_name(group.stride)}{_answer_text(group)}"
        if group.recipe == "zhang2019" and _is_resnet_stem(group) and not group.answered:
            text = f"max over 2x2 at stride 1 without padding, then {blur_name(group.stride)}"
            edit = ReplacePool(group.path, changes={"kernel_size": 2, "padding": 0})
            return [Decision("placed", text, (edit,))]
        return [*decisions, *self._pooled(group, text)]

    def _pool_before_activation(self, group: Group) -> list[Decision]:
        """Convolution, maximum, activation: the blur stands behind the activation."""
        if group.recipe == "zhang2019" or not all(follows_linearly(spot.source) for spot in group.spots):
            return []
        regions = [self.region(spot) for spot in group.spots]
        if group.densify() is None or not all(region.behind for region in regions):
            return []
        return self._behind((group,), regions)

    def _pooled(self, group: Group, text: str, *, dense: bool = False) -> list[Decision]:
        """A pooling by its own anti-aliased form, or else by the pooling at stride 1 and a blur behind it."""
        if group.answered:
            edit = AnswerPool(group.caller, group.window, group.recipe == "same-size")
            return [Decision("placed", text, (edit,))]
        decisions = []
        if not dense and type(group.module) in CONVERTED:
            decisions.append(Decision("placed", text, (ReplacePool(group.path, group.recipe == "same-size"),)))
        if group.kind in ("max_pool", "avg_pool", "lp_pool") and not group.window.ceil_mode:
            behind = Blur(group.path, before=False, stride=group.stride)
            decisions.append(Decision("placed", text, (SetStride(group.path, (1,) * len(group.stride)), behind)))
        return decisions or [refuse(f"{name(group)}: its class cannot be replaced")]

    def _avg_pool(self, group: Group) -> list[Decision]:
        window = group.window
        if all(
            set(spot.output_size) == {1}
            and all(k >= size for k, size in zip(window.kernel, spot.input_size, strict=True))
            for spot in group.spots
        ):
            return [Decision("left alone", "global: the window covers the whole map, so that nothing is subsampled")]
        if group.answered and (problem := _one_window(group)) is not None:
            return [refuse(problem)]
        blur = blur_name(group.stride)
        if window.averages_blocks:
            return self._pooled(group, f"{blur} in place of the average{_answer_text(group)}")
        if window.ceil_mode and set(window.kernel) != {1}:
            return [refuse(f"ceil_mode=True with kernel_size={window.kernel} and stride={window.stride}")]
        return self._pooled(group, f"average at stride 1, then {blur}{_answer_text(group)}", dense=True)

    def _lp_pool(self, group: Group) -> list[Decision]:
        if group.answered and (problem := _one_window(group)) is not None:
            return [refuse(problem)]
        if group.window.ceil_mode:
            return [refuse(f"{name(group)}: ceil_mode=True")]
        return self._pooled(group, f"power average at stride 1, then {blur_name(group.stride)}{_answer_text(group)}")

    def _adaptive_pool(self, group: Group) -> list[Decision]:
        if (problem := self._whole_steps(group)) is not None:
            return [refuse(problem)]
        if _indices_are_used(group):
            return [refuse("return_indices=True: a blurred maximum has no index")]
        blur = blur_name(group.stride)
        maximum = "max" in type(group.module).__name__.lower() if group.is_layer else "max" in group.window.kind
        what = f"max at stride 1, then {blur}" if maximum else f"{blur} in place of the average"
        return self._pooled(group, f"{what}, where the sizes divide{_answer_text(group)}")

    def _interpolate(self, group: Group) -> list[Decision]:
        if all(spot.node.op.endswith("_aa") for spot in group.spots):
            return [Decision("left alone", "already anti-aliased by antialias=True")]
        if (problem := self._whole_steps(group)) is not None:
            return [refuse(f"{problem}; antialias=True in the call filters")]
        if any(spot.node.op.endswith("exact1d") or "exact" in spot.node.op for spot in group.spots):
            return [refuse(f"{name(group)}: mode='nearest-exact' takes other pixels than a blur with this stride")]
        window = group.spots[0].node.window
        if group.module.align_corners if group.is_layer else window is not None and window.rest[3]:
            return [refuse(f"{name(group)}: align_corners=True takes other pixels than a blur with this stride")]
        text = f"{blur_name(group.stride)} in place of the resampling, where the sizes divide{_answer_text(group)}"
        return self._pooled(group, text)

    def _whole_steps(self, group: Group) -> str | None:
        """Why a resampling is no subsampling by a stride, if so."""
        floors = group.kind == "interpolate" and _has_scale_factor(group)  # so that a last pixel may be left out
        for spot in group.spots:
            sizes = list(zip(spot.input_size, spot.output_size, strict=True))
            whole = [
                new * (old // new) == old or (floors and old // (old // new) == new) for old, new in sizes if old >= new
            ]
            if len(whole) < len(sizes) or not all(whole):
                before, after = ("x".join(map(str, size)) for size in (spot.input_size, spot.output_size))
                return f"{name(group)}: {before} to {after} pixels is no subsampling by a whole stride"
        if type(group.module) not in CONVERTED if group.is_layer else group.spots[0].node.window is None:
            return _no_rule(group)
        return None

    def _slice(self, group: Group) -> list[Decision]:
        spot = group.spots[0]
        phases = [other for other in self.group_of if other.kind == "slice" and other.source is spot.source]
        if len(phases) > len(group.spots):
            return [
                refuse(
                    f"{name(group)}: {len(phases)} slices of one map keep its pixels, as a pixel-unshuffle does; "
                    "a blur in front would remove what they are to keep"
                )
            ]
        if (problem := _one_window(group)) is not None:
            return [refuse(problem)]
        text = f"blur by {group.stride} in front of the slice{_answer_text(group)}"
        return [Decision("placed", text, (AnswerSlice(group.caller, group.window),))]


def refuse(reason: str) -> Decision:
    """The decision not to place a blur that should be there."""
    return Decision("not placed", reason)


def _no_rule(group: Group) -> str:
    return f"{name(group)}: antialias has no rule for it; low-pass filter in front of it where it matters"


def blur_name(stride: tuple[int, ...]) -> str:
    """How reports call the blur of this stride."""
    return f"BlurPool{len(stride)}d(stride={stride[0] if len(set(stride)) == 1 else stride})"


def name(group: Group) -> str:
    """The layer, or the function and where it is called."""
    if group.is_layer:
        return type(group.module).__name__
    where = f"`{group.path}` ({type(group.module).__name__})" if group.path else type(group.module).__name__
    node = group.spots[0].node
    what = f"{group.kind} by {node.op}" if group.kind == "unknown" else group.kind
    return f"{what} in {where}{f', {node.source}' if node.source else ''}"


def _answer_text(group: Group) -> str:
    """Says so where a function call is answered."""
    return "" if group.is_layer else f" ({name(group)})"


def _blurs(hosts: Sequence[Host], stride: tuple[int, ...]) -> list[Edit]:
    return [
        Blur(host.path, host.before, stride)
        if host.turn is None
        else AnswerActivation(host.path, host.turn, host.of, stride)
        for host in hosts
    ]


def _where(hosts: Sequence[Host]) -> str:
    if hosts[0].before:
        return f"in front of {' and '.join(f'`{host.path}`' for host in hosts)}"
    place = f"`{hosts[0].path}`" if hosts[0].path else "the model"
    return f"behind {place}" if hosts[0].turn is None else f"behind activation {hosts[0].turn} of {place}"


def _own_forward(module: nn.Module) -> bool:
    """Whether a layer has a forward of its own, which may depend on the stride."""
    return not type(module).forward.__module__.startswith(("torch.nn.modules", "dealias.convert"))


def _reads_stride(group: Group) -> bool:
    """Whether a forward around the layer reads an attribute `stride`, maybe to compute a padding of another size."""
    call: Call | None = group.spots[0].call
    while call is not None and (call := call.parent) is not None:
        code = getattr(type(call.module).forward, "__code__", None)
        if code is not None and "stride" in code.co_names:
            return True
    return False


def _one_window(group: Group) -> str | None:
    """Why the calls of a module cannot be answered, if so."""
    for spot in group.spots:
        if spot.node.window is None or spot.node.window.kind == "activation":
            return f"{name(group)} is made by {spot.node.op}, whose calls no layer can answer"
    if len({spot.window for spot in group.spots}) > 1:
        return f"{name(group)} makes calls of several kinds"
    if len({spot.node.method and spot.node.method.name for spot in group.spots}) > 1:
        return f"{name(group)} is called by several methods"
    if group.is_layer and len(group.trace.calls_of(group.module)) != len(group.spots):
        return "the layer does not subsample once on each call"
    return None


def _has_scale_factor(group: Group) -> bool:
    """Whether a resampling is given a factor, not a size."""
    if group.is_layer:
        return group.module.size is None
    window = group.spots[0].node.window
    return window is not None and window.rest[0] is None


def _indices_are_used(group: Group) -> bool:
    if "max" not in group.spots[0].node.op:
        return False
    return any(len(spot.node.outputs) > 1 and _is_used(spot.node.outputs[1]) for spot in group.spots)


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


def _no_module(value: Value) -> str:
    users = ", ".join(sorted({node.op for node in value.consumers})) or "the output of the model"
    return (
        "what is to be blurred is returned by no module of its own (a function or a shared module made it) and taken "
        f"in by none alone ({len(value.consumers)} uses: {users})"
    )
