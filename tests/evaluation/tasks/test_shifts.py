"""Accuracy and consistency of an evaluation, against `measure_consistency` on the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.evaluation_runs import MODEL, QUICK, WINDOWS, network_and_images, network_of

from dealias.data import open_source
from dealias.evaluation import evaluate
from dealias.evaluation.tasks.base import Request
from dealias.evaluation.tasks.shifts import ShiftTask
from dealias.metrics import measure_consistency, wilson_interval
from dealias.models import preprocessing_for


def test_figures_equal_those_of_the_library_on_the_same_images(pictures: Path, tmp_path: Path) -> None:
    network, images, targets = network_and_images(pictures)
    found = evaluate([MODEL], pictures, tmp_path / "run", **QUICK)["metrics"]["plain"]
    with torch.no_grad():
        right = int((network(images[:, :, 4:36, 4:36]).argmax(1) == targets).sum())
    assert found["accuracy"]["value"] == right / 20
    assert found["accuracy"]["interval"] == pytest.approx(wilson_interval(right, 20))
    for mode, key in (("crop", "crop_consistency"), ("diagonal", "diagonal_consistency"), ("grid", "grid_consistency")):
        result = measure_consistency(network, images, targets=targets, mode=mode, seed=0, **WINDOWS)
        assert found[key]["value"] == pytest.approx(result.consistency)
        assert found[key]["interval"] == pytest.approx(result.interval)
        assert found[f"{mode}_unanimity"]["value"] == pytest.approx(result.unanimity)
        if mode == "diagonal":
            assert found["probability_variation"]["value"] == pytest.approx(result.variation, abs=1e-6)
        if mode == "grid":
            assert found["worst_case_accuracy"]["value"] == pytest.approx(result.worst_case_accuracy)
    pixel = measure_consistency(network, images, mode="one_pixel", seed=0, **WINDOWS)
    assert found["one_pixel_flip_probability"]["value"] == pytest.approx(1 - pixel.consistency)
    middle = images[:, :, 4:36, 4:36]
    rolled = measure_consistency(network, middle, mode="fractional", max_shift=16, seed=0)
    assert found["fractional_consistency"]["value"] == pytest.approx(rolled.consistency)


def test_circular_shifts_by_halves_and_thirds_of_a_pixel(pictures: Path, tmp_path: Path) -> None:
    network, images, targets = network_and_images(pictures)
    middle = images[:, :, 4:36, 4:36]
    metrics = ["half-pixel", "third-pixel", "circular-grid", "half-pixel-grid"]
    found = evaluate([MODEL], pictures, tmp_path / "run", **{**QUICK, "metrics": metrics})["metrics"]["plain"]
    for mode in ("half_pixel", "third_pixel"):
        rolled = measure_consistency(network, middle, mode=mode, max_shift=16)
        assert found[f"{mode}_consistency"]["value"] == pytest.approx(rolled.consistency)
    for mode, key in (("circular_grid", "circular"), ("half_pixel_grid", "half_pixel")):
        worst = measure_consistency(network, middle, mode=mode, targets=targets).worst_case_accuracy
        assert found[f"{key}_worst_case_accuracy"]["value"] == pytest.approx(worst)


def test_windows_need_room_to_slide(pictures: Path) -> None:
    whole, sliding = preprocessing_for("dealias:vgg_small"), preprocessing_for("torchvision:resnet18")
    assert not ShiftTask.measures("grid", whole)
    assert ShiftTask.measures("circular", whole)
    assert ShiftTask.measures("grid", sliding)
    source = open_source(pictures)
    (task,) = ShiftTask.plan(Request(source, ["consistency", "grid", "zero-fill"]), whole)
    assert isinstance(task, ShiftTask)
    assert (list(task.shifts), task.accuracy) == (["circular", "zero_fill"], False)
    (task,) = ShiftTask.plan(Request(source, ["accuracy", "consistency", "grid"]), sliding)
    assert isinstance(task, ShiftTask)
    assert (list(task.shifts), task.accuracy) == (["crop", "grid"], True)
    assert list(ShiftTask.plan(Request(source, ["equivariance"]), whole)) == []


def test_top5_is_numpys(pictures: Path) -> None:
    network, source = network_of(), open_source(pictures)
    (task,) = ShiftTask.plan(Request(source, ["accuracy"]), network.preprocessing)
    views = np.stack([task.views(source.read(number), number, network.preprocessing) for number in range(20)])
    counts = task.count(torch.tensor(views), network, torch.tensor(source.labels), range(20))
    model, images, targets = network_and_images(pictures)
    with torch.no_grad():
        order = model(images[:, :, 4:36, 4:36]).numpy().argsort(1)[:, ::-1]
    assert counts["top5"] == [int(label in row[:5]) for row, label in zip(order, targets.tolist(), strict=True)]
    assert counts["top1"] == [int(label == row[0]) for row, label in zip(order, targets.tolist(), strict=True)]
    assert 0 < sum(counts["top1"]) < sum(counts["top5"]) < 20


def test_the_least_stable_image_has_least_agreement_then_most_variation() -> None:
    counts = {
        "nan": [0, 0, 0],
        "crop": {"agreements": [2, 1, 1]},
        "diagonal": {"agreements": [5, 5, 5], "variation": [0.1, 0.2, 0.3]},
    }
    stability = ShiftTask.stability(counts)
    assert sorted(range(3), key=stability.__getitem__) == [2, 1, 0]
    assert ShiftTask.stability({"nan": [0, 0], "top1": [1, 0]}) == [(0.0, 0.0), (0.0, 0.0)]
