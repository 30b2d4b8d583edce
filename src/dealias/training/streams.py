"""Streams of Hugging Face datasets: every process reads the whole stream and decodes its own part.

A stream cannot go to image n at once. A resumed run reads over the images it has seen without decoding them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset

from dealias.data.hugging_face import Columns, open_streamed
from dealias.data.pictures import read_picture
from dealias.errors import InputError
from dealias.models import Preprocessing
from dealias.training.augment import Augment
from dealias.training.batches import Batch, epoch_sizes, seed_all, stacked
from dealias.training.config import Config
from dealias.training.processes import ProcessPart

PREFIX = "hf:"
SHUFFLE_BUFFER = 10_000


def is_stream(place: str | None) -> bool:
    """Whether a place is a stream: hf:NAME or hf:NAME:SPLIT."""
    return place is not None and place.startswith(PREFIX)


def open_stream(
    config: Config, preprocessing: Preprocessing, part: ProcessPart
) -> tuple[StreamImages, Rows, int, int, str]:
    """Open `hf:NAME`, NAME as `datasets.load_dataset` takes it, such as a folder of tars or Parquet.

    Returns:
        The images to train on, those to measure on, the number of the former, the number of classes, and all in words.

    Raises:
        InputError: it cannot be opened, it has no image or class column, no validation split, or no known size.
        MissingExtraError: datasets is not installed.
    """
    assert config.data is not None
    name = config.data.removeprefix(PREFIX)
    train = open_streamed(name, ("train",), f"data={config.data!r}")
    validation_name = (config.val_data or config.data).removeprefix(PREFIX)
    validation = open_streamed(validation_name, ("validation", "val", "test"), f"val_data={validation_name!r}")
    splits = train.rows.info.splits or {}
    known = getattr(splits.get("train"), "num_examples", None)
    if config.limit is None and not known:
        raise InputError(f"data={config.data!r} does not tell its number of images: pass --limit NUMBER")
    count = min(number for number in (config.limit, known) if number)
    rows = Rows(validation)
    if not rows.labels:
        raise InputError(f"val_data={validation_name!r} has no images")
    classes = len(train.classes) if train.classes else config.settings.num_classes
    if classes is None:
        raise InputError(f"data={config.data!r} does not name its classes: pass --set num_classes=NUMBER")
    dataset = StreamImages(train, count, config, preprocessing, part)
    description = f"a stream of {count:,} images of {name}; validation: {len(rows.labels):,} images"
    return dataset, rows, count, classes, description


class Rows:
    """The rows of a validation split, encoded, in memory."""

    def __init__(self, columns: Columns) -> None:
        self._columns, self._rows = columns, list(columns.rows)
        self.labels: list[int] = [row[columns.label] for row in self._rows]

    def read(self, number: int) -> Any:
        """One picture."""
        return read_picture(self._columns.file(self._rows[number]))


class StreamImages(IterableDataset[Batch]):
    """The batches of a stream, for one of the processes that train; at most one worker reads it."""

    def __init__(
        self, columns: Columns, count: int, config: Config, preprocessing: Preprocessing, part: ProcessPart
    ) -> None:
        self._columns, self._seed, self._part = columns, config.seed, part
        self._rows = columns.rows.take(count).shuffle(seed=config.seed, buffer_size=min(SHUFFLE_BUFFER, count))
        self._sizes = epoch_sizes(count, config.settings.batch_size)
        self._augment = Augment(config.settings, preprocessing)
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[Batch]:
        self._rows.set_epoch(self.epoch)
        rows = iter(self._rows)
        place = 0
        for step, size in enumerate(self._sizes):
            batch = list(islice(rows, size))
            if len(batch) < size:
                raise InputError(f"the stream ended after {place + len(batch)} images of {sum(self._sizes)}")
            if step >= self.start:
                yield self._decoded(self._part.of(list(enumerate(batch, start=place))), size)
            place += size

    def _decoded(self, numbered: Sequence[tuple[int, Any]], size: int) -> Batch:
        read = []
        for number, row in numbered:
            seed_all(self._seed, self.epoch, number)
            picture = read_picture(self._columns.file(row))
            read.append((self._augment(picture), row[self._columns.label]))
        return stacked(read, size)
