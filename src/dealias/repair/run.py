"""Repair an anti-aliased copy of a trained network with unlabelled images: it learns to agree with the original."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dealias.errors import InputError
from dealias.metrics._evaluation import evaluating
from dealias.progress import OnProgress, Stages
from dealias.repair.distillation import Distillation
from dealias.repair.domain import Domain, near_duplicates, split_held_out
from dealias.repair.folder import RepairFolder
from dealias.repair.held_out import FIGURES, HeldOut
from dealias.repair.options import RepairOptions
from dealias.repair.parts import antialias_parts, record_inputs
from dealias.repair.verdict import FEW, judge
from dealias.runtime import broadcast, process_group, versions
from dealias.training.signals import StopSignals, leave

SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class RepairResult:
    """The outcome of `repair`.

    Attributes:
        model: the repaired network, in evaluation mode.
        results: the content of `results.json`: `original`, `converted`, `reestimated` (not with `keep_norms`) and
            `repaired`, each with fractions of the held-out images and their 95% intervals; `curve`, the agreement after
            each epoch; `reasons`, why it did not succeed and what would likely help; the settings; the images.
        is_main_process: whether this is the process that wrote the files: the first of torchrun's.
    """

    model: nn.Module
    results: dict[str, Any]
    is_main_process: bool = True

    @property
    def succeeded(self) -> bool:
        """Whether the repaired network reached its aims on the held-out images: see `dealias.repair.verdict`."""
        return bool(self.results["succeeded"])


def repair(
    original: nn.Module,
    images: Tensor,
    *,
    converted: nn.Module | None = None,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
    crop_size: int | None = None,
    targets: Tensor | None = None,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda stage, done: None,
    **options: Any,
) -> RepairResult:
    """Train an anti-aliased copy of `original`, without labels, until it predicts what the original does.

    Batch-norm statistics are re-estimated first, unless `keep_norms`. Then the copy is trained on what the original
    returns (see `dealias.repair.losses.output_loss`) and on its features at the downsampling sites. A part of the
    images is held out: the copy never sees it while training, and every figure is measured there.

    >>> from dealias.models import vgg_small
    >>> outcome = repair(vgg_small(), torch.rand(20, 1, 32, 32), epochs=1, min_agreement=0, min_consistency=0)
    >>> outcome.succeeded, outcome.results["images"]["held_out"]
    (True, 4)

    Args:
        original: a trained network of any task; it is not changed.
        images: (N, C, H, W), float as the network expects them, or in any form that `prepare` takes.
        converted: the anti-aliased copy with the original's weights, on the same device; changed in place.
            `dealias.antialias(original)` by default; of a pipeline, its parts are anti-aliased.
        prepare: turns a batch of `images` into what the network sees, such as a normalisation of bytes.
        crop_size: side of the window that the network sees of larger images. Training takes windows at random,
            accuracy and agreement take the middle one, consistency pairs of windows. By default images are taken whole.
        targets: classes (N,), for the accuracy alone.
        output: folder for `results.json`, `state.pt` to resume from, and, if the repair succeeded,
            `model.safetensors`. By default nothing is written.
        resume: go on from the state in `output`, if there is one; the result is that of an unbroken run. A run that
            has finished goes on for the epochs that are added.
        about: where the network and the images come from, for the record. A run resumes only with the same record.
        on_progress: called with the stage and the fraction of the work done.
        options: the fields of `dealias.repair.RepairOptions`.

    Raises:
        InputError: an argument is out of range or of the wrong type, or the state in `output` has other arguments.
        FloatingPointError: the loss is not finite; the message names the step.
    """
    chosen = RepairOptions(**options)
    if resume and output is None:
        raise InputError("resume=True needs output: the folder of the interrupted run")
    folder = None if output is None else RepairFolder(output, resume=resume)
    domain = Domain(
        images,
        prepare=prepare,
        crop_size=crop_size,
        circular=_pads_circularly(original),
        device=next((tensor.device for tensor in original.parameters()), torch.device("cpu")),
        batch_size=chosen.batch_size,
        seed=chosen.seed,
    )
    with evaluating(original), torch.enable_grad(), process_group() as (rank, processes):
        own = folder if rank == 0 else None
        with own or nullcontext():
            run = _Run(original, converted, domain, targets, chosen, about or {}, (rank, processes))
            outcome = run.outcome(run.figures(own, on_progress))
            if own is not None:
                own.finish(outcome.results, outcome.model)
    return outcome


class _Run:
    """A repair: measures, re-estimates, distils, and measures again."""

    def __init__(
        self,
        original: nn.Module,
        converted: nn.Module | None,
        domain: Domain,
        targets: Tensor | None,
        options: RepairOptions,
        about: Mapping[str, Any],
        process: tuple[int, int],
    ) -> None:
        self._original, self._domain, self._options = original, domain, options
        self._rank, self._processes = process
        self._train_on, self._held = split_held_out(domain.images, options.held_out, options.seed)
        if self._rank == 0:
            self._warn_of_weak_evidence()
        self._held_out = HeldOut(domain, self._held, original, targets, options.task)
        some = self._train_on[:: max(len(self._train_on) // len(self._held), 1)][: len(self._held)]
        self._task = self._held_out.task
        self._trained_on = HeldOut(domain, some, original, None, self._task)
        own_filters = {} if converted is None else {"filter": None}  # the caller's copy has its own
        self._settings = {"crop_size": domain.crop_size, **own_filters, **about}
        lessons = self._lessons(options.parts)
        examples = {path: lesson.centre(numbers[:1]) for path, (lesson, numbers) in lessons.items()}
        self._model = (converted or antialias_parts(original, examples, options.filter)).eval()
        self._distillations = {
            path: Distillation(
                original.get_submodule(path),
                self._model.get_submodule(path),
                lesson,
                numbers,
                options,
                self._task,
                process,
            )
            for path, (lesson, numbers) in lessons.items()
        }

    def _lessons(self, sides: Mapping[str, int]) -> dict[str, tuple[Domain, list[int]]]:
        """By the path of a part, "" for the whole network: images, and the numbers of those that it learns from."""
        if not sides:
            return {"": (self._domain, self._train_on)}
        whole = self._domain
        inputs: dict[str, Tensor] = {}
        if self._rank == 0:
            inputs = record_inputs(self._original, whole, self._train_on, sides, self._options.part_images)
        inputs = broadcast(inputs, self._processes)
        return {
            path: (
                Domain(
                    images,
                    prepare=lambda images: images,
                    crop_size=None,
                    circular=_pads_circularly(self._original.get_submodule(path)),
                    device=whole.device,
                    batch_size=whole.batch_size,
                    seed=self._options.seed,
                ),
                [*range(len(images))],
            )
            for path, images in inputs.items()
        }

    def _warn_of_weak_evidence(self) -> None:
        held = len(self._held)
        if held < FEW:
            warnings.warn(
                f"held_out has {held} images: intervals of so few say little; use at least {FEW}", stacklevel=4
            )
        if like := len(near_duplicates(self._domain.images, self._train_on, self._held)):
            warnings.warn(
                f"images: {like} of {held} held-out images look like one that is trained on, as neighbouring frames of "
                "a video do: the figures will be too high; name the held_out images",
                stacklevel=4,
            )

    def figures(self, folder: RepairFolder | None, on_progress: OnProgress) -> dict[str, Any]:
        """Repair the model; returns the measurements before, between and after."""
        weights = {"measuring": 1, "statistics": 1, "repairing": 4 * self._options.epochs, "measuring again": 1}
        stages = Stages(weights, on_progress)
        state = broadcast(None if folder is None else folder.load(self._identity()), self._processes)
        if state is None:
            found = self._figures_before(stages)
        else:
            self._model.load_state_dict(state["model"])
            for path, distillation in self._distillations.items():
                distillation.load(state["distillations"][path])
            found = state["found"]
        self._distil(found, folder, stages.start("repairing"))
        advance = stages.start("measuring again")
        found["repaired"] = self._held_out.measure(self._model.eval())
        advance(1, 1)
        return found

    def _figures_before(self, stages: Stages) -> dict[str, Any]:
        stages.start("measuring")
        original = self._held_out.measure(self._original)
        del original["agreement"], original["agreement_interval"]
        converted = self._held_out.measure(self._model)
        found = {"original": original, "converted": converted, "curve": []}
        stages.start("statistics")
        if not self._options.keep_norms:
            for distillation in self._distillations.values():
                distillation.reestimate_statistics()
            found["reestimated"] = self._held_out.measure(self._model)
        return found

    def _distil(self, found: dict[str, Any], folder: RepairFolder | None, advance: Callable[[int, int], None]) -> None:
        """Do the remaining steps, and measure after each epoch; `found` is saved with the state."""
        saved, distillations = time.monotonic(), self._distillations
        steps = sum(distillation.steps for distillation in distillations.values())
        with StopSignals() as signals:
            for path, distillation in distillations.items():
                for step in distillation.remaining_steps():
                    if step % distillation.steps_per_epoch == 0:
                        found["curve"].append(self._point(path, step // distillation.steps_per_epoch))
                    advance(sum(each.step for each in distillations.values()), steps)
                    caught = self._agreed(signals.caught)
                    is_due = caught or step == distillation.steps or time.monotonic() - saved > SAVE_SECONDS
                    if folder is not None and is_due:
                        folder.save({**self._identity(), "found": found, **self._state()})
                        saved = time.monotonic()
                    if caught:
                        leave(caught)

    def _agreed(self, caught: int) -> int:
        """The signal that any process has caught, so that all leave after the same step."""
        if self._processes == 1:
            return caught
        signal = torch.tensor(caught)
        dist.all_reduce(signal, dist.ReduceOp.MAX)
        return int(signal)

    def _state(self) -> dict[str, Any]:
        distillations = {path: distillation.state() for path, distillation in self._distillations.items()}
        return {"model": self._model.state_dict(), "distillations": distillations}

    def _point(self, path: str, epoch: int) -> dict[str, Any]:
        """The agreement on held-out images, and on as many that were trained on."""
        held, trained_on = (each.agreement(self._model) for each in (self._held_out, self._trained_on))
        point = {"epoch": epoch, "agreement": held, "trained_on": trained_on, "images": len(self._held)}
        return {"part": path, **point} if path else point

    def _identity(self) -> dict[str, Any]:
        """The settings and images that a saved state must have in common with the run."""
        settings = {**self._options.identity(), **self._settings}
        return {"settings": settings, "images": len(self._domain.images)}

    def outcome(self, figures: Mapping[str, Any]) -> RepairResult:
        """The result of the repair with these figures."""
        options = self._options
        reasons = judge(figures, FIGURES[self._task], options.min_agreement, options.min_consistency)
        results = {
            "succeeded": not reasons,
            "reasons": reasons,
            "min_agreement": options.min_agreement,
            **figures,
            "task": self._task,
            "consistency_mode": self._domain.mode,
            "images": {"trained_on": len(self._train_on), "held_out": len(self._held)},
            "settings": {**options.model_dump(exclude={"min_agreement"}), **self._settings},
            "versions": versions(),
        }
        return RepairResult(self._model, results, self._rank == 0)


def _pads_circularly(model: nn.Module) -> bool:
    """Whether circular shifts commute with the convolutions of `model`."""
    modes = {
        module.padding_mode
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or any(module.padding))
    }
    return modes == {"circular"}
