"""See that planned edits do what was planned, before any is made.

A dense layer that is subsampled behind its non-linearity is the strided layer. So the converted model without a filter
computes what the model computed; where it does not, a plan is to blame.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from dealias.convert.edits import Blur, Edit, WholeMap
from dealias.convert.layers import Blurring
from dealias.convert.nonlinear import Nonlinearity
from dealias.convert.plan import SitePlan
from dealias.convert.recording import ExampleInput, record
from dealias.convert.trace import Call, Trace
from dealias.errors import InputError

# Rounding makes relative differences of 1e-6; a grid that moved by a pixel, of 1e-1 and more.
_TOLERANCE = 1e-2
_UNFILTERED = Blurring("none", "zeros", plain=True)
_AT_TWICE_THE_RATE = replace(_UNFILTERED, rate=2)


class Problem(NamedTuple):
    """What is wrong with a converted model, and whose fault it is, where that is known."""

    text: str
    culprit: SitePlan | None = None


def verified(
    model: nn.Module, example_input: ExampleInput, trace: Trace, plans: Sequence[SitePlan], same_size: bool
) -> list[SitePlan]:
    """`plans`, of which each that fails is replaced by the next best for its sites.

    Without `same_size` maps may change their sizes, as in the paper's recipe, and then only calls are compared. One
    site that fails costs no other: where no plan is known to be the culprit, the placed ones are tried one by one.
    """
    current = list(plans)

    def problem_of(chosen: Sequence[SitePlan]) -> Problem | None:
        placed = [plan for plan in chosen if plan.is_placed]
        return _problem(model, example_input, trace, placed, same_size) if placed else None

    while (problem := problem_of(current)) is not None:
        if problem.culprit is None:
            return _one_by_one(current, problem_of)
        current[current.index(problem.culprit)] = problem.culprit.without(problem.text)
    return current


def _one_by_one(plans: list[SitePlan], problem_of: Callable[[Sequence[SitePlan]], Problem | None]) -> list[SitePlan]:
    """Of each plan in turn the best that works together with those in front of it."""
    good = [plan for plan in plans if not plan.is_placed]
    chosen: list[SitePlan] = []
    for plan in plans:
        while plan.is_placed and (problem := problem_of([*good, *chosen, plan])) is not None:
            plan = plan.without(problem.text)
        chosen.append(plan)
    return chosen


def apply(
    model: nn.Module, plans: Sequence[SitePlan], blurring_of: Callable[[SitePlan], Blurring]
) -> list[tuple[SitePlan, list[nn.Module]]]:
    """Edit `model` by all placed `plans`; return each with its blurring layers."""
    placed = []
    for plan in plans:
        layers = [edit.apply(model, blurring_of(plan)) for edit in plan.decision.edits]
        placed.append((plan, [layer for layer in layers if layer is not None]))
    return placed


def verified_rates(
    model: nn.Module,
    example_input: ExampleInput,
    trace: Trace,
    plans: Sequence[SitePlan],
    found: Sequence[Nonlinearity],
) -> list[Nonlinearity]:
    """`found`, without the edits that would change what a model converted by the verified `plans` computes."""
    placed = [plan for plan in plans if plan.is_placed]

    def problem_of(edits: Sequence[Edit]) -> Problem | None:
        return _problem(model, example_input, trace, placed, True, edits)

    if problem_of([one.edit for one in found if one.edit is not None]) is None:
        return list(found)
    good, checked = list[Edit](), list[Nonlinearity]()
    for one in found:
        problem = None if one.edit is None else problem_of([*good, one.edit])
        checked.append(one if problem is None else one.refused(problem.text))
        good += [] if one.edit is None or problem is not None else [one.edit]
    return checked


def _problem(
    model: nn.Module,
    example_input: ExampleInput,
    before: Trace,
    plans: Sequence[SitePlan],
    same_size: bool,
    rates: Sequence[Edit] | None = None,
) -> Problem | None:
    """What is wrong with `model` under `plans` and, if given, the edits that double `rates`."""
    converted = copy.deepcopy(model)
    unfiltered, layer = (_UNFILTERED, "a blur") if rates is None else (_AT_TWICE_THE_RATE, "twice the rate")
    placed = apply(converted, plans, lambda plan: unfiltered)
    for edit in rates or ():
        edit.apply(converted, unfiltered)
    try:
        after = record(converted, example_input)
    except InputError as error:
        return Problem(f"the model does not run with {layer} here: {str(error).partition('it raised ')[2]}")
    for plan, blurs in placed:
        if (wrong := _wrong_blur(after, plan, blurs, same_size)) is not None:
            return Problem(wrong, plan)
    if not same_size:
        return None
    values = not any(plan.decision.gated for plan in plans)
    changed = _changed_convolution(before, after, plans, values) or _changed_output(before, after, values)
    return None if changed is None else Problem(changed)


def _wrong_blur(after: Trace, plan: SitePlan, blurs: Sequence[nn.Module], same_size: bool) -> str | None:
    """What a blur does that was not planned, if anything."""
    site, spots = plan.sites[0], plan.groups[0].spots
    dense = any(getattr(edit, "dense", False) for edit in plan.decision.edits)
    expected = [spot.input_size if dense else spot.output_size for spot in spots]
    for blur in blurs:
        calls = after.calls_of(blur)
        sizes = [call.output.shape[-len(site.stride) :] for call in calls if call.output is not None]
        if len(calls) != len(expected):
            return f"the blur would run {len(calls)} times in place of {len(expected)}: its module is not called so"
        if same_size and sizes and sizes != expected and site.kind != "slice":
            return f"the blur would return maps of {sizes} pixels, not {expected}"
    behind = any(isinstance(edit, Blur) and not edit.before for edit in plan.decision.edits)
    if behind and any(_is_read_unblurred(call) for blur in blurs for call in after.calls_of(blur)):
        return (
            "the map in front of the blur is also read without it: read the result of an activation with "
            "inplace=True, not its argument"
        )
    return None


def _is_read_unblurred(call: Call) -> bool:
    """Whether what a blur took in is read after the blur; the user's hooks may read it before."""
    source, result = call.input, call.output
    if source is None or result is None or result.producer is None:
        return False
    return source.returned or any(node.index > result.producer.index for node in source.consumers)


