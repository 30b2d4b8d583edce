"""An audit: the evaluation of a network beside its anti-aliased copy, which is not trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dealias.models import ModelSpec, parse_model

AUDIT_METRICS = ("accuracy", "consistency", "circular", "zero-fill", "diagonal", "equivariance")


def audited_models(
    model: str, *, weights: str | Path | None = None, new_head: bool = False, filter: str = "bin4"
) -> list[ModelSpec]:
    """A network and its anti-aliased copy: the `models` of an audit for `dealias.evaluation.evaluate`.

    Args:
        model: "NAME" or "NAME,KEY=VALUE,...", see `dealias.models.parse_model`.
        weights: checkpoint of the network; random weights without it.
        new_head: load all but the head of weights with another number of classes.
        filter: of the anti-aliased copy: its name, length or taps.

    Raises:
        InputError: as `dealias.models.parse_model`.
    """
    name, own = parse_model(model)
    spec = ModelSpec(name, weights=None if weights is None else str(weights), new_head=new_head, **own)
    return [spec, replace(spec, antialias=filter, label="anti-aliased, not trained")]
