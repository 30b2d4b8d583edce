"""The same images from class folders, shards and Hugging Face datasets."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dealias.data import open_source
from dealias.errors import InputError
from dealias.optional import import_torchvision


def _picture(number: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30, 3), 20 * number, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for number in range(6):
        place = root / f"class {number % 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        _picture(number).save(place)
    return root


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _shard(path: Path, numbers: range, label: bytes | None = b"0") -> None:
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            buffer = io.BytesIO()
            _picture(number).save(buffer, "PNG")
            _add(archive, f"train/{number:03d}.png", buffer.getvalue())
            if label is not None:
                _add(archive, f"train/{number:03d}.cls", label if label != b"0" else str(number % 2).encode())


def shades(place: Path | str, **arguments: int) -> list[int]:
    source = open_source(place, **arguments)
    return [source.read(number).getpixel((3, 3))[0] // 20 for number in range(len(source))]


def test_folders_come_class_by_class(folder: Path) -> None:
    source = open_source(folder)
    assert source.classes == ["class 0", "class 1"]
    assert source.labels == [0, 0, 0, 1, 1, 1]
    assert shades(folder) == [0, 2, 4, 1, 3, 5]
    limited = open_source(folder, limit=3, seed=1)
    assert [source.names[position] for position in limited.positions] == limited.names
    assert shades(folder, limit=3, seed=1) == [shades(folder)[position] for position in limited.positions]
    assert limited.fingerprint() != source.fingerprint()
    assert pickle.loads(pickle.dumps(source)).read(3).size == (30, 20)


def test_shards_are_read_in_order_by_file_folder_and_pattern(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    _shard(shards / "val-0.tar", range(4))
    _shard(shards / "val-1.tar", range(4, 6))
    (shards / ".cache").mkdir()
    for place in (shards, str(shards / "val-*.tar")):
        source = open_source(place)
        assert (source.classes, source.labels) == (None, [0, 1, 0, 1, 0, 1])
        assert shades(place) == list(range(6))
    assert source.names[4] == "val-1.tar/train/004"
    assert shades(shards / "val-1.tar") == [4, 5]
    assert pickle.loads(pickle.dumps(source)).read(3).size == (30, 20)


def test_shards_that_will_not_do(tmp_path: Path) -> None:
    _shard(tmp_path / "unlabelled.tar", range(2), label=None)
    with pytest.raises(InputError, match=r"train/000, but no train/000\.cls"):
        open_source(tmp_path / "unlabelled.tar")
    _shard(tmp_path / "named.tar", range(2), label=b"cat")
    with pytest.raises(InputError, match=r"b'cat' in train/000\.cls"):
        open_source(tmp_path / "named.tar")
    (tmp_path / "text.tar").write_text("no archive" * 100)
    with pytest.raises(InputError, match="is not an uncompressed tar"):
        open_source(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(InputError, match="no images with a class"):
        open_source(tmp_path / "empty.tar")
    with pytest.raises(InputError, match="matches no file"):
        open_source(tmp_path / "missing-*.tar")


def test_hugging_face_datasets_on_disk(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    features = library.Features({"picture": library.Image(), "kind": library.ClassLabel(names=["even", "odd"])})
    rows = {"picture": [_picture(number) for number in range(6)], "kind": [number % 2 for number in range(6)]}
    stored = library.Dataset.from_dict(rows, features=features)
    stored.save_to_disk(str(tmp_path / "one"))
    library.DatasetDict({"train": stored.select([0]), "validation": stored}).save_to_disk(str(tmp_path / "splits"))
    for place in (tmp_path / "one", tmp_path / "splits"):
        source = open_source(place)
        assert (source.classes, source.labels) == (["even", "odd"], [0, 1, 0, 1, 0, 1])
        assert shades(place) == list(range(6))
    assert shades(tmp_path / "one", limit=2) == [open_source(tmp_path / "one", limit=2).positions[i] for i in range(2)]
    stored.remove_columns("kind").save_to_disk(str(tmp_path / "unlabelled"))
    with pytest.raises(InputError, match="has the columns picture"):
        open_source(tmp_path / "unlabelled")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    for seed, (name, size) in enumerate(
        {
            "dog/b.JPG": (300, 260),
            "dog/a.png": (256, 256),
            "cat/10.png": (40, 30),
            "cat/9.webp": (640, 300),
            "cat/deep/er/1.bmp": (260, 700),
            "ant/x.tiff": (333, 299),
        }.items()
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _picture(seed).resize(size).save(tmp_path / name)
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "readme.md").write_text("neither")
    return tmp_path


def test_folders_are_torchvisions_image_folder(mixed: Path) -> None:
    import_torchvision()
    from torchvision.datasets import ImageFolder

    reference, source = ImageFolder(str(mixed)), open_source(mixed)
    assert source.classes == reference.classes == ["ant", "cat", "dog"]
    assert [str(mixed / name) for name in source.names] == [path for path, _ in reference.samples]
    assert source.labels == reference.targets
    assert [source.read(number).size for number in range(6)] == [image.size for image, _ in reference]


def test_folders_that_are_refused(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("bad")
    (root / "hollow" / "cat").mkdir(parents=True)
    (root / "flat").mkdir()
    _picture(1).save(root / "flat" / "a.png")
    for path, message in [
        (root / "nowhere", "is not a folder"),
        (mixed / "readme.md", "is not an uncompressed tar"),
        (root / "hollow", "have no images"),
        (root / "flat", "no class subfolders"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(path)
    with pytest.raises(InputError, match="limit=0"):
        open_source(mixed, limit=0)
    user = os.geteuid()
    mixed.chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(InputError, match="cannot be read"):
            open_source(mixed)
    finally:
        os.seteuid(user)
        mixed.chmod(0o755)


def test_a_place_that_is_removed_is_named(folder: Path) -> None:
    _shard(folder / "one.tar", range(1))
    sources = [open_source(folder), open_source(folder / "*.tar")]
    for source in sources:
        source.check_exists()
    shutil.rmtree(folder)
    for source in sources:
        with pytest.raises(InputError, match=r"^images='.*folder.*' was removed while it was read$"):
            source.check_exists()