def _changed_convolution(before: Trace, after: Trace, plans: Sequence[SitePlan], values: bool) -> str | None:
    """How the map of a convolution changed, if one did: for example where padding is computed from the stride."""
    blurred_in_front = {
        spot.node
        for plan in plans
        for edit in plan.decision.edits
        if (isinstance(edit, Blur) and edit.before and edit.path == plan.sites[0].path)
        or getattr(edit, "blur", None) == "before"
        for spot in plan.spots
    }
    wrapped = {
        spot.node
        for plan in plans
        for group in plan.groups
        if any(isinstance(edit, WholeMap) and edit.path == group.path for edit in plan.decision.edits)
        for spot in group.spots
    }
    for old, new in zip(before.convolutions, after.convolutions, strict=False):
        if old in blurred_in_front | wrapped or any(old in plan.decision.dense for plan in plans):
            continue
        shapes = new.inputs[0].shape, old.inputs[0].shape
        if shapes[0] != shapes[1]:
            return f"`{old.call.path}` would convolve maps of shape {shapes[0]} in place of {shapes[1]}"
        if values and _differ(old.norm, new.norm):
            return f"`{old.call.path}` would convolve other values, with blurs that do not filter"
    return None


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None or not math.isfinite(one):
        return False
    return not abs(one - other) <= _TOLERANCE * max(one, other)


def _changed_output(before: Trace, after: Trace, values: bool) -> str | None:
    """What differs in the outputs; their sizes may where the data decide them and rounding decided otherwise."""
    if len(before.outputs) != len(after.outputs) and len(before.convolutions) == len(after.convolutions):
        return f"the model would return {len(after.outputs)} tensors in place of {len(before.outputs)}"
    for old, new in zip(before.outputs, after.outputs, strict=False):
        if old.shape != new.shape:
            data_decide = len(old.shape) == len(new.shape) and old.shape[1:] == new.shape[1:] and len(old.shape) < 3
            if not data_decide:
                return f"the model would return a tensor of shape {new.shape} in place of {old.shape}"
        elif values and _differ(old.norm, new.norm):
            return "the model would return other values, with blurs that do not filter"
    return None
