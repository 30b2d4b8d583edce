"""The verdict on a repair: each aim, and each remedy."""

from __future__ import annotations

from typing import Any

import pytest

from dealias.repair.held_out import FIGURES
from dealias.repair.verdict import judge

CLASSES = FIGURES["classes"]


def figures(agreement: float, consistency: float, *curve: dict[str, Any]) -> dict[str, Any]:
    interval = [consistency - 0.02, consistency + 0.02]
    repaired = {"agreement": agreement, "consistency": consistency, "consistency_interval": interval}
    return {"original": {"consistency": 0.8}, "repaired": repaired, "curve": [*curve]}


def point(agreement: float, trained_on: float) -> dict[str, Any]:
    return {"agreement": agreement, "trained_on": trained_on, "images": 1000}


def test_a_repair_that_reached_its_aims_needs_no_reasons() -> None:
    # the interval reaches the original's 0.8
    assert judge(figures(0.99, 0.79, point(0.99, 0.99)), CLASSES, 0.98) == []


@pytest.mark.parametrize(
    ("agreement", "consistency", "wanted", "reasons"),
    [
        (0.9, 0.9, None, ["agreement 90.0% is 8.0 points short of 98.0%"]),
        (0.99, 0.7, None, ["consistency 70.0% is 10.0 points short of 80.0% of the original"]),
        (0.99, 0.9, 0.95, ["consistency 90.0% is 5.0 points short of 95.0%"]),
        (0.97, 0.7, 0.75, ["agreement 97.0% is 1.0 points", "consistency 70.0% is 5.0 points short of 75.0%"]),
    ],
)
def test_the_part_that_is_short_is_named(
    agreement: float, consistency: float, wanted: float | None, reasons: list[str]
) -> None:
    found = judge(figures(agreement, consistency), CLASSES, 0.98, wanted)
    assert len(found) == len(reasons)
    assert all(given.startswith(expected) for given, expected in zip(found, reasons, strict=True))


@pytest.mark.parametrize(
    ("curve", "remedy"),
    [
        ([point(0.5, 0.5), point(0.9, 0.9)], "to 90.0% in the last epoch: more epochs will likely help"),
        ([point(0.9, 0.99), point(0.9, 0.99)], "more pictures will likely help, more epochs will not"),
        ([point(0.9, 0.9), point(0.9, 0.9)], "more epochs or a higher learning_rate may help"),
        ([point(0.9, 0.99)], "there was one epoch, and is 99.0% on images that were trained on: more pictures"),
    ],
)
def test_the_curve_tells_what_would_help(curve: list[dict[str, Any]], remedy: str) -> None:
    assert remedy in judge(figures(0.9, 0.9, *curve), CLASSES, 0.98)[-1]
