"""The verdict on a repair: whether it reached its aims, how far it is short, and what would likely help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dealias.metrics import wilson_interval
from dealias.repair.held_out import Figure

FEW = 30
"""Fewer held-out images than this are no evidence: a 95% interval is then wider than 30 points."""


def judge(
    figures: Mapping[str, Any], figure: Figure, min_agreement: float, min_consistency: float | None = None
) -> list[str]:
    """Judge a repair by its figures on the held-out images.

    Args:
        figures: "original" and "repaired", as `dealias.repair.held_out.HeldOut.measure` gives them, and "curve": the
            agreement on the held-out images, and on as many of those trained on, after each epoch.
        figure: of the task.
        min_agreement: the aim of the agreement, where the figure is a share. Otherwise the aim is the original's
            consistency: how much its answers to shifted images differ.
        min_consistency: the aim of the consistency, which its interval must reach; None: the original's.

    Returns:
        A sentence for each aim that was not reached, and one for what would likely help; none if the repair succeeded.
    """
    repaired, natural = figures["repaired"], figures["original"]["consistency"]
    wanted = min_agreement if figure.is_share else natural
    reasons = []
    if _short(repaired["agreement"], wanted, figure):
        reasons.append(_distance("agreement", repaired["agreement"], wanted, figure))
    best_end = repaired["consistency_interval"][figure.larger_is_better]
    wanted = natural if min_consistency is None else min_consistency
    if _short(best_end, wanted, figure):
        whose = " of the original" if min_consistency is None else ""
        reasons.append(_distance("consistency", repaired["consistency"], wanted, figure) + whose)
    if reasons and figures["curve"]:
        reasons.append(_remedy(figures["curve"], figure))
    return reasons


def _short(value: float, wanted: float, figure: Figure) -> bool:
    return value < wanted if figure.larger_is_better else value > wanted


def _distance(name: str, value: float, wanted: float, figure: Figure) -> str:
    if figure.is_share:
        return f"{name} {value:.1%} is {100 * (wanted - value):.1f} points short of {wanted:.1%}"
    side = "below" if figure.larger_is_better else "above"
    return f"{name} {figure.text(value)} is {side} {figure.text(wanted)}"


def _remedy(curve: Sequence[Mapping[str, Any]], figure: Figure) -> str:
    """What would likely help: more epochs if the agreement still improves, more pictures if they are memorised."""
    last, trained_on = curve[-1]["agreement"], curve[-1]["trained_on"]
    if len(curve) > 1:
        before = curve[-2]["agreement"]
        change = f"agreement went from {figure.text(before)} to {figure.text(last)} in the last epoch"
        if _improves(before, last, curve[-1]["images"], figure):
            return f"{change}: more epochs will likely help"
    else:
        change = "there was one epoch"
    is_memorised = trained_on - last > 0.05 if figure.is_share else _short(last, trained_on, figure)
    if is_memorised:
        return (
            f"{change}, and is {figure.text(trained_on)} on images that were trained on: more pictures will likely "
            "help, more epochs will not"
        )
    return f"{change}, and is no better on images that were trained on: more epochs or a higher learning_rate may help"


def _improves(before: float, last: float, images: int, figure: Figure) -> bool:
    """Whether the last epoch brought more than chance does: of a share by its interval, otherwise by a twentieth."""
    if figure.is_share:
        return last > wilson_interval(round(before * images), images)[1]
    return _short(before, last, figure) and abs(last - before) > 0.05 * abs(before)
