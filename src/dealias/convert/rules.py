"""The rules of anti-aliasing: what becomes of the layers, or of the function calls of one module, that subsample.

Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dealias.convert.branches import Branches
from dealias.convert.downsampling import GROWING, Status
from dealias.convert.edits import (
    AnswerActivation,
    AnswerConv,
    AnswerPool,
    AnswerSlice,
    Blur,
    Edit,
    KeepStride,
    ReplacePool,
    SetStride,
)
from dealias.convert.grids import Grids
from dealias.convert.groups import Group
from dealias.convert.layers import CONVERTED
from dealias.convert.placement import Host, Region, follows_linearly, hosts_of, runner_of
from dealias.convert.trace import BLUR, Node, Trace, Value


@dataclass(frozen=True)
class Decision:
    """What to do at the sites of a group; `text` is the action, or the reason why there is none."""

    status: Status
    text: str
    edits: tuple[Edit, ...] = ()
    gated: bool = False  # whether a gate in front of the blur sees the mean of the dense map, not of the subsampled one
    dense: frozenset[Node] = frozenset()  # the convolutions between the sites and the blur, which run on the dense map


class Rules:
    """Decides for each group, with a view of all of them: branches that meet are blurred once."""

    def __init__(self, trace: Trace, grids: Grids, groups: Sequence[Group], placement: str = "after") -> None:
        self.trace, self.groups, self.placement = trace, groups, placement
        self.branches = Branches(grids, groups)
        blurs = [node for node in trace.nodes if node.op == BLUR]
        self.already_blurred = {node.inputs[0] for node in blurs}
        self.blurred_in_place = {node.outputs[0] for node in blurs if node.outputs[0].shape == node.inputs[0].shape}

    def decide(self, group: Group) -> tuple[tuple[Group, ...], list[Decision]]:
        """What anti-aliasing may do to `group`, the best first, and the groups that it does it to."""
        if group.kind == "conv" and not (group.stays or group.problem or self._stays_strided(group)):
            for groups, regions in self.branches.meetings(group):
                if decisions := self._behind(groups, regions):
                    return groups, decisions
            regions = [self.branches.region(spot) for spot in group.spots]
            if decisions := self._behind((group,), regions, runners=True):
                return (group,), decisions
        return (group,), self.decide_alone(group)

    def decide_alone(self, group: Group) -> list[Decision]:
        """What anti-aliasing may do to `group` where it shares no blur with others, the best first."""
        if group.kind in GROWING:
            return [Decision("left alone", "the map grows: nothing is subsampled here")]
        if group.kind == "pixel_unshuffle":
            keeps = f"it keeps all pixels, as channels that each see the map at stride {max(group.stride)}"
            return [refuse(f"{group.title}: {keeps}; a blur in front would remove what it is to keep")]
        rule: Callable[[Group], list[Decision]] | None = getattr(self, f"_{group.kind}", None)
        if rule is None:
            return [refuse(_no_rule(group))]
        return rule(group)

    def _stays_strided(self, group: Group) -> bool:
        """Whether a convolution has, or is to have, its blur in front and keeps its stride."""
        return self.placement == "before" or self._is_blurred_in_front(group)

    def _is_blurred_in_front(self, group: Group) -> bool:
        return all(_unpadded(spot.node.inputs[0]) in self.blurred_in_place for spot in group.spots)

    # Where the blur goes ----------------------------------------------------------------------------------------------

    def _behind(self, groups: Sequence[Group], regions: Sequence[Region], *, runners: bool = False) -> list[Decision]:
        """One blur behind the non-linearity of all `groups`, by place; `runners` are the activations as they run."""
        group = groups[0]
        kept, stride = group.steps
        densify = [one for one in (group.densify() for group in groups) if one is not None]
        meeting = f" where {len(groups)} branches that subsample meet" if len(groups) > 1 else ""
        lead = f"stride {kept[0]}, {_blur_name(stride)}"
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
            decisions.insert(0 if any(group.reads_stride for group in groups) else len(decisions), answered)
        return decisions

    # One rule for each kind of site -----------------------------------------------------------------------------------

    def _blur(self, group: Group) -> list[Decision]:
        by = f" by {type(group.module).__name__}" if group.is_layer else ""
        return [Decision("left alone", f"already anti-aliased{by}")]

    def _conv(self, group: Group) -> list[Decision]:
        if group.stays:
            return [Decision("left alone", _stem_text(group))]
        if group.problem is not None:
            return [refuse(group.problem)]
        if self._is_blurred_in_front(group):
            return [Decision("left alone", "a blur stands in front of it already")]
        if self.placement == "before" and not group.commutes_with_blur:
            return self._in_front(group)
        regions = [self.branches.region(spot) for spot in group.spots]
        if all(region.behind for region in regions):
            return self._behind((group,), regions) or [refuse(_no_module(regions[0].behind[0].value))]
        if any(value in self.already_blurred for region in regions for value in region.in_front):
            return [Decision("left alone", "a blur stands behind it already, before any non-linearity of its own")]
        if any(region.behind for region in regions):
            return [refuse("a non-linearity stands behind some calls of this layer, and not behind others")]
        return self._linear_conv(group, regions)

    def _in_front(self, group: Group) -> list[Decision]:
        """A dense blur in front of a convolution that keeps its stride: its own output aliases."""
        if group.answered:
            edit: Edit = AnswerConv(*group.caller, group.window, group.stride, "before", group.stride, dense=True)
        elif any(spot.call is None or spot.call.input is None for spot in group.spots):
            return [refuse(f"{group.title}: it is given its input by keyword, where no blur can stand in front")]
        else:
            edit = Blur(group.path, before=True, stride=group.stride, dense=True)
        text = f"{_blur_name((1,) * len(group.stride))} in front of it, which keeps its stride{_answer_text(group)}"
        return [Decision("placed", text, (edit,))]

    def _linear_conv(self, group: Group, regions: Sequence[Region]) -> list[Decision]:
        """A convolution without a non-linearity behind it: a blur in front where that is the same, else behind."""
        kept, stride = group.steps
        lead, blur = f"stride {kept[0]}, ", _blur_name(stride)
        no_one = f": no non-linearity of its own stands behind{_answer_text(group)}"
        decisions, densify = [], group.densify()
        assert densify is not None  # as the group has no problem
        if group.commutes_with_blur:
            edits: tuple[Edit, ...] = (densify, Blur(group.path, before=True, stride=stride))
            if group.answered:
                edits = (AnswerConv(*group.caller, group.window, kept, "before", stride),)
            decisions.append(Decision("placed", f"{lead}{blur} in front of it{no_one}", edits))
        for values in reversed(list(zip(*(region.in_front for region in regions), strict=False))):
            if hosts := hosts_of(self.trace, values):
                text = f"{lead}{blur} {_where(hosts)}{no_one}"
                decisions.append(Decision("placed", text, (densify, *_blurs(hosts, stride))))
        if group.answered:
            edit = AnswerConv(*group.caller, group.window, kept, "after", stride)
            decisions.append(Decision("placed", f"{lead}{blur} behind it{no_one}", (edit,)))
        return decisions or [refuse(_no_module(group.spots[0].result))]

    def _max_pool(self, group: Group) -> list[Decision]:
        if group.uses_indices:
            return [refuse("return_indices=True: a blurred maximum has no index")]
        if (problem := group.unanswerable) is not None:
            return [refuse(problem)]
        if group.recipe == "zhang2019" and group.is_resnet_pool and not group.answered:
            text = f"max over 2x2 at stride 1 without padding, then {_blur_name(group.stride)}"
            edit = ReplacePool(group.path, changes={"kernel_size": 2, "padding": 0})
            return [Decision("placed", text, (edit,))]
        pooled = self._pooled(group, f"max at stride 1, then {_blur_name(group.stride)}")
        return [*self._pool_before_activation(group), *pooled]

    def _pool_before_activation(self, group: Group) -> list[Decision]:
        """Convolution, maximum, activation: the blur stands behind the activation."""
        if group.recipe == "zhang2019" or not all(follows_linearly(spot.source) for spot in group.spots):
            return []
        regions = [self.branches.region(spot) for spot in group.spots]
        if group.densify() is None or not all(region.behind for region in regions):
            return []
        return self._behind((group,), regions)

    def _pooled(self, group: Group, text: str, *, dense: bool = False) -> list[Decision]:
        """A pooling by its own anti-aliased form, or else by the pooling at stride 1 and a blur behind it."""
        text += _answer_text(group)
        if group.answered:
            edit = AnswerPool(*group.caller, group.window, group.recipe == "same-size")
            return [Decision("placed", text, (edit,))]
        decisions = []
        if not dense and type(group.module) in CONVERTED:
            decisions.append(Decision("placed", text, (ReplacePool(group.path, group.recipe == "same-size"),)))
        if group.kind in ("max_pool", "avg_pool", "lp_pool") and not group.window.ceil_mode:
            behind = Blur(group.path, before=False, stride=group.stride)
            decisions.append(Decision("placed", text, (SetStride(group.path, (1,) * len(group.stride)), behind)))
        return decisions or [refuse(f"{group.title}: its class cannot be replaced")]

    def _avg_pool(self, group: Group) -> list[Decision]:
        window = group.window
        if group.is_global:
            return [Decision("left alone", "global: the window covers the whole map, so that nothing is subsampled")]
        if (problem := group.unanswerable) is not None:
            return [refuse(problem)]
        blur = _blur_name(group.stride)
        if window.averages_blocks:
            return self._pooled(group, f"{blur} in place of the average")
        if window.ceil_mode and set(window.kernel) != {1}:
            return [refuse(f"ceil_mode=True with kernel_size={window.kernel} and stride={window.stride}")]
        return self._pooled(group, f"average at stride 1, then {blur}", dense=True)

    def _lp_pool(self, group: Group) -> list[Decision]:
        if (problem := group.unanswerable) is not None:
            return [refuse(problem)]
        if group.window.ceil_mode:
            return [refuse(f"{group.title}: ceil_mode=True")]
        return self._pooled(group, f"power average at stride 1, then {_blur_name(group.stride)}")

    def _adaptive_pool(self, group: Group) -> list[Decision]:
        if (problem := self._whole_steps(group)) is not None:
            return [refuse(problem)]
        if group.uses_indices:
            return [refuse("return_indices=True: a blurred maximum has no index")]
        blur = _blur_name(group.stride)
        maximum = "max" in type(group.module).__name__.lower() if group.is_layer else "max" in group.window.kind
        what = f"max at stride 1, then {blur}" if maximum else f"{blur} in place of the average"
        return self._pooled(group, f"{what}, where the sizes divide")

    def _interpolate(self, group: Group) -> list[Decision]:
        if all(spot.node.op.endswith("_aa") for spot in group.spots):
            return [Decision("left alone", "already anti-aliased by antialias=True")]
        if (problem := self._whole_steps(group)) is not None:
            return [refuse(f"{problem}; antialias=True in the call filters")]
        if any("exact" in spot.node.op for spot in group.spots):
            return [refuse(f"{group.title}: mode='nearest-exact' takes other pixels than a blur with this stride")]
        window = group.spots[0].node.window
        if group.module.align_corners if group.is_layer else window is not None and window.rest[3]:
            return [refuse(f"{group.title}: align_corners=True takes other pixels than a blur with this stride")]
        text = f"{_blur_name(group.stride)} in place of the resampling, where the sizes divide"
        return self._pooled(group, text)

    def _whole_steps(self, group: Group) -> str | None:
        """Why a resampling is no subsampling by a stride, if so."""
        floors = group.kind == "interpolate" and group.has_scale_factor  # so that a last pixel may be left out
        for spot in group.spots:
            sizes = zip(spot.input_size, spot.output_size, strict=True)
            if not all(
                old >= new and (old % new == 0 or (floors and old // (old // new) == new)) for old, new in sizes
            ):
                before, after = ("x".join(map(str, size)) for size in (spot.input_size, spot.output_size))
                return f"{group.title}: {before} to {after} pixels is no subsampling by a whole stride"
        if type(group.module) not in CONVERTED if group.is_layer else group.spots[0].node.window is None:
            return _no_rule(group)
        return None

    def _slice(self, group: Group) -> list[Decision]:
        spot = group.spots[0]
        spots = [other for one in self.groups for other in one.spots]
        phases = [other for other in spots if other.kind == "slice" and other.source is spot.source]
        if len(phases) > len(group.spots):
            keep = f"{len(phases)} slices of one map keep its pixels, as a pixel-unshuffle does"
            return [refuse(f"{group.title}: {keep}; a blur in front would remove what they are to keep")]
        if (problem := group.unanswerable) is not None:
            return [refuse(problem)]
        text = f"blur by {group.stride} in front of the slice{_answer_text(group)}"
        return [Decision("placed", text, (AnswerSlice(*group.caller, group.window),))]


def refuse(reason: str) -> Decision:
    """The decision not to place a blur that should be there."""
    return Decision("not placed", reason)


def _unpadded(value: Value) -> Value:
    """The map that was padded to `value`; `value` itself, if none was."""
    while value.producer is not None and "pad" in value.producer.op:
        value = value.producer.inputs[0]
    return value


def _no_rule(group: Group) -> str:
    return f"{group.title}: antialias has no rule for it; low-pass filter in front of it where it matters"


def _blur_name(stride: tuple[int, ...]) -> str:
    return f"BlurPool{len(stride)}d(stride={stride[0] if len(set(stride)) == 1 else stride})"


def _answer_text(group: Group) -> str:
    """Says so where a function call is answered."""
    return "" if group.is_layer else f" ({group.title})"


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
