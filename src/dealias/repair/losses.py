"""Losses: how far the copy's outputs and features are from the original's.

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015; Romero et al., FitNets, ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.convert import Site


def logit_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened predictions from the wanted ones, times the squared temperature."""
    ours, theirs = ((each / temperature).log_softmax(1) for each in (logits, wanted))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def averaged_logits(views: Tensor, temperature: float) -> Tensor:
    """Logits (N, classes) whose softened probabilities are the mean of those of logits (N, views, classes)."""
    mean = (views / temperature).softmax(-1).mean(1)
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log() * temperature


def feature_loss(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], sites: Sequence[Site]) -> Tensor:
    """Mean over the sites of |ours - theirs|^2 / |theirs|^2, on the grid that the original samples.

    A convolution of stride 2 that became one of stride 1 is compared where the original has values. Sites whose maps
    still differ in size then do not count.
    """
    losses = []
    for site in sites:
        their, our = theirs.get(site.path), ours.get(site.path)
        if their is None or our is None:
            continue
        if our.shape != their.shape:
            grid: tuple[Any, ...] = (..., *(slice(None, None, step) for step in site.stride))
            our = our[grid]
        if our.shape == their.shape:
            losses.append(F.mse_loss(our, their) / their.square().mean().clamp_min(1e-12))
    return torch.stack(losses).mean() if losses else torch.zeros(())


@contextmanager
def features_at(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open: the outputs of the layers at `paths` in the last forward pass."""
    found: dict[str, Tensor] = {}

    def keep(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found[path] = output

    with ExitStack() as hooks:
        for path in paths:
            hooks.enter_context(model.get_submodule(path).register_forward_hook(partial(keep, path)))
        yield found
