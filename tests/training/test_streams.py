"""Streams of Hugging Face datasets: each image once, over processes and after a resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.image_places import ALONE, CLASSES, COUNT, check_each_image_once, digests, open_place, write_parquet

from dealias.errors import InputError
from dealias.training.processes import ProcessPart
from dealias.training.streams import is_stream


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A stream of 23 images to train on, and 7 to measure; loose files do not tell their number."""
    write_parquet(tmp_path / "data" / "train", range(COUNT))
    write_parquet(tmp_path / "data" / "val", range(100, 107))
    return f"hf:{tmp_path / 'data'}"


def test_places_that_are_streams() -> None:
    assert [is_stream(place) for place in ("hf:food", "hf:food:train", "food", "/data/hf:food", None)] == [
        *(True, True),
        *(False, False, False),
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where the machine has a single core
@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_once_over_three_processes(place: str, workers: int) -> None:
    parts = [ProcessPart(rank, 3, workers, pin_memory=False) for rank in range(3)]
    check_each_image_once([open_place(place, part, COUNT) for part in parts])


def test_epochs_differ_in_order_and_a_limit_is_a_length(place: str) -> None:
    data = open_place(place, ALONE, 11)
    first, second = digests(data, 0), digests(data, 1)
    assert len(first) == 11
    assert sorted(first) == sorted(second)
    assert first != second
    assert data.classes == CLASSES
    assert data.description.startswith("a stream of 11 images of ")


def test_bad_streams(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data='hf:.*' cannot be opened"):
        open_place(f"hf:{tmp_path / 'none'}", ALONE)
    with pytest.raises(InputError, match=r"does not tell its number of images: pass --limit NUMBER"):
        open_place(place, ALONE)
    with pytest.raises(InputError, match=r"the stream ended after 23 images of 30"):
        digests(open_place(place, ALONE, 30), 0)
