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
from dealias.metrics.outputs import Task


def logit_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened predictions from the wanted ones, times the squared temperature."""
    ours, theirs = ((each / temperature).log_softmax(1) for each in (logits, wanted))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def output_loss(ours: Any, theirs: Any, task: Task, temperature: float) -> Tensor:
    """Mean over the tensors in an output of the copy's distance from the original.

    Outputs may be nested. Class scores are compared by their Kullback-Leibler divergence, in maps at each pixel;
    embeddings by 1 - cosine; boxes, points, images and all else by the smooth L1 distance in standard deviations of
    each channel, weighted by how sure the original is that there is an object. Tensors whose size the image decides,
    such as the boxes that torchvision's detectors return, do not count.
    """
    wanted = tensors_in(theirs)
    sure = _sureness(wanted)
    losses = [
        _tensor_loss(path, our, wanted[path], task, sure, temperature)
        for path, our in tensors_in(ours).items()
        if path in wanted and our.shape == wanted[path].shape and our.is_floating_point()
    ]
    return torch.stack(losses).mean() if losses else torch.zeros(())


def tensors_in(output: Any, path: str = "") -> dict[str, Tensor]:
    """The tensors in nested lists, tuples and mappings by their place, such as ".logits" or "[0][1]"."""
    if isinstance(output, Tensor):
        return {path: output}
    parts: list[tuple[str, Any]] = []
    if isinstance(output, Mapping):
        parts = [(f"{path}.{key}", value) for key, value in output.items()]
    elif isinstance(output, list | tuple):
        parts = [(f"{path}[{place}]", value) for place, value in enumerate(output)]
    return {name: tensor for place, value in parts for name, tensor in tensors_in(value, place).items()}


def _tensor_loss(path: str, our: Tensor, their: Tensor, task: Task, sure: Tensor | None, temperature: float) -> Tensor:
    if _is_distribution(their):
        our, their = _as_rows(our, 1), _as_rows(their, 1)
        return F.kl_div(our.clamp_min(1e-12).log(), their, reduction="batchmean")
    is_named = path.endswith("logits")
    if is_named or (task, their.ndim) in (("classes", 2), ("segmentation", 4)):
        axis = -1 if is_named and their.ndim == 3 else 1
        return logit_loss(_as_rows(our, axis), _as_rows(their, axis), temperature)
    if task == "embeddings":
        return 1 - F.cosine_similarity(our.flatten(1), their.flatten(1)).mean()
    return _value_loss(our, their, sure)


def _as_rows(values: Tensor, axis: int) -> Tensor:
    """Values (places, classes), the classes from that axis."""
    return values.movedim(axis, -1).flatten(0, -2)


def _is_distribution(values: Tensor) -> bool:
    """Whether the second axis holds the probabilities of at least two classes."""
    if values.ndim < 2 or values.shape[1] < 2 or bool((values < 0).any()):
        return False
    return bool(((values.sum(1) - 1).abs() < 1e-3).all())


def _sureness(wanted: Mapping[str, Tensor]) -> Tensor | None:
    """The original's probability, at each place, that there is an object; None where its output does not tell.

    Probabilities (N, classes, ...) have no object as their first class; the logits (N, places, classes) of the DETR
    family as their last; the values (N, 4 + classes, places) of ultralytics have a probability for each class.
    """
    for path, values in wanted.items():
        if _is_distribution(values):
            return 1 - values[:, 0]
        if path.endswith("logits") and values.ndim == 3:
            return 1 - values.softmax(-1)[..., -1]
        scores = values[:, 4:] if values.ndim == 3 else values[:0]
        if scores.numel() and bool(((scores >= 0) & (scores <= 1)).all()):
            return scores.amax(1)
    return None


def _value_loss(our: Tensor, their: Tensor, sure: Tensor | None) -> Tensor:
    by_channel = their.movedim(1, 0).flatten(1) if their.ndim > 1 else their[None]
    spread = by_channel.std(1, correction=0).clamp_min(1e-6)
    shape = (1, -1, *[1] * (their.ndim - 2)) if their.ndim > 1 else (1,)
    distance = F.smooth_l1_loss(our / spread.view(shape), their / spread.view(shape), reduction="none")
    weights = None if sure is None else _weights(sure, their)
    return distance.mean() if weights is None else (distance * weights).sum() / weights.expand_as(distance).sum()


def _weights(sure: Tensor, values: Tensor) -> Tensor | None:
    """`sure` beside values (N, channels, ...) or (N, places, 4); None where it has another layout."""
    if sure.shape == values.shape[:1] + values.shape[2:]:
        return sure.unsqueeze(1).clamp_min(1e-3)
    return sure.unsqueeze(-1).clamp_min(1e-3) if sure.shape == values.shape[:-1] else None


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
