"""Units of work: some images of a task, read and perturbed in the loader's processes, then counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from dealias.errors import InputError
from dealias.evaluation.network import Network
from dealias.evaluation.store import Record, UnitKey
from dealias.evaluation.tasks.base import Task
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels
from dealias.runtime import from_workers


@dataclass(frozen=True)
class Unit:
    """Some images of a task, for the networks that share a preprocessing."""

    task: Task
    group: int
    preprocessing: Preprocessing
    start: int
    stop: int

    @property
    def key(self) -> UnitKey:
        """See `dealias.evaluation.store.Record.key`."""
        return self.task.name, self.group, self.start


@dataclass(frozen=True)
class Loaded:
    """What was read of a unit.

    `views`, bytes (N, views, C, H, W), are those of the images that could be read; None if none could. `numbers` are
    these images' in the source. `skipped` has the numbers of the others and why; `enlarged` counts images that are
    smaller than what the network sees.
    """

    views: Pixels | None
    numbers: list[int]
    skipped: list[tuple[int, str]]
    enlarged: int


class Units(Dataset[Loaded]):
    """Loads units; a `torch.utils.data` Dataset."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units

    def __len__(self) -> int:
        return len(self._units)

    def __getitem__(self, index: int) -> Loaded:
        """Read one unit: each image gives the same views whoever reads it."""
        unit = self._units[index]
        source, preprocessing = unit.task.source, unit.preprocessing
        views, numbers, skipped, enlarged = [], [], [], 0
        for number in range(unit.start, unit.stop):
            try:
                picture: Any = unit.task.open(number)
            except InputError as error:
                skipped.append((number, str(error)))
                continue
            enlarged += isinstance(picture, Image.Image) and min(picture.size) < preprocessing.crop_size
            views.append(unit.task.views(picture, source.positions[number], preprocessing))
            numbers.append(number)
        return Loaded(np.stack(views) if views else None, numbers, skipped, enlarged)


def load_units(units: Sequence[Unit], workers: int) -> Iterator[Loaded]:
    """The units in order, read ahead by so many processes; without processes, read as they are asked for."""
    loader = DataLoader(
        Units(units),
        batch_size=None,
        num_workers=min(workers, len(units)),
        collate_fn=_as_it_is,
        prefetch_factor=2 if workers and units else None,
        worker_init_fn=_one_thread,
    )
    yield from from_workers(loader)


def _as_it_is(loaded: Any) -> Any:
    return loaded  # arrays go through a pipe: containers often have little shared memory


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def count_unit(unit: Unit, loaded: Loaded, networks: Sequence[Network]) -> Record:
    """The counts of the answers that the networks of the unit's group give."""
    source = unit.task.source
    positions = [source.positions[number] for number in loaded.numbers]
    counts = {}
    if loaded.views is not None:
        views = torch.from_numpy(loaded.views)
        labels = [source.labels[number] for number in loaded.numbers]
        for network in networks:
            if network.preprocessing == unit.preprocessing:
                targets = network.targets(labels) if unit.task.labelled else None
                counts[network.spec.label] = unit.task.count(views, network, targets, positions)
    return Record(
        unit.task.name, unit.group, unit.start, positions, loaded.numbers, loaded.skipped, loaded.enlarged, counts
    )
