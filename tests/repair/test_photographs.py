"""Repair with photographs: those held out are named by their place in the source, and broken files are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks_of_tasks import Segmenter
from PIL import Image

from dealias import antialias
from dealias.data import Source
from dealias.errors import InputError
from dealias.evaluation.network import Network
from dealias.models import ModelSpec, Preprocessing
from dealias.repair import RepairOptions
from dealias.repair.photographs import repair_with_photographs

SIDE = 32
PLAIN = Preprocessing(SIDE, SIDE, SIDE, 3, "bilinear", (0.0,) * 3, (1.0,) * 3)


def source_of(folder: Path, broken: set[int], count: int = 10) -> Source:
    """Noise; some of the files are no pictures."""
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        if number in broken:
            path.write_bytes(b"no picture")
    return Source.of_all(folder, None, [0] * count, [path.name for path in paths], paths.__getitem__)


@pytest.mark.filterwarnings("ignore:held_out has")
def test_held_out_photographs_are_numbered_as_in_the_source(tmp_path: Path) -> None:
    network = Network(ModelSpec("a:b"), Segmenter().eval(), PLAIN, torch.device("cpu"), 4, "segmentation")
    copy = antialias(network.model, network.blank())
    broken = {0, 1, 5}
    source = source_of(tmp_path / "photos", broken)
    options = RepairOptions(task="segmentation", epochs=1, batch_size=2, held_out=0.4)
    found = repair_with_photographs(network, copy, source, tmp_path / "out", options)
    assert found.outcome.model is copy
    assert found.outcome.results["images"] == {"trained_on": 4, "held_out": 3}
    assert len(found.held_out) == 3
    assert not broken & {*found.held_out}
    readable = [number for number in range(10) if number not in broken]
    assert [readable.index(number) for number in found.held_out] == found.outcome.results["settings"]["held_out"]
    with pytest.raises(InputError, match="has none that can be read"):
        repair_with_photographs(
            network, copy, source_of(tmp_path / "none", {0, 1}, count=2), tmp_path / "other", options
        )
