"""Read Hugging Face data sets of labelled images from a folder or as a stream."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from dealias.errors import InputError, users_code
from dealias.optional import require

LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls")
"""Names by which a column of classes is recognised where its type is not ClassLabel."""


@dataclass(frozen=True)
class Columns:
    """The columns of images and classes of a data set, stored or streamed.

    Attributes:
        rows: the data set, whose images are not decoded.
        image, label: names of the columns.
        classes: names of the classes, by number; None where the data set does not give them.
    """

    rows: Any
    image: str
    label: str
    classes: list[str] | None

    @classmethod
    def of(cls, rows: Any, argument: str) -> Columns:
        """The columns of `rows`.

        Raises:
            InputError: one of them is missing; the message begins with `argument`, such as "images='...'".
        """
        library = require("datasets")
        rows = rows if rows.features is not None else rows._resolve_features()
        features = rows.features
        images = [name for name, feature in features.items() if isinstance(feature, library.Image)]
        labels = [name for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
        labels += [name for name in LABEL_COLUMNS if name in features]
        if not images or not labels:
            raise InputError(
                f"{argument} has the columns {', '.join(features)}: expected one of type Image and one of type "
                f"ClassLabel or named {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}"
            )
        undecoded = rows.select_columns([images[0], labels[0]]).cast_column(images[0], library.Image(decode=False))
        return cls(undecoded, images[0], labels[0], getattr(features[labels[0]], "names", None))

    def file(self, row: Any) -> Path | BinaryIO:
        """The image file of a row."""
        cell = row[self.image]
        return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"])

    def file_at(self, number: int) -> Path | BinaryIO:
        """The image file of the row of this number, in a stored data set."""
        return self.file(self.rows[number])


def open_stored(place: str | PathLike[str]) -> tuple[Columns, list[int]]:
    """Open a folder that `datasets.Dataset.save_to_disk` wrote; of several splits, the validation split.

    Returns:
        The columns, and the class of each row.

    Raises:
        InputError: it has no images or no classes, or several splits without one for validation.
        MissingExtraError: datasets is not installed.
    """
    library = require("datasets")
    stored = library.load_from_disk(str(place))
    argument = f"images={str(place)!r}"
    if isinstance(stored, library.DatasetDict):
        splits = [name for name in ("validation", "test", *stored) if name in stored]
        if len(stored) > 1 and splits[0] not in ("validation", "test"):
            raise InputError(
                f"{argument} has the splits {', '.join(stored)}: give the folder of one, "
                f"such as {os.path.join(place, splits[0])!r}"
            )
        stored = stored[splits[0]]
    columns = Columns.of(stored, argument)
    labels = list(stored.with_format(None)[columns.label])
    if not labels or any(not isinstance(label, int) or label < 0 for label in labels):
        raise InputError(f"{argument} has rows without a class in {columns.label!r}, or no rows")
    return columns, labels


def open_streamed(name: str, splits: Sequence[str], argument: str) -> Columns:
    """Open a data set as a stream: the first of the `splits` that it has. `name` is as for `datasets.load_dataset`.

    Raises:
        InputError: it cannot be opened, or has none of the splits, or no images or classes.
        MissingExtraError: datasets is not installed.
    """
    with users_code(f"{argument} cannot be opened"):
        dataset = require("datasets").load_dataset(name, streaming=True)
    for split in splits:
        if split in dataset:
            return Columns.of(dataset[split], argument)
    raise InputError(f"{argument} has the splits {', '.join(dataset)}: expected {' or '.join(splits)}")
