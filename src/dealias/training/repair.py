"""Repair an anti-aliased copy of a trained network with unlabelled images: it learns to agree with the original.

>>> import torch
>>> from dealias.models import vgg_small
>>> outcome = repair(vgg_small(), torch.rand(20, 1, 32, 32), epochs=1, min_agreement=0.0)
>>> outcome.succeeded, outcome.results["images"]["held_out"]
(True, 4)
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.convert import antialias, sites
from dealias.errors import InputError, InputTypeError
from dealias.files import prepare_output, write_whole
from dealias.optional import require
from dealias.progress import OnProgress, Stages
from dealias.runtime import versions
from dealias.training.folder import problem_of_state
from dealias.training.images import epoch_batches
from dealias.training.repair_parts import (
    Domain,
    averaged_logits,
    feature_loss,
    features_at,
    measure,
    norms_train,
    predict,
    reestimate_statistics,
    split_held_out,
)
from dealias.training.signals import StopSignals, leave

TEMPERATURE = 2.0
SAVE_SECONDS = 30.0
STATE, WEIGHTS, RESULTS = "state.pt", "model.safetensors", "results.json"


@dataclass(frozen=True)
class RepairResult:
    """What `repair` did.

    Attributes:
        model: the repaired network, in evaluation mode.
        results: what `results.json` holds: `original`, `converted`, `reestimated` and `repaired`, each with shares of
            the held-out images and their 95% intervals; the settings; the images.
        succeeded: whether the repaired network agrees with the original on enough of the held-out images.
    """

    model: nn.Module
    results: dict[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether agreement on the held-out images reached `min_agreement`."""
        succeeded: bool = self.results["succeeded"]
        return succeeded


