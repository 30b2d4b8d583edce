"""Distillation: the copy learns the original's logits and its features at the downsampling sites."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dealias.convert import sites
from dealias.errors import InputError
from dealias.metrics.outputs import Task
from dealias.repair.domain import Domain
from dealias.repair.losses import averaged_logits, feature_loss, features_at, output_loss
from dealias.repair.options import RepairOptions
from dealias.training.batches import epoch_batches

TEMPERATURE = 2.0


class Distillation:
    """The training of the copy; it can stop at any step and go on: a step's random numbers depend on its number alone.

    Args:
        original, model: the original, in evaluation mode, and the copy; `task` says what they return.
        train_on: numbers of the images of `domain` to train on.
        process: the rank of this process, and the number of processes. Each takes a part of every batch; their
            gradients are averaged, and all keep the first one's batch-norm statistics.

    Raises:
        InputError: the shifts of another task than "classes" are to be averaged.

    Attributes:
        step, steps: number of steps done, and in all.
        steps_per_epoch: number of steps in a pass over the images.
    """

    def __init__(
        self,
        original: nn.Module,
        model: nn.Module,
        domain: Domain,
        train_on: list[int],
        options: RepairOptions,
        task: Task = "classes",
        process: tuple[int, int] = (0, 1),
    ) -> None:
        if options.average_shifts and task != "classes":
            raise InputError(f"average_shifts=True averages class scores, and the network's task is {task}: leave it")
        self._original, self.model, self._domain, self._task = original, model, domain, task
        self._train_on, self._options = train_on, options
        self._rank, self._processes = process
        self.step = 0
        self.steps_per_epoch = -(-len(train_on) // options.batch_size)
        self.steps = options.epochs * self.steps_per_epoch
        self._begin_cycle(0)
        found = sites(original, domain.centre(train_on[:1]))
        self._sites = [site for site in found if site.placed and site.path]

    def _begin_cycle(self, first: int) -> None:
        """One cycle of the learning rate from step `first` to the last."""
        rate = self._options.learning_rate
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._first = first
        self._optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rate, total_steps=self.steps - first + 1)

    def remaining_steps(self) -> Iterator[int]:
        """Do the remaining steps, each when it is asked for; gives the number of steps done."""
        paths = [site.path for site in self._sites]
        with features_at(self._original, paths) as theirs, features_at(self.model, paths) as ours:
            while self.step < self.steps:
                self._prepare()  # whoever measured it between two steps has set it to evaluation
                self._learn(theirs, ours)
                yield self.step

    def _prepare(self) -> None:
        """Set the copy to how it trains: all but its batch norms, if these train, are in evaluation mode."""
        if self._options.keep_norms:
            self.model.eval()
        else:
            norms_train(self.model)

    def reestimate_statistics(self) -> None:
        """Set the copy's batch-norm statistics to those of the images."""
        domain = self._domain
        parts = (part for part in domain.batches(self._train_on) if len(part) > 1)
        reestimate_statistics(self.model, map(domain.centre, parts))
        self._share_buffers()

    def _learn(self, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
        batch = self._batch()
        start, stop = (len(batch) * place // self._processes for place in (self._rank, self._rank + 1))
        loss = self._loss(batch[start:stop], theirs, ours) if start < stop else torch.zeros(())
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {self.step}: lower learning_rate")
        self._optimizer.zero_grad(set_to_none=True)
        if start < stop:
            (loss * ((stop - start) / len(batch)) if self._processes > 1 else loss).backward()
        self._share_gradients()
        self._optimizer.step()
        self._share_buffers()
        self._schedule.step()
        self.step += 1

    def _loss(self, indices: list[int], theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> Tensor:
        seen = self._domain.anywhere(indices, self.step)
        with torch.no_grad():
            wanted = self._original(seen)
            their_features = dict(theirs)
            if self._options.average_shifts:
                others = self._original(self._domain.shifted(indices)).view(len(seen), -1, wanted.shape[1])
                wanted = averaged_logits(torch.cat([wanted.unsqueeze(1), others], 1), TEMPERATURE)
        loss = output_loss(self.model(seen), wanted, self._task, TEMPERATURE)
        if self._options.feature_weight:
            loss = loss + self._options.feature_weight * feature_loss(their_features, ours, self._sites)
        return loss

    def _share_gradients(self) -> None:
        """Add up the gradients of all processes."""
        if self._processes > 1:
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    dist.all_reduce(parameter.grad)

    def _share_buffers(self) -> None:
        """Give every process the first one's buffers: batch-norm statistics differ between parts of a batch."""
        if self._processes > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)

    def _batch(self) -> list[int]:
        epoch, place = divmod(self.step, self.steps_per_epoch)
        numbers = epoch_batches(len(self._train_on), self._options.batch_size, self._options.seed, epoch)[place]
        return [self._train_on[number] for number in numbers]

    def state(self) -> dict[str, Any]:
        """The state that `load` goes on from; the weights of the copy are the caller's to save."""
        parts: dict[str, Any] = {"optimizer": self._optimizer, "schedule": self._schedule}
        steps = {"step": self.step, "first": self._first, "last": self.steps}
        return {**steps, **{name: part.state_dict() for name, part in parts.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; a finished training goes on with another cycle of the learning rate.

        Raises:
            InputError: the training is not finished and was to take another number of steps.
        """
        self.step = state["step"]
        if self.step == state["last"] < self.steps:
            self._begin_cycle(self.step)
            return
        if state["last"] != self.steps:
            epochs = state["last"] // self.steps_per_epoch
            raise InputError(f"resume: the run had epochs={epochs}: give the same, and more once it has finished")
        self._begin_cycle(state["first"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])


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
