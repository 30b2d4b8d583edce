"""The network's class for each class of the images."""

from __future__ import annotations

from pathlib import Path

from dealias.data import Source
from dealias.data.classes import match_classes


def source(classes: list[str] | None, labels: list[int]) -> Source:
    return Source.of_all("place", classes, labels, [str(label) for label in labels], lambda number: Path())


def test_as_many_classes_as_outputs_match_one_to_one() -> None:
    assert match_classes(source(["cat", "dog"], [1, 0]), 2) == [0, 1]
    assert match_classes(source(["cat", "dog"], [1, 0]), 3) is None


def test_numbers_below_the_outputs_are_the_networks_classes() -> None:
    assert match_classes(source(None, [4, 0]), 5) == [0, 1, 2, 3, 4]
    assert match_classes(source(None, [4, 0]), 4) is None


def test_imagenets_names_match_some_of_its_classes() -> None:
    assert match_classes(source(["n01440764", "n01443537", "n15075141"], [0, 1, 2]), 1000) == [0, 1, 999]
    assert match_classes(source(["n01440764", "n99999999"], [0, 1]), 1000) is None
    assert match_classes(source(["n01440764"], [0]), 10) is None
