"""The parts of a metric family: its texts, the tasks that it plans, and the summary of their counts.

A task makes the views of an image in the loader's processes, as bytes, and counts the networks' logits, in whole
numbers for each image. (Curves of probabilities are not counts; they are kept for each image too.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from torch import Tensor

from dealias.data import Source
from dealias.errors import InputError
from dealias.evaluation.estimates import Estimate
from dealias.evaluation.network import Network
from dealias.evaluation.store import Record
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels

Counts: TypeAlias = dict[str, Any]
Part: TypeAlias = tuple[list[int], Counts]
"""The numbers of some images, and what was counted of them."""
Networks: TypeAlias = Literal["classifiers", "others", "all"]
Rates: TypeAlias = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Metric:
    """A metric that `metrics` may name: its `text`, and whether it needs the images' classes.

    `default`: it is measured unless others are named.
    """

    text: str
    labelled: bool = False
    default: bool = False


@dataclass(frozen=True)
class FigureText:
    """How a figure is shown.

    Attributes:
        name: in tables.
        definition: says in a sentence what it is.
        is_fraction: whether it is shown in percent.
        finding: the words of a sentence between the network's name and the figure.
    """

    name: str
    definition: str
    is_fraction: bool = True
    finding: str = ""

    @property
    def title(self) -> str:
        """The name as a sentence begins; "mCE" stays."""
        return self.name if self.name[1].isupper() else f"{self.name[0].upper()}{self.name[1:]}"

    @property
    def note(self) -> str:
        """The name and its definition."""
        return f"{self.title}: {self.definition}"


@dataclass(frozen=True)
class PlotText:
    """A plot of the report: its heading, the text under it, and a text for those who cannot see it."""

    heading: str
    text: str
    alt: str


@dataclass(frozen=True)
class Request:
    """The measurements that were asked for; the attributes are the arguments of `dealias.evaluation.evaluate`.

    Raises:
        InputError: `difficulty` is out of range.
    """

    source: Source
    metrics: Sequence[str]
    seed: int = 0
    limit: int | None = None
    difficulty: int = 1
    imagenet_c: str | Path | None = None
    imagenet_p: str | Path | None = None
    rates: Rates | None = None

    def __post_init__(self) -> None:
        if self.difficulty not in (1, 2, 3):
            raise InputError(f"difficulty={self.difficulty!r} is out of range: use 1, 2 or 3")


@dataclass(frozen=True)
class Answers:
    """The records of one network."""

    records: Sequence[Record]
    label: str

    def of(self, task: Task) -> list[Part]:
        """Numbers of the images and their counts, unit by unit."""
        return [
            (record.positions, record.counts[self.label])
            for record in self.records
            if record.task == task.name and record.positions
        ]

    def broken(self) -> int:
        """Images with NaN in the logits of a view, in the task that has most of them."""
        totals: Counter[str] = Counter()
        for record in self.records:
            totals[record.task] += sum(record.counts.get(self.label, {}).get("nan", []))
        return max(totals.values(), default=0)


@dataclass(frozen=True)
class Summary:
    """The findings of a family about a network.

    Attributes:
        estimates: by the names of `Task.FIGURES`.
        details: tables, curves and profiles, by the fields of `dealias.evaluation.results.Results` that hold them.
    """

    estimates: Mapping[str, Estimate]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task(ABC):
    """A metric family as a class; as an object, one kind of views of the images of a source.

    Attributes:
        name: of the task; its records have it too.
        source: the images.
        seed: of the random draws.
        images_per_unit: how many images are worked on, and counted, at once.
    """

    METRICS: ClassVar[Mapping[str, Metric]]
    FIGURES: ClassVar[Mapping[str, FigureText]] = {}
    PLOTS: ClassVar[Mapping[str, PlotText]] = {}
    labelled: ClassVar[bool] = False
    """Whether `count` needs the classes."""
    networks: ClassVar[Networks] = "classifiers"
    """Which networks the family measures: those that return class scores, the others, or all."""

    name: str
    source: Source
    seed: int
    images_per_unit: int = field(default=16, kw_only=True)

    @classmethod
    def measures(cls, metric: str, preprocessing: Preprocessing) -> bool:
        """Whether one of the family's metrics can be measured with that preprocessing."""
        return True

    @classmethod
    @abstractmethod
    def plan(cls, request: Request, preprocessing: Preprocessing) -> Iterator[Task]:
        """The tasks that the request asks of the family, for the networks with that preprocessing."""

    @classmethod
    @abstractmethod
    def summarise(cls, tasks: Sequence[Any], answers: Answers, rates: Rates | None) -> Summary:
        """The findings about a network, from its counts."""

    def open(self, number: int) -> Any:
        """The image as `views` takes it: a Pillow picture; `InputError` if the image cannot be read."""
        return self.source.read(number)

    @abstractmethod
    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The views of a picture that the networks see: bytes (views, C, H, W)."""

    @abstractmethod
    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """The counts of a network's answers to views (N, views, C, H, W), bytes: lists with one entry for each image.

        Args:
            views: of the images.
            network: answers.
            targets: the classes (N,); None where they are not the network's.
            positions: the number of each image in the source.
        """


def logits_of(views: Tensor, network: Network) -> Tensor:
    """Logits (N, views, classes) of views (N, views, C, H, W), bytes."""
    logits = network.predict(views.flatten(0, 1))
    return logits.view(*views.shape[:2], -1)


def by_image(parts: Iterable[Part], key: str) -> dict[int, Any]:
    """The counts under that key, by the image's number."""
    return {
        position: value for positions, counts in parts for position, value in zip(positions, counts[key], strict=True)
    }


def generator(seed: int, name: str, level: int, position: int) -> np.random.Generator:
    """The random draws of one image in one task."""
    return np.random.default_rng((seed, position, level, *name.encode()))


def in_order(known: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names in the order of those known, the others behind them by the alphabet."""
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))