def repair(
    original: nn.Module,
    images: Tensor,
    *,
    converted: nn.Module | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
    crop_size: int | None = None,
    targets: Tensor | None = None,
    epochs: int = 5,
    min_agreement: float = 0.98,
    held_out: float | Sequence[int] = 0.2,
    average_shifts: bool = False,
    feature_weight: float = 1.0,
    learning_rate: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda stage, done: None,
) -> RepairResult:
    """Train an anti-aliased copy of `original`, without labels, until it predicts what the original does.

    Batch-norm statistics are re-estimated first. Then the copy is trained on the original's logits (Kullback-Leibler
    divergence at temperature 2) and on its features at the downsampling sites. A part of the images is held out: the
    copy never sees it while training, and every figure is measured there.

    Args:
        original: a trained classifier; it is not changed.
        images: (N, C, H, W), float as the network expects them, or what `prepare` takes. They need no labels.
        converted: the anti-aliased copy with the original's weights, on the same device; changed in place.
            `dealias.antialias(original)` by default.
        prepare: makes a batch of `images` what the network sees, such as a normalisation of bytes.
        crop_size: side of the window that the network sees of larger images: training takes windows at random,
            accuracy and agreement the middle one, consistency pairs of windows. By default images are taken whole.
        targets: classes (N,), for the accuracy alone.
        epochs: passes over the images that are not held out.
        min_agreement: share of the held-out images whose predictions must be the original's.
        held_out: the share of the images that is held out, or their numbers.
        average_shifts: learn from the mean of the original's predictions over an image and four shifts of it.
        feature_weight: of the features' term of the loss.
        learning_rate: the peak of the one-cycle schedule (SGD, Nesterov momentum 0.9).
        batch_size: images in a step.
        seed: of the split, the order of the images and the shifts.
        output: folder for `results.json`, `state.pt` to resume from, and, if the repair succeeded,
            `model.safetensors`. By default nothing is written.
        resume: go on from the state in `output`, if there is one; the rest is as if never interrupted.
        about: where the network and the images come from, for the record; a run resumes with the same alone.
        on_progress: told the stage and the fraction of the work done.

    Raises:
        InputError: an argument is out of range, or the state in `output` comes from other arguments.
        InputTypeError: an argument is of the wrong type.
        FloatingPointError: the loss is not finite; the message names the step.

    Source of the loss: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015; Romero et al.,
    FitNets, ICLR 2015.
    """
    held_out = held_out if isinstance(held_out, float | int) else [int(number) for number in held_out]
    settings = {
        "epochs": epochs,
        "held_out": held_out,
        "average_shifts": average_shifts,
        "feature_weight": feature_weight,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "crop_size": crop_size,
        "seed": seed,
        **(about or {}),
    }
    check_options(settings | {"min_agreement": min_agreement})
    _check_images(images, targets, crop_size)
    if resume and output is None:
        raise InputError("resume=True needs output: the folder of the interrupted run")
    folder = None if output is None else prepare_output(Path(output))
    stages = Stages({"measuring": 1, "statistics": 1, "repairing": 4 * epochs, "measuring again": 1}, on_progress)
    train, held = split_held_out(images, held_out, seed)
    device = next((tensor.device for tensor in original.parameters()), torch.device("cpu"))
    domain = Domain(images, prepare, crop_size, _pads_circularly(original), device, batch_size, seed)
    modes = [(module, module.training) for module in original.modules()]
    original.eval()
    if converted is None:
        converted = antialias(original, domain.centre(held[:1]))
    job = _Job(original, converted.eval(), domain, train, settings, folder)
    stored = job.load() if resume else None
    if folder is not None and stored is None:
        for name in (RESULTS, WEIGHTS, STATE):
            (folder / name).unlink(missing_ok=True)
    classes = predict(original, domain, held)

    def measured(network: nn.Module) -> dict[str, Any]:
        return measure(network, classes, domain, held, targets)

    if stored is None:
        advance = stages.start("measuring")
        found = {"original": measured(original), "converted": measured(converted)}
        del found["original"]["agreement"], found["original"]["agreement_interval"]
        stages.start("statistics")
        reestimate_statistics(converted, (domain.centre(part) for part in domain.batches(train) if len(part) > 1))
        found["reestimated"] = measured(converted)
    else:
        found = stored
    job.train(found, stages.start("repairing"))
    advance = stages.start("measuring again")
    found["repaired"] = measured(converted.eval())
    for module, training in modes:
        module.training = training
    results = {
        "succeeded": bool(found["repaired"]["agreement"] >= min_agreement),
        "min_agreement": min_agreement,
        **found,
        "consistency_mode": domain.mode,
        "images": {"trained_on": len(train), "held_out": len(held)},
        "settings": settings,
        "versions": versions(),
    }
    if folder is not None:
        if results["succeeded"]:
            tensors = {name: tensor.cpu().contiguous() for name, tensor in converted.state_dict().items()}
            write_whole(folder / WEIGHTS, require("safetensors.torch").save(tensors, {"format": "pt"}))
        else:
            (folder / WEIGHTS).unlink(missing_ok=True)
        write_whole(folder / RESULTS, json.dumps(results, indent=1) + "\n")
    advance(1, 1)
    return RepairResult(converted, results)


