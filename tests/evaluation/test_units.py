"""Units of work: read, skipped, counted, by any number of processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from helpers.evaluation_runs import network_of
from PIL import Image

from dealias.data import open_source
from dealias.evaluation.plan import plan_evaluation
from dealias.evaluation.tasks.base import Request
from dealias.evaluation.units import count_unit, load_units


def test_units_are_read_in_order_whoever_reads(pictures: Path) -> None:
    plan = plan_evaluation(Request(open_source(pictures), ["accuracy", "imagenet-c"]), [network_of()])
    units = plan.units[:4]
    alone, helped = list(load_units(units, 0)), list(load_units(units, 2))
    assert len(alone) == 4
    for unit, one, other in zip(units, alone, helped, strict=True):
        assert np.array_equal(one.views, other.views)
        assert one.numbers == other.numbers == list(range(unit.start, unit.stop))


def test_unreadable_images_are_named_and_small_ones_counted(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    (root / "class 0" / "0.png").write_bytes(b"broken")
    Image.new("RGB", (31, 50)).save(root / "class 0" / "1.png")
    network = network_of()
    plan = plan_evaluation(Request(open_source(root, limit=None), ["accuracy"]), [network])
    (loaded,) = load_units(plan.units, 0)
    assert loaded.numbers == list(range(1, 20))
    assert loaded.skipped == [(0, "not an image format that Pillow knows")]
    assert loaded.enlarged == 1
    record = count_unit(plan.units[0], loaded, [network])
    assert record.key == ("shifts", 0, 0)
    assert record.positions == list(range(1, 20))
    assert len(record.counts["plain"]["top1"]) == 19


def test_a_unit_without_a_readable_image_counts_nothing(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "a.png").write_bytes(b"broken")
    network = network_of()
    plan = plan_evaluation(Request(open_source(tmp_path / "images"), ["circular"]), [network])
    (loaded,) = load_units(plan.units, 0)
    assert loaded.views is None
    assert count_unit(plan.units[0], loaded, [network]).counts == {}
