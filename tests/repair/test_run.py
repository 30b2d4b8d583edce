"""Repair from start to end: figures, resumption, files, and bad arguments."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.repairs import same_weights, small_images, small_network
from safetensors.torch import load_file
from torch import nn

from dealias import antialias
from dealias.data import digits_split
from dealias.errors import InputError, InputTypeError
from dealias.metrics import measure_consistency
from dealias.models import vgg_small
from dealias.repair import repair
from dealias.repair.domain import split_held_out
from dealias.training import fit


def test_digits_without_labels():
    train, test = digits_split(0)
    images, targets = torch.cat([train.images, test.images[:500]]), torch.cat([train.labels, test.labels[:500]])
    torch.manual_seed(0)
    original = fit(vgg_small(padding_mode="circular"), train.images, train.labels, epochs=2, learning_rate=0.1)
    before = {key: value.clone() for key, value in original.state_dict().items()}
    # a short form: experiments/repair_digits.py holds a fully trained baseline to 0.98
    outcome = repair(
        original, images, targets=targets, held_out=range(4000, 4500), epochs=2, learning_rate=0.02, min_agreement=0.96
    )
    found = outcome.results
    assert found["converted"]["accuracy"] < 0.5 < found["reestimated"]["accuracy"] < found["repaired"]["accuracy"]
    assert found["repaired"]["consistency"] > 0.97 > found["original"]["consistency"]
    assert outcome.succeeded
    assert all(torch.equal(value, before[key]) for key, value in original.state_dict().items())
    # the figures again, from the networks
    with torch.no_grad():
        theirs, ours = original(images[4000:]).argmax(1), outcome.model(images[4000:]).argmax(1)
    assert found["repaired"]["agreement"] == pytest.approx(float((theirs == ours).float().mean()))
    assert found["repaired"]["accuracy"] == pytest.approx(float((ours == targets[4000:]).float().mean()))


def test_neither_labels_nor_held_out_images_change_the_weights():
    images, held = small_images(), range(30, 40)
    options: dict[str, Any] = {
        "held_out": held,
        "epochs": 1,
        "batch_size": 8,
        "min_agreement": 0.0,
        "min_consistency": 0.0,
    }
    plain = repair(small_network(), images, **options)
    changed = images.clone()
    changed[30:] = 1 - changed[30:]
    other = repair(small_network(), changed, targets=torch.arange(40) % 10, **options)
    assert same_weights(plain.model, other.model)
    assert not same_weights(plain.model, small_network())
    assert "accuracy" not in plain.results["repaired"]
    assert "accuracy" in other.results["repaired"]


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path):
    options: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "min_agreement": 0.0,
        "min_consistency": 0.0,
        "average_shifts": True,
    }
    whole, output = tmp_path / "whole", tmp_path / "broken"
    unbroken = repair(small_network(), small_images(), output=whole, **options)

    def interrupt(stage: str, done: float) -> None:
        if stage == "repairing" and done > 0.5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        repair(small_network(), small_images(), output=output, on_progress=interrupt, **options)
    assert sorted(path.name for path in output.iterdir()) == [".dealias.json", "state.pt"]
    assert 0 < torch.load(output / "state.pt", weights_only=True)["distillations"][""]["step"] < 8
    with pytest.raises(InputError, match=r"had epochs=2: give the same"):
        repair(small_network(), small_images(), output=output, resume=True, **(options | {"epochs": 3}))
    resumed = repair(small_network(), small_images(), output=output, resume=True, **options)
    assert same_weights(unbroken.model, resumed.model)
    assert unbroken.results == resumed.results
    assert json.loads((output / "results.json").read_text()) == resumed.results
    written = load_file(output / "model.safetensors")
    assert all(torch.equal(value, written[key]) for key, value in resumed.model.state_dict().items())
    assert (output / "state.pt").read_bytes() == (whole / "state.pt").read_bytes()


def test_a_finished_run_goes_on_for_more_epochs(tmp_path: Path):
    options: dict[str, Any] = {"batch_size": 8, "min_agreement": 0, "min_consistency": 0, "output": tmp_path}
    with pytest.warns(UserWarning, match="held_out has 8 images: intervals of so few say little"):
        first = repair(small_network(), small_images(), epochs=1, **options)
    weights = {key: value.clone() for key, value in first.model.state_dict().items()}
    more = repair(small_network(), small_images(), epochs=3, resume=True, **options)
    assert [point["epoch"] for point in more.results["curve"]] == [1, 2, 3]
    assert more.results["curve"][:1] == first.results["curve"]
    assert more.results["repaired"]["agreement"] == more.results["curve"][-1]["agreement"]
    assert more.results["settings"]["epochs"] == 3
    state = torch.load(tmp_path / "state.pt", weights_only=True)["distillations"][""]
    assert (state["first"], state["step"]) == (4, 12)
    assert not all(torch.equal(value, weights[key]) for key, value in more.model.state_dict().items())


def test_the_filters_of_a_copy_that_is_given_are_its_own():
    network, options = small_network().eval(), {"epochs": 1, "batch_size": 8, "min_agreement": 0, "min_consistency": 0}
    copy = antialias(network, small_images(1), filter="tri3")
    given = repair(network, small_images(), converted=copy, **options)
    built = repair(network, small_images(), filter="tri3", **options)
    assert given.model is copy
    assert same_weights(given.model, built.model)
    assert (given.results["settings"]["filter"], built.results["settings"]["filter"]) == (None, "tri3")


def test_a_failed_repair_leaves_no_weights(tmp_path: Path):
    # the rate is too small to change anything
    outcome = repair(small_network(), small_images(), epochs=1, learning_rate=1e-9, min_agreement=1.0, output=tmp_path)
    assert outcome.results["repaired"]["agreement"] < 1
    assert not outcome.succeeded
    assert json.loads((tmp_path / "results.json").read_text())["succeeded"] is False
    assert not (tmp_path / "model.safetensors").exists()


def test_arguments_that_numpy_computed(tmp_path: Path):
    outcome = repair(
        small_network(),
        small_images(),
        held_out=np.arange(30, 40),
        epochs=1,
        min_agreement=np.float64(0.0),
        min_consistency=0,
        output=tmp_path,
    )
    assert json.loads((tmp_path / "results.json").read_text()) == outcome.results
    again = repair(
        small_network(),
        small_images(),
        held_out=range(30, 40),
        epochs=1,
        min_agreement=0,
        min_consistency=0,
        output=tmp_path,
        resume=True,
    )
    assert same_weights(again.model, outcome.model)


def test_a_batch_of_one_image_does_not_count_in_the_statistics():
    """Nine images to train on in parts of 4, 4 and 1: a batch norm of vectors takes no single one."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(*layers, nn.BatchNorm1d(4), nn.Linear(4, 3))
    images = small_images(11)
    outcome = repair(
        network,
        images,
        held_out=[0, 1],
        epochs=1,
        batch_size=4,
        learning_rate=1e-30,
        min_agreement=0,
        min_consistency=0,
    )
    assert outcome.results["images"] == {"trained_on": 9, "held_out": 2}


