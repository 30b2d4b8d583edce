"""Progress reporting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

OnProgress: TypeAlias = Callable[[str, float], None]
"""Called with the name of the stage and the fraction (0 to 1) of the whole work that is done."""

Advance: TypeAlias = Callable[[int, int], None]
"""Called with the number of steps done and of all steps of a stage."""


class Stages:
    """Turn progress within named stages into progress of the whole.

    >>> stages = Stages({"read": 1, "train": 3}, lambda stage, done: print(stage, done))
    >>> stages.start("train")(1, 2)
    train 0.25
    train 0.625

    Args:
        weights: expected duration of each stage, in any unit, in the order in which they run.
        on_progress: called with the stage and the fraction of the whole.
    """

    def __init__(self, weights: Mapping[str, float], on_progress: OnProgress) -> None:
        self._weights = dict(weights)
        self._on_progress = on_progress

    def start(self, stage: str) -> Advance:
        """Begin `stage` and return the function that reports its steps."""
        names = list(self._weights)
        whole = sum(self._weights.values())
        before = sum(self._weights[name] for name in names[: names.index(stage)])

        def advance(done: int, total: int) -> None:
            self._on_progress(stage, (before + self._weights[stage] * done / max(total, 1)) / whole)

        advance(0, 1)
        return advance
