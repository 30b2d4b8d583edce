"""The columns of Hugging Face data sets, stored and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dealias.data.hugging_face import Columns, open_stored, open_streamed
from dealias.data.pictures import read_picture
from dealias.errors import InputError

datasets = pytest.importorskip("datasets")


def data_set(label: str, kind: Any, labels: list[int | None]) -> Any:
    features = datasets.Features({"note": datasets.Value("string"), "picture": datasets.Image(), label: kind})
    pictures = [Image.new("RGB", (4, 3), (40 * number, 0, 0)) for number in range(len(labels))]
    return datasets.Dataset.from_dict({"note": ["x"] * len(labels), "picture": pictures, label: labels}, features)


@pytest.mark.parametrize("label", ["label", "cls"])
def test_a_column_of_numbers_is_known_by_its_name(tmp_path: Path, label: str) -> None:
    data_set(label, datasets.Value("int64"), [3, 0, 2]).save_to_disk(tmp_path / "stored")
    columns, labels = open_stored(tmp_path / "stored")
    assert (columns.image, columns.label, columns.classes, labels) == ("picture", label, None, [3, 0, 2])
    assert [read_picture(columns.file_at(number)).getpixel((0, 0))[0] for number in range(3)] == [0, 40, 80]


def test_a_column_of_classes_has_any_name() -> None:
    columns = Columns.of(data_set("species", datasets.ClassLabel(names=["cat", "dog"]), [1, 0]), "images='x'")
    assert (columns.label, columns.classes) == ("species", ["cat", "dog"])
    with pytest.raises(InputError, match=r"images='x' has the columns note, picture, kind: expected one of type Image"):
        Columns.of(data_set("kind", datasets.Value("int64"), [0]), "images='x'")


@pytest.mark.parametrize("labels", [[0, None], [0, -1]])
def test_rows_without_a_class_are_refused(tmp_path: Path, labels: list[int | None]) -> None:
    data_set("label", datasets.Value("int64"), labels).save_to_disk(tmp_path / "stored")
    with pytest.raises(InputError, match="has rows without a class in 'label'"):
        open_stored(tmp_path / "stored")


def test_the_split_that_is_read(tmp_path: Path) -> None:
    one, two = (data_set("label", datasets.Value("int64"), labels) for labels in ([1], [2]))
    datasets.DatasetDict({"train": one, "extra": one}).save_to_disk(tmp_path / "none")
    with pytest.raises(InputError, match=r"has the splits train, extra: give the folder of one, such as .*train"):
        open_stored(tmp_path / "none")
    for name, rows in (("train", one), ("test", two)):
        (tmp_path / "loose" / name).mkdir(parents=True)
        rows.to_parquet(tmp_path / "loose" / name / "0.parquet")
    columns = open_streamed(str(tmp_path / "loose"), ("validation", "test"), "data='x'")
    assert [row["label"] for row in columns.rows] == [2]
    with pytest.raises(InputError, match=r"data='x' has the splits train, test: expected val or dev"):
        open_streamed(str(tmp_path / "loose"), ("val", "dev"), "data='x'")
