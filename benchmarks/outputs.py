"""Calling networks that take and return anything, and comparing what they return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten


def call(model: nn.Module, example: Any) -> Any:
    """What the model returns for a tensor, a tuple of positional or a dict of keyword arguments, without gradients."""
    with torch.no_grad():
        if isinstance(example, dict):
            return model(**example)
        return model(*example) if isinstance(example, tuple) else model(example)


def leaves(output: Any) -> tuple[list[Tensor], str]:
    """The tensors of an output, and its structure in words."""
    found, structure = tree_flatten(plain(output))
    return [one for one in found if isinstance(one, Tensor)], str(structure)


def plain(output: Any) -> Any:
    """An output with the mappings of transformers and torchvision as dicts, which PyTorch's trees know."""
    if isinstance(output, dict):
        return {key: plain(value) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return [plain(value) for value in output]
    return output


def difference(output: Any, expected: Any) -> float:
    """The relative difference of two outputs, over all their tensors of numbers; infinite where shapes differ."""
    (ours, form), (theirs, wanted) = leaves(output), leaves(expected)
    if form != wanted or [one.shape for one in ours] != [one.shape for one in theirs]:
        return float("inf")
    if not theirs:
        raise AssertionError("the network returns no tensor")
    pairs = [(one.dequantize() if one.is_quantized else one, other) for one, other in zip(ours, theirs, strict=True)]
    errors = [
        float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-12))
        for one, other in pairs
        if other.numel()
    ]
    return max((error if error == error else float("inf") for error in errors), default=0.0)
