"""Hugging Face datasets that are streamed: every process reads the whole stream and decodes its own share.

A stream has no image number n to go to, so a resumed run reads over what it has seen without decoding it: exact, but
not at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset

from dealias.data import Preprocessing
from dealias.data.folder import read_picture
from dealias.errors import InputError, require
from dealias.training.images import Augment, Batch, Share, epoch_sizes, seed_all, share_of, stacked

if TYPE_CHECKING:
    from dealias.training.train import Config

PREFIX = "hf:"
SHUFFLE_BUFFER = 10_000


@dataclass(frozen=True)
class Stream:
    """A streamed training: what it reads and how much of it there is."""

    training: StreamImages
    validation: Rows
    count: int
    classes: int
    description: str


def is_stream(place: str | None) -> bool:
    """Whether a place is a stream: hf:NAME or hf:NAME:SPLIT."""
    return place is not None and place.startswith(PREFIX)


def open_stream(config: Config, preprocessing: Preprocessing, share: Share) -> Stream:
    """The stream of a run: `hf:NAME`, NAME as `datasets.load_dataset` takes it, such as a folder of tars or Parquet.

    Raises:
        InputError: there is none, it has no image or class column, no validation split, or no known size.
        MissingExtraError: datasets is not installed.
    """
    assert config.data is not None
    name = config.data.removeprefix(PREFIX)
    train = _load(name, ("train",))
    validation_name = (config.val_data or config.data).removeprefix(PREFIX)
    validation = _load(validation_name, ("validation", "val", "test"))
    image, label = _columns(train)
    splits = train.info.splits or {}
    known = getattr(splits.get("train"), "num_examples", None)
    if config.limit is None and not known:
        raise InputError(f"data={config.data!r} does not say how many images it has: pass --limit with their number")
    count = min(number for number in (config.limit, known) if number)
    names = getattr(train.features[label], "names", None)
    rows = Rows([(_encoded(row, image), row[label]) for row in _undecoded(validation, image)])
    if not rows.labels:
        raise InputError(f"val_data={validation_name!r} has no images")
    classes = len(names) if names else config.settings.num_classes
    if classes is None:
        raise InputError(f"data={config.data!r} does not name its classes: pass --set num_classes=NUMBER")
    dataset = StreamImages(_undecoded(train, image).take(count), image, label, count, config, preprocessing, share)
    description = f"a stream of {count:,} images of {name}; validation: {len(rows.labels):,} images"
    return Stream(dataset, rows, count, classes, description)


def _load(name: str, splits: Sequence[str]) -> Any:
    library = require("datasets", "train")
    try:
        found = library.load_dataset(name, streaming=True)
    except (FileNotFoundError, ValueError, ConnectionError) as error:
        raise InputError(f"data={PREFIX + name!r} cannot be opened: {str(error).splitlines()[0]}") from None
    for split in splits:
        if split in found:
            return found[split]
    raise InputError(f"data={PREFIX + name!r} has the splits {', '.join(found)}: expected {' or '.join(splits)}")


def _columns(rows: Any) -> tuple[str, str]:
    library = require("datasets", "train")
    rows = rows if rows.features is not None else rows._resolve_features()
    images = [name for name, feature in rows.features.items() if isinstance(feature, library.Image)]
    classes = [name for name, feature in rows.features.items() if isinstance(feature, library.ClassLabel)]
    classes += [name for name in ("label", "labels", "fine_label", "cls") if name in rows.features]
    if not images or not classes:
        raise InputError(f"the stream has the columns {', '.join(rows.features)}: expected an image and a class label")
    return images[0], classes[0]


def _undecoded(rows: Any, image: str) -> Any:
    return rows.cast_column(image, require("datasets", "train").Image(decode=False))


def _encoded(row: Any, image: str) -> bytes:
    cell = row[image]
    found: bytes = cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
    return found


class Rows:
    """The rows of a validation split, encoded, in memory."""

    def __init__(self, rows: Sequence[tuple[bytes, int]]) -> None:
        self._encoded, self.labels = [encoded for encoded, _ in rows], [label for _, label in rows]

    def read(self, number: int) -> Any:
        """One picture."""
        return read_picture(io.BytesIO(self._encoded[number]))


class StreamImages(IterableDataset[Batch]):
    """The batches of a stream, for one of the processes that train; at most one worker reads it."""

    def __init__(
        self, rows: Any, image: str, label: str, count: int, config: Config, preprocessing: Preprocessing, share: Share
    ) -> None:
        self._rows = rows.shuffle(seed=config.seed, buffer_size=min(SHUFFLE_BUFFER, count))
        self._image, self._label, self._seed, self._share = image, label, config.seed, share
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
                numbered = share_of(list(enumerate(batch, start=place)), self._share.rank, self._share.processes)
                yield self._decoded(numbered, size)
            place += size

    def _decoded(self, numbered: Sequence[tuple[int, Any]], size: int) -> Batch:
        read = []
        for number, row in numbered:
            seed_all(self._seed, self.epoch, number)
            picture = read_picture(io.BytesIO(_encoded(row, self._image)))
            read.append((self._augment(picture), row[self._label]))
        return stacked(read, size)