class _Job:
    """The training, which can be stopped at any step and go on: what a step draws depends on its number alone."""

    def __init__(
        self,
        original: nn.Module,
        model: nn.Module,
        domain: Domain,
        train: list[int],
        settings: dict[str, Any],
        folder: Path | None,
    ) -> None:
        self.original, self.model, self.domain, self.train_on = original, model, domain, train
        self.settings, self.folder = settings, folder
        self.step = 0
        self.steps_per_epoch = -(-len(train) // settings["batch_size"])
        self.steps = settings["epochs"] * self.steps_per_epoch
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=0.9, nesterov=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings["learning_rate"], total_steps=self.steps + 1
        )
        found = sites(original, domain.centre(train[:1]))
        self.sites = [site for site in found if site.placed and site.path]

    def train(self, found: dict[str, Any], advance: Callable[[int, int], None]) -> None:
        """All steps that are left; `found` is stored with the state."""
        saved = time.monotonic()
        paths = [site.path for site in self.sites]
        norms_train(self.model)
        with (
            features_at(self.original, paths) as theirs,
            features_at(self.model, paths) as ours,
            StopSignals() as signals,
        ):
            while self.step < self.steps:
                self._learn(theirs, ours)
                advance(self.step, self.steps)
                if signals.caught or self.step == self.steps or time.monotonic() - saved > SAVE_SECONDS:
                    self.save(found)
                    saved = time.monotonic()
                if signals.caught:
                    leave(signals.caught)

    def _learn(self, theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
        indices = self._batch()
        seen = self.domain.anywhere(indices, self.step)
        with torch.no_grad():
            wanted = self.original(seen)
            their_features = dict(theirs)
            if self.settings["average_shifts"]:
                others = self.original(self.domain.shifted(indices)).view(len(seen), -1, wanted.shape[1])
                wanted = averaged_logits(torch.cat([wanted.unsqueeze(1), others], 1), TEMPERATURE)
        logits = self.model(seen)
        loss = TEMPERATURE**2 * F.kl_div(
            (logits / TEMPERATURE).log_softmax(1),
            (wanted / TEMPERATURE).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        if self.settings["feature_weight"]:
            loss = loss + self.settings["feature_weight"] * feature_loss(their_features, ours, self.sites)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {self.step}: lower learning_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1

    def _batch(self) -> list[int]:
        epoch, place = divmod(self.step, self.steps_per_epoch)
        numbers = epoch_batches(len(self.train_on), self.settings["batch_size"], self.settings["seed"], epoch)[place]
        return [self.train_on[number] for number in numbers]

    def save(self, found: dict[str, Any]) -> None:
        """Write the state, whole or not at all."""
        if self.folder is None:
            return
        content = {
            "settings": self.settings,
            "images": len(self.domain.images),
            "found": found,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_whole(self.folder / STATE, buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """Take over the state in the folder and return what had been measured; None where there is none.

        Raises:
            InputError: it cannot be read, or comes from other settings or images.
        """
        assert self.folder is not None  # `repair` checked
        path = self.folder / STATE
        if not path.is_file():
            return None
        content = path.read_bytes()
        if problem := problem_of_state(content):
            raise InputError(f"{str(path)!r} cannot be read ({problem}): run without resume to start again")
        stored = torch.load(io.BytesIO(content), map_location=self.domain.device, weights_only=True)
        if not isinstance(stored, dict) or not {"settings", "images", "found", "step"} <= stored.keys():
            raise InputError(f"{str(path)!r} is no state of a repair: run without resume to start again")
        ours = self.settings | {"images": len(self.domain.images)}
        theirs = stored["settings"] | {"images": stored["images"]}
        differing = [f"{name}={theirs.get(name)!r}" for name in ours if ours[name] != theirs.get(name)]
        if differing:
            raise InputError(
                f"resume: the run in {str(self.folder)!r} had {', '.join(differing)}: give the same, or start again "
                "without resume"
            )
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])
        self.schedule.load_state_dict(stored["schedule"])
        self.step = stored["step"]
        found: dict[str, Any] = stored["found"]
        return found


def check_options(options: Mapping[str, Any]) -> None:
    """Check those of the arguments of `repair` that need no images; the mapping may lack some.

    Raises:
        InputError: one is out of range.
    """
    ranges: tuple[tuple[str, Callable[[float], bool], str], ...] = (
        ("epochs", lambda value: value >= 1, "at least 1"),
        ("batch_size", lambda value: value >= 2, "at least 2"),
        ("min_agreement", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
        ("learning_rate", lambda value: 0 < value < math.inf, "positive"),
        ("feature_weight", lambda value: 0 <= value < math.inf, "0 or more"),
    )
    for name, fits, wanted in ranges:
        if name in options and not fits(options[name]):
            raise InputError(f"{name}={options[name]!r} is out of range: it must be {wanted}")
    held_out = options.get("held_out")
    if isinstance(held_out, float | int) and not 0 < held_out < 1:
        raise InputError(f"held_out={held_out!r} is out of range: use a share above 0 and below 1, such as 0.2")


def _check_images(images: Tensor, targets: Tensor | None, crop_size: int | None) -> None:
    if not isinstance(images, Tensor):
        raise InputTypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"images of shape {tuple(images.shape)}: use (N, C, H, W), none of them 0")
    if targets is not None and targets.shape != images.shape[:1]:
        raise InputError(f"targets of shape {tuple(targets.shape)} for {len(images)} images: use ({len(images)},)")
    if crop_size is not None and not 1 <= crop_size < min(images.shape[2:]):
        raise InputError(f"crop_size={crop_size!r} must be at least 1 and below the images' {min(images.shape[2:])}")


def _pads_circularly(model: nn.Module) -> bool:
    """Whether circular shifts commute with the convolutions of `model`."""
    modes = {
        module.padding_mode
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or any(module.padding))
    }
    return modes == {"circular"}
