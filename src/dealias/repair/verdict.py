"""The verdict on a repair: whether it reached its aims, how far it is short, and what would likely help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dealias.metrics import wilson_interval

FEW = 30
"""Fewer held-out images than this are no evidence: a 95% interval is then wider than 30 points."""


@dataclass(frozen=True)
class Verdict:
    """Whether a repair reached its aims.

    Attributes:
        succeeded: both aims were reached.
        reasons: one sentence for each aim that was not reached, and one for what would likely help.
    """

    succeeded: bool
    reasons: list[str]


def judge(
    figures: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    min_agreement: float,
    min_consistency: float | None = None,
) -> Verdict:
    """Judge a repair by its figures on the held-out images.

    Args:
        figures: "original" and "repaired", as `dealias.repair.domain.HeldOut.measure` gives them.
        curve: the agreement on the held-out images, and on as many of those trained on, after each epoch.
        min_agreement: the fraction that the agreement must reach.
        min_consistency: the fraction that the consistency's interval must reach; None: the original's consistency.
    """
    repaired, original = figures["repaired"], figures["original"]
    reasons = []
    if repaired["agreement"] < min_agreement:
        reasons.append(
            f"agreement {repaired['agreement']:.1%} is {100 * (min_agreement - repaired['agreement']):.1f} points "
            f"short of {min_agreement:.1%}"
        )
    wanted = original["consistency"] if min_consistency is None else min_consistency
    if repaired["consistency_interval"][1] < wanted:
        whose = " of the original" if min_consistency is None else ""
        reasons.append(
            f"consistency {repaired['consistency']:.1%} is {100 * (wanted - repaired['consistency']):.1f} points "
            f"short of {wanted:.1%}{whose}"
        )
    if reasons and curve:
        reasons.append(_remedy(curve))
    return Verdict(not reasons, reasons)


def _remedy(curve: Sequence[Mapping[str, Any]]) -> str:
    """What would likely help: more epochs where the agreement still rises, more pictures where they were memorised."""
    last = curve[-1]
    gap = last["trained_on"] - last["agreement"]
    if len(curve) > 1:
        before = curve[-2]
        _, high = wilson_interval(round(before["agreement"] * last["images"]), last["images"])
        rise = f"agreement went from {before['agreement']:.1%} to {last['agreement']:.1%} in the last epoch"
        if last["agreement"] > high:
            return f"{rise}: more epochs will likely help"
    else:
        rise = "there was one epoch"
    if gap > 0.05:
        return (
            f"{rise}, and is {last['trained_on']:.1%} on images that were trained on: more pictures will likely help, "
            "more epochs will not"
        )
    return f"{rise}, and is no higher on images that were trained on: more epochs or a higher learning_rate may help"
