"""Decide for each downsampling site what anti-aliasing does to it: group the sites by what one change covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dealias.convert.edits import AnswerAvgPool, AnswerConv, AnswerMaxPool
from dealias.convert.placement import enclosing
from dealias.convert.rules import Decision, Group, blur_name, decide, place, refuse
from dealias.convert.sites import Site, Spot, find_spots, unreached_layers
from dealias.convert.trace import Call, Node, Trace

RECIPES = ("same-size", "zhang2019")
_ANSWERS = (AnswerMaxPool, AnswerAvgPool, AnswerConv)


@dataclass(frozen=True, eq=False)
class Plan:
    """The sites that one decision covers, the spots in the trace where they are, and the sizes of the blurred maps."""

    decision: Decision
    spots: tuple[Spot, ...]
    sites: tuple[Site, ...]
    blurred: tuple[tuple[int, ...], ...]

    @property
    def blurs(self) -> bool:
        """Whether `antialias` places a blur at these sites."""
        return self.decision.status == "placed"


def make_plan(trace: Trace, model: nn.Module, *, stem: bool, recipe: str) -> list[Plan]:
    """What to do at every downsampling site of `trace`, by the layer that subsamples there, in order of first use."""
    groups: dict[Any, list[Spot]] = {}
    for spot in find_spots(trace):
        groups.setdefault(_key(spot, stem), []).append(spot)
    plans = []
    for spots in groups.values():
        call = spots[0].call or _owner(spots[0])
        group = Group(
            trace, call.module, call.path or "", tuple(spots), stem, recipe, is_layer=spots[0].call is not None
        )
        plans.append(_plan(decide(group), spots))
    plans = _without_conflicts(trace, _with_concatenations(trace, plans))
    for kind, path, stride in unreached_layers(trace, model):
        reason = "example_input does not reach this layer by a call, so nothing is known of what follows it"
        site = Site(kind, path, stride, (), (), "not placed", reason=reason)
        plans.append(Plan(refuse(reason), (), (site,), ()))
    return plans


def _key(spot: Spot, stem: bool) -> Any:
    """One layer, or the function calls in one module that one answer covers."""
    if spot.call is not None and spot.call.path is not None:
        return spot.call.module
    if spot.kind in ("conv", "max_pool", "avg_pool"):
        return _owner(spot).module, spot.window, spot.source.depth == 0 and not stem
    return spot


def _owner(spot: Spot) -> Call:
    """The call of the module that makes a function call: the innermost one that is registered in the model."""
    return next(call for call in enclosing(spot.node) if call.path is not None)


def _plan(decision: Decision, spots: Sequence[Spot]) -> Plan:
    sites = tuple(_site(spot, decision) for spot in spots)
    return Plan(decision, tuple(spots), sites, tuple(site.output_size for site in sites))


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


def _with_concatenations(trace: Trace, plans: list[Plan]) -> list[Plan]:
    """One blur behind a concatenation of maps that are all to be blurred, where they cannot be blurred one by one."""
    for node in trace.nodes:
        if node.op != "cat":
            continue
        parts = _parts(plans, node)
        if parts is None:
            continue
        stride, spots = parts[0].spots[0].stride, [spot for plan in parts for spot in plan.spots]
        found = place(trace, [node.outputs[0]], stride)
        if found is None:
            continue
        edit, where = found
        text = f"stride 1, {blur_name(stride)} {where}, behind a concatenation of {len(spots)} maps that need it"
        edits = (*(edit for plan in parts for edit in plan.decision.densify), edit)
        merged = replace(_plan(Decision("placed", text, edits), spots), blurred=(spots[0].output_size,))
        plans = [merged if plan is parts[0] else plan for plan in plans if plan not in parts[1:]]
    return plans


def _parts(plans: Sequence[Plan], node: Node) -> list[Plan] | None:
    """The plans that make the inputs of a concatenation, if they can be blurred together, and at least one must be."""
    by_end = {id(value): plan for plan in plans for value in plan.decision.ends}
    parts = [by_end.get(id(value)) for value in node.inputs]
    found = list(dict.fromkeys(plan for plan in parts if plan is not None))
    if None in parts or all(plan.blurs for plan in found):
        return None
    ends = [value for plan in found for value in plan.decision.ends]
    spots = [spot for plan in found for spot in plan.spots]
    uniform = len({spot.stride for spot in spots}) == len({spot.dense_size for spot in spots}) == 1
    return found if uniform and {id(end) for end in ends} == {id(value) for value in node.inputs} else None


def _without_conflicts(trace: Trace, plans: list[Plan]) -> list[Plan]:
    """Refuse to answer function calls where another site in the same module makes the same call and is to stay."""
    kept = []
    for plan in plans:
        answers = [edit for edit in plan.decision.edits if isinstance(edit, _ANSWERS)]
        for answer in answers:
            calls = [call for call in trace.calls if call.path == answer.path]
            others = [
                spot
                for other in plans
                if other is not plan and not other.blurs
                for spot in other.spots
                if spot.kind == answer.window.kind and spot.window == answer.window
                if any(call.runs(spot.node) for call in calls)
            ]
            if others:
                reason = f"`{answer.path}` makes the same call at another site that stays as it is"
                plan = _plan(refuse(reason), plan.spots)
                break
        kept.append(plan)
    return kept
