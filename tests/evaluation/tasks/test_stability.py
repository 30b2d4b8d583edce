"""Networks that are no classifiers, evaluated: against `measure_stability` on the same images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import networks_of_tasks

from dealias.data import open_source
from dealias.errors import InputError
from dealias.evaluation import evaluate
from dealias.evaluation.tasks.stability import StabilityTask
from dealias.metrics import make_views, measure_stability
from dealias.models import preprocessing_for
from dealias.report.evaluation import write_report

NETWORKS = {
    "detection": ("Detector", ["matched", "iou", "centre", "scale", "score"]),
    "segmentation": ("Segmenter", ["pixels", "iou"]),
    "keypoints": ("Points", ["mean", "p95", "largest"]),
    "embeddings": ("Embedder", ["mean", "p95"]),
    "images": ("Painter", ["psnr"]),
}
QUICK: dict[str, Any] = {"metrics": ["stability"], "workers": 0, "image_size": 40, "crop_size": 32, "limit": 9}


def evaluated(task: str, pictures: Path, output: Path, **more: Any) -> dict[str, Any]:
    name = NETWORKS[task][0]
    models = [f"helpers.networks_of_tasks:{name},label=plain"]
    models += [f"helpers.networks_of_tasks:{name},antialias=bin4,label=blurred"]
    return evaluate(models, pictures, output, task=more.pop("asked", "auto"), **{**QUICK, **more})


@pytest.mark.parametrize("task", NETWORKS)
@pytest.mark.filterwarnings("ignore:the model has no downsampling site")
def test_figures_are_those_of_measure_stability(task: str, pictures: Path, tmp_path: Path) -> None:
    name, values = NETWORKS[task]
    results = evaluated(task, pictures, tmp_path / "run")
    assert results["networks"]["plain"]["task"] == task
    source = open_source(pictures, limit=9)
    preprocessing = preprocessing_for("x:y", networks_of_tasks.Painter(), image_size=40, crop_size=32)
    squares = [preprocessing.square(source.read(number), preprocessing.shift_size) for number in range(9)]
    images = preprocessing.normalise(torch.from_numpy(np.stack(squares)))
    network = getattr(networks_of_tasks, name)()

    views = make_views("crop", crop_size=32, image_size=preprocessing.shift_size)
    plain = views.shifts
    # the shifts of an image depend on its number among all
    object.__setattr__(views, "shifts", lambda index: plain(source.positions[index]))
    expected = measure_stability(network, images, views=views)
    found = results["metrics"]["plain"]
    for value in values:
        figure = found[f"{task}_{value}"]
        assert figure["value"] == pytest.approx(expected.values[value], rel=1e-4, abs=1e-6), value
        if value in expected.intervals:
            assert figure["interval"] == pytest.approx(expected.intervals[value], rel=1e-3, abs=1e-6)
    if task == "images":
        assert found["images_error"]["value"] == pytest.approx(10 ** (-expected.values["psnr"] / 20), rel=1e-4)
    change = results["differences"]["blurred"]
    assert set(change) == set(results["metrics"]["blurred"])
    assert results["reaches"]["plain"] == {"crop": "windows of 32 pixels in 40"}
    page = write_report(tmp_path / "run").read_text()
    assert all(StabilityTask.FIGURES[f"{task}_{value}"].title in page for value in values if value != "psnr")
    assert json.loads((tmp_path / "run" / "slides.json").read_text()) == []


def test_a_killed_run_and_other_batches_give_the_same_result(pictures: Path, tmp_path: Path) -> None:
    whole = evaluated("detection", pictures, tmp_path / "whole", asked="detection")
    small = evaluated("detection", pictures, tmp_path / "small", asked="detection", batch_size=3)
    for name, figure in whole["metrics"]["plain"].items():
        # the last bits of a convolution depend on its batch
        assert small["metrics"]["plain"][name]["value"] == pytest.approx(figure["value"], rel=1e-4)
    cut = tmp_path / "cut"
    evaluated("detection", pictures, cut, asked="detection")
    lines = (cut / "counts.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "counts.jsonl").write_bytes(b"".join(lines[:1]) + lines[1][:40])
    again = evaluated("detection", pictures, cut, asked="detection", resume=True)
    assert again == whole
    with pytest.raises(InputError, match="other settings"):
        evaluated("segmentation", pictures, cut, resume=True)


def test_by_default_stability_and_the_sites_are_measured(pictures: Path, tmp_path: Path) -> None:
    results = evaluated("segmentation", pictures, tmp_path / "run", metrics=None, limit=2)
    assert results["measured"] == ["stability", "equivariance"]
    assert [site["path"] for site in results["profiles"]["plain"]["sites"]] == ["layers.0", "layers.2"]
    assert results["metrics"]["plain"]["segmentation_pixels"]["images"] == 2


def test_answers_with_nan_and_without_boxes_are_counted(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = networks_of_tasks.Painter.forward
    monkeypatch.setattr(networks_of_tasks.Painter, "forward", lambda self, x: plain(self, x) + x.mean() * torch.nan)
    results = evaluated("images", pictures, tmp_path / "nan")
    assert results["images"]["not_a_number"]["plain"] == 9
    assert results["metrics"]["plain"] == {}

    def empty(self: Any, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)} for _ in x]

    monkeypatch.setattr(networks_of_tasks.Detector, "forward", empty)
    results = evaluate(["helpers.networks_of_tasks:Detector"], pictures, tmp_path / "empty", task="detection", **QUICK)
    assert results["metrics"]["Detector"]["detection_empty"]["value"] == 1
    assert "detection_matched" not in results["metrics"]["Detector"]


def test_metrics_that_are_not_for_the_task_are_refused(pictures: Path, tmp_path: Path) -> None:
    for asked, metrics, message in [
        ("detection", ["accuracy"], "use all, or some of stability, equivariance for task='detection'"),
        ("auto", ["consistency"], "some of stability, equivariance for task='detection'"),
        ("classes", ["stability"], "use all, or some of accuracy"),
        ("boxes", ["stability"], "task='boxes' is unknown"),
        ("classes", None, r"the model's output is list: use a classifier with logits \(N, classes\), or name its task"),
        ("segmentation", None, "not of task='segmentation'"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluated("detection", pictures, tmp_path / "run", asked=asked, metrics=metrics)
    models = ["helpers.networks_of_tasks:Detector", "helpers.networks_of_tasks:Segmenter"]
    with pytest.raises(
        InputError, match=r"Detector detection, Segmenter segmentation\): evaluate networks of one task"
    ):
        evaluate(models, pictures, tmp_path / "run", task="auto", **QUICK)
