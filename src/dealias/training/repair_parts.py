"""What repair is made of: the split, batch-norm statistics, features at downsampling sites, and what is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import EllipsisType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dealias.convert import Site
from dealias.errors import InputError
from dealias.metrics import measure_consistency, wilson_interval
from dealias.metrics.views import Mode, make_views
from dealias.perturb import crop


class Domain:
    """Images as the networks see them, and the shifts under which predictions should agree.

    Args:
        images: (N, C, H, W), bytes or what `prepare` takes.
        prepare: makes of a batch of `images` what the networks see.
        crop_size: side of the window that the networks see; None: all of the image.
        circular: whether circular shifts commute with the networks' convolutions.
        device: where the networks are.
        batch_size: images in a forward pass.
        seed: of the shifts.

    Attributes:
        mode: of the shift consistency: "crop" where a window slides, "circular" or "zero_fill".
        shifts: the arguments of that mode.
    """

    def __init__(
        self,
        images: Tensor,
        prepare: Callable[[Tensor], Tensor],
        crop_size: int | None,
        circular: bool,
        device: torch.device,
        batch_size: int,
        seed: int,
    ) -> None:
        self.images, self.prepare, self.crop_size = images, prepare, crop_size
        self.device, self.batch_size = device, batch_size
        self.mode: Mode
        self.shifts: dict[str, Any]
        side = min(images.shape[2:])
        if crop_size is not None:
            self.mode, self.shifts = "crop", {"crop_size": crop_size, "image_size": side}
        elif circular:
            self.mode, self.shifts = "circular", {"max_shift": side // 2}
        else:
            self.mode, self.shifts = "zero_fill", {"max_shift": 3}
        self.shifts["seed"] = seed
        # two pairs: four shifts of an image beside itself
        self._averaged = make_views(self.mode, pairs=2, **self.shifts)

    def whole(self, indices: Sequence[int]) -> Tensor:
        """Images (n, C, H, W) before a window is cut out."""
        return self.prepare(self.images[list(indices)].to(self.device))

    def centre(self, indices: Sequence[int]) -> Tensor:
        """What the networks see when nothing is shifted."""
        return self._window(self.whole(indices), 0.5, 0.5)

    def anywhere(self, indices: Sequence[int], step: int) -> Tensor:
        """A window that the seed and the number of the step decide; all of the image where none slides."""
        down, right = np.random.default_rng((self.shifts["seed"], step)).random(2)
        return self._window(self.whole(indices), down, right)

    def shifted(self, indices: Sequence[int]) -> Tensor:
        """Four shifts of each image: (4 n, C, h, w), those of an image in a row."""
        return self._averaged.of(self.whole(indices), indices)

    def batches(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """The indices, `batch_size` at a time."""
        return (indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size))

    def _window(self, images: Tensor, down: float, right: float) -> Tensor:
        if self.crop_size is None:
            return images
        room = [size - self.crop_size for size in images.shape[2:]]
        return crop(images, round(down * room[0]), round(right * room[1]), self.crop_size)


def split_held_out(images: Tensor, held_out: float | Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out; copies of an image are all on the same side.

    Raises:
        InputError: `held_out` has a number that no image has, or one of the parts would be empty.
    """
    keys = [hashlib.blake2b(image.contiguous().view(torch.uint8).numpy().tobytes()).digest() for image in images.cpu()]
    if isinstance(held_out, float | int):
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
        groups: dict[bytes, list[int]] = {}
        for index in order:
            groups.setdefault(keys[index], []).append(index)
        held: list[int] = []
        wanted = max(round(held_out * len(keys)), 1)
        for group in groups.values():
            if len(held) < wanted:
                held += group
    else:
        held = sorted(set(held_out))
        if not held or held[0] < 0 or held[-1] >= len(keys):
            raise InputError(f"held_out must be a share, or numbers of images from 0 to {len(keys) - 1}")
    kept_out = {keys[index] for index in held}
    train = [index for index, key in enumerate(keys) if key not in kept_out]
    if len(train) < 2:
        raise InputError(
            f"images has {len(keys)} images, {len(train)} of them to train on and {len(held)} held out: give more"
        )
    return train, sorted(held)


def norms_train(model: nn.Module) -> nn.Module:
    """Batch norms in training mode, all else (dropout, stochastic depth) in evaluation mode."""
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return model


@torch.no_grad()
def reestimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set each batch norm's mean and variance to their averages over `batches`; the weights stay."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    norms_train(model)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's cumulative average
    for images in batches:
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@contextmanager
def features_at(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While open: what the layers at `paths` returned in the last forward pass."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[path] = output

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def feature_loss(theirs: dict[str, Tensor], ours: dict[str, Tensor], sites: Sequence[Site]) -> Tensor:
    """Mean over the sites of |ours - theirs|^2 / |theirs|^2, on the grid that the original samples.

    A convolution of stride 2 that became one of stride 1 is compared where the original has values. Sites whose maps
    then still differ in size do not count.
    """
    losses = []
    for site in sites:
        their, our = theirs.get(site.path), ours.get(site.path)
        if their is None or our is None:
            continue
        if our.shape != their.shape:
            grid: tuple[EllipsisType | slice, ...] = (..., *(slice(None, None, step) for step in site.stride))
            our = our[grid]
        if our.shape == their.shape:
            losses.append(F.mse_loss(our, their) / their.square().mean().clamp_min(1e-12))
    return torch.stack(losses).mean() if losses else torch.zeros(())


def averaged_logits(views: Tensor, temperature: float) -> Tensor:
    """Logits (N, classes) whose softened probabilities are the mean of those of logits (N, views, classes)."""
    mean = (views / temperature).softmax(-1).mean(1)
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log() * temperature


def measure(
    network: nn.Module, original_classes: Tensor, domain: Domain, indices: Sequence[int], targets: Tensor | None
) -> dict[str, Any]:
    """Shares with 95% intervals over the images at `indices`: agreement with the original, consistency, accuracy.

    Args:
        network: in evaluation mode.
        original_classes: what the original predicts of each of them.
        domain: has the images.
        indices: which of them are measured.
        targets: the classes (N,) of all images of `domain`; None where they are not known.
    """
    classes = predict(network, domain, indices)
    found: dict[str, Any] = _share("agreement", classes == original_classes)
    consistent = measure_consistency(
        network,
        (domain.whole(part) for part in domain.batches(indices)),
        mode=domain.mode,
        batch_size=domain.batch_size,
        **domain.shifts,
    )
    found |= {"consistency": consistent.consistency, "consistency_interval": list(consistent.interval)}
    if targets is not None:
        found |= _share("accuracy", classes == targets[list(indices)])
    return found


@torch.no_grad()
def predict(network: nn.Module, domain: Domain, indices: Sequence[int]) -> Tensor:
    """The top-1 classes of the images at `indices`, unshifted."""
    return torch.cat([network(domain.centre(part)).argmax(1).cpu() for part in domain.batches(indices)])


def _share(name: str, hits: Tensor) -> dict[str, Any]:
    count = int(hits.sum())
    return {name: count / len(hits), f"{name}_interval": list(wilson_interval(count, len(hits)))}
