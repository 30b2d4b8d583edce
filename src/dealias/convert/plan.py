"""Plan what anti-aliasing does to a recorded model: group the sites by what one change covers, and decide for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from dealias.convert.downsampling import Site, Spot, find_downsampling, unreached_layers
from dealias.convert.edits import AnswerConv, AnswerPool
from dealias.convert.groups import Group, Stem
from dealias.convert.placement import caller_of
from dealias.convert.rules import Decision, Rules, refuse
from dealias.convert.trace import Trace

RECIPES = ("same-size", "zhang2019")
PLACEMENTS = ("after", "before")


@dataclass(frozen=True, eq=False)
class SitePlan:
    """What is to be done at the sites of a layer, or of several layers whose maps meet."""

    decision: Decision
    groups: tuple[Group, ...]  # by layer or function call
    alternatives: tuple[Decision, ...] = ()  # should this not do, the best first
    unreached: tuple[Site, ...] = field(default=(), repr=False)

    @property
    def is_placed(self) -> bool:
        """Whether `antialias` places a blur at these sites."""
        return self.decision.status == "placed"

    @property
    def spots(self) -> list[Spot]:
        """All spots, those of the first group first."""
        return [spot for group in self.groups for spot in group.spots]

    @property
    def sites(self) -> list[Site]:
        """A site for each spot."""
        return [*self.unreached, *(spot.site(self.decision.status, self.decision.text) for spot in self.spots)]

    def without(self, problem: str) -> SitePlan:
        """The next best plan for the same sites; a refusal for the reason `problem` where none is left."""
        if self.alternatives:
            return replace(self, decision=self.alternatives[0], alternatives=self.alternatives[1:])
        return replace(self, decision=refuse(problem))


def make_plans(trace: Trace, model: nn.Module, *, stem: Stem, recipe: str, placement: str = "after") -> list[SitePlan]:
    """What to do at every downsampling site of `trace`, by the layer that subsamples there, in order of first use."""
    found, grids = find_downsampling(trace)
    spots: dict[Any, list[Spot]] = {}
    for spot in found:
        spots.setdefault(_key(spot, stem), []).append(spot)
    groups = [Group(trace, members, stem, recipe) for members in spots.values()]
    rules, plans, covered = Rules(trace, grids, groups, placement), list[SitePlan](), set[Group]()
    for group in groups:
        if group in covered:
            continue
        members, decisions = rules.decide(group)
        if not covered.isdisjoint(members):  # another branch of theirs has its blur by itself
            members, decisions = (group,), rules.decide_alone(group)
        covered.update(members)
        plans = [plan for plan in plans if plan.groups[0] not in members]
        plans.append(SitePlan(decisions[0], members, tuple(decisions[1:])))
    plans = [_without_conflict(plan, plans, trace) for plan in plans]
    plans += [SitePlan(refuse(site.reason or ""), (), unreached=(site,)) for site in unreached_layers(trace, model)]
    return plans


def _key(spot: Spot, stem: Stem) -> Any:
    """What one change covers: a layer, or all calls of a function with the same arguments by one method."""
    if spot.call is not None:
        return spot.call.module
    if spot.node.window is not None:
        return caller_of(spot.node), spot.window, spot.source.depth == 0 and not stem
    return spot


def _without_conflict(plan: SitePlan, plans: Sequence[SitePlan], trace: Trace) -> SitePlan:
    """Refuse to answer function calls where another site in the same module makes the same call and is to stay."""
    staying = [spot for other in plans if other is not plan and not other.is_placed for spot in other.spots]
    for edit in plan.decision.edits:
        if isinstance(edit, AnswerConv | AnswerPool):
            calls = [call for call in trace.calls if call.path == edit.path]
            same = [spot.node for spot in staying if spot.node.window == edit.window]
            if any(call.runs(node) for call in calls for node in same):
                return plan.without(f"`{edit.path}` makes the same call at another site that stays as it is")
    return plan
