"""Measure how shift-sensitive a network is on the user's images, beside its anti-aliased copy: an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dealias.evaluation import evaluate
from dealias.models import ModelSpec, parse_model
from dealias.progress import OnProgress

AUDIT_METRICS = ("accuracy", "consistency", "circular", "zero-fill", "diagonal", "equivariance")


def run_audit(
    model: str,
    images: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    new_head: bool = False,
    filter: str = "bin4",
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done: None,
) -> dict[str, Any]:
    """Evaluate a network and its anti-aliased copy, which is not trained, with `AUDIT_METRICS`.

    Args:
        model: "NAME" or "NAME,KEY=VALUE,...", see `dealias.models.parse_model`.
        weights: checkpoint of the network; random weights without it.
        new_head: load all but the head of weights with another number of classes.
        filter: of the anti-aliased copy: its name, length or taps.
        images, output, limit, seed, workers, device, resume, on_progress: as for `dealias.evaluation.evaluate`.

    Returns:
        The content of `results.json`.

    Raises:
        InputError, MissingExtraError: as for `dealias.evaluation.evaluate`.
    """
    name, own = parse_model(model)
    spec = ModelSpec(name, weights=None if weights is None else str(weights), new_head=new_head, **own)
    copy = replace(spec, antialias=filter, label="anti-aliased, not trained")
    return evaluate(
        [spec, copy],
        images,
        output,
        metrics=AUDIT_METRICS,
        limit=limit,
        seed=seed,
        workers=workers,
        device=device,
        resume=resume,
        on_progress=on_progress,
        command="audit",
    )
