"""Which networks to evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dealias.errors import InputError
from dealias.models import ModelSpec

__all__ = ["ModelSpec", "label_models"]


def label_models(models: Sequence[ModelSpec | str]) -> list[ModelSpec]:
    """The networks, each with a label of its own.

    Raises:
        InputError: there are none, or two have the same label.
    """
    specs = [ModelSpec.parse(model) if isinstance(model, str) else model for model in models]
    if not specs:
        raise InputError("models is empty: name at least one network")
    labelled: list[ModelSpec] = []
    for spec in specs:
        own = spec.label or spec.name.partition(":")[2] + (f" + {spec.antialias}" if spec.antialias else "")
        same = sum(each.label == own or each.label.startswith(f"{own} #") for each in labelled)
        if same and spec.label:
            raise InputError(f"label={own!r} names two networks: give each its own")
        labelled.append(replace(spec, label=f"{own} #{same + 1}" if same else own))
    return labelled