def test_windows_slide_over_larger_images():
    images = small_images().expand(-1, -1, 16, 16).repeat(1, 1, 2, 2)
    outcome = repair(
        small_network(),
        images,
        crop_size=28,
        prepare=lambda pixels: pixels * 2 - 1,
        epochs=1,
        min_agreement=0.0,
        min_consistency=0,
    )
    assert outcome.results["consistency_mode"] == "crop"
    held = split_held_out(images, 0.2, 0)[1]
    again = measure_consistency(outcome.model, images[held] * 2 - 1, mode="crop", crop_size=28, image_size=32)
    assert outcome.results["repaired"]["consistency"] == again.consistency


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, r"epochs=0"),
        ({"batch_size": 1}, r"batch_size=1"),
        ({"min_agreement": 98}, r"min_agreement=98"),
        ({"held_out": 1.0}, r"held_out=1.0"),
        ({"held_out": [40]}, r"from 0 to 39"),
        ({"held_out": 0.99}, r"40 images, 0 of them"),
        ({"learning_rate": 0.0}, r"learning_rate=0.0"),
        ({"feature_weight": -1.0}, r"feature_weight=-1.0"),
        ({"crop_size": 16}, r"crop_size=16"),
        ({"targets": torch.zeros(3)}, r"targets of shape \(3,\)"),
        ({"resume": True}, r"needs output"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        repair(small_network(), small_images(), **arguments)


class Segmenter(nn.Module):
    """Pixels that are brighter than their surroundings, found on a grid of half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": nn.functional.interpolate(self.head(self.down(images)), scale_factor=2.0)}


class Embedder(Segmenter):
    """Vectors of length 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.head(self.down(images)).mean(3).flatten(1))


def test_a_segmentation_network_is_recognised_and_repaired():
    smooth = nn.functional.avg_pool2d(torch.rand(120, 1, 20, 20, generator=torch.Generator().manual_seed(0)), 5, 1)
    images = (smooth - smooth.mean()) / smooth.std()
    outcome = repair(Segmenter(), images, epochs=12, batch_size=8, learning_rate=0.1, min_agreement=0.8)
    found = outcome.results
    assert found["task"] == "segmentation"
    assert found["reestimated"]["agreement"] < found["repaired"]["agreement"]
    assert found["repaired"]["consistency"] > found["original"]["consistency"]
    assert outcome.succeeded, found["reasons"]


@pytest.mark.parametrize("task", ["embeddings", "images"])
def test_figures_that_are_no_shares_are_judged_by_the_original_s_own_changes(task: str):
    options: dict[str, Any] = {"task": task, "epochs": 1, "batch_size": 8, "learning_rate": 1e-9}
    network = Embedder() if task == "embeddings" else nn.Sequential(Segmenter().down, nn.Upsample(scale_factor=2))
    outcome = repair(network, small_images(), **options)
    original, repaired = outcome.results["original"]["consistency"], outcome.results["repaired"]["agreement"]
    is_short = repaired > original if task == "embeddings" else repaired < original
    assert any(reason.startswith("agreement") for reason in outcome.results["reasons"]) == is_short
    with pytest.raises(InputError, match="average_shifts=True averages class scores"):
        repair(network, small_images(), average_shifts=True, **options)


def test_bad_images_and_a_loss_that_grows_beyond_bounds():
    with pytest.raises(InputTypeError, match="list"):
        repair(small_network(), cast(Any, [1, 2]))
    with pytest.raises(InputError, match=r"\(16, 16\)"):
        repair(small_network(), torch.rand(16, 16))
    with pytest.raises(FloatingPointError, match=r"at step \d: lower learning_rate"):
        repair(small_network(), small_images(), batch_size=8, learning_rate=1e30)
