"""Pipelines of several networks: the images that their parts are given, and their repair one after the other."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.repairs import same_weights, small_domain
from torch import Tensor, nn

from dealias.errors import InputError
from dealias.perturb import crop
from dealias.repair import RepairOptions, repair
from dealias.repair.distillation import Distillation
from dealias.repair.domain import Domain, split_held_out
from dealias.repair.parts import antialias_parts, record_inputs


class Pipeline(nn.Module):
    """Finds the brightest place at two scales by one network, and looks at the windows around it by another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.finder = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 1, 1))
        with torch.no_grad():
            self.finder[3].weight *= 10
        features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.reader = nn.Sequential(features, nn.Linear(128, 5))
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        heat = self.finder(images)
        self.finder(images[:, :, :6, :6])
        places = heat.flatten(1).argmax(1)
        rows, columns = places // heat.shape[3], places % heat.shape[3]
        windows = crop(images, (2 * rows).clamp(max=16), (2 * columns).clamp(max=16), 8)
        self.given.append((images, windows))
        logits: Tensor = self.reader(windows)
        return logits


PARTS = {"finder": 12, "reader": 8}


def pictures(count: int = 30) -> Tensor:
    return torch.rand(count, 1, 24, 24, generator=torch.Generator().manual_seed(1))


def domain(images: Tensor, crop_size: int | None = None) -> Domain:
    return small_domain(crop_size, images=images, prepare=lambda pixels: pixels, batch_size=4, seed=0)


def test_the_images_of_parts_are_those_that_the_pipeline_hands_to_them():
    pipeline = Pipeline().eval()
    found = record_inputs(pipeline, domain(pictures(10)), [*range(8)], PARTS, 1000)
    whole, windows = map(torch.cat, zip(*pipeline.given, strict=True))
    assert torch.equal(found["reader"], windows[:8])  # they are shown twice
    # four windows of 12 pixels fill a picture of 24; those of 6 pixels are too small
    assert found["finder"].shape == (32, 1, 12, 12)
    places = whole.unfold(2, 12, 1).unfold(3, 12, 1).reshape(-1, 144)
    assert all(bool((places == window).all(1).any()) for window in found["finder"].flatten(1))


def test_larger_pictures_are_shown_in_other_windows_until_there_are_enough():
    pipeline = Pipeline().eval()
    pictures_of_32 = torch.rand(4, 1, 32, 32)
    found = record_inputs(pipeline, domain(pictures_of_32, 24), [*range(4)], {"reader": 8}, 10)
    assert len(pipeline.given) == 2 * 3
    windows = torch.cat([windows for _, windows in pipeline.given])
    assert len(found["reader"]) == 10
    assert len({window.numpy().tobytes() for window in found["reader"]}) > 4
    assert all(any(torch.equal(window, given) for given in windows) for window in found["reader"])


def test_memory_holds_the_images_that_are_kept_and_those_of_one_batch():
    def held() -> int:
        tensors = (each for each in gc.get_objects() if type(each) is Tensor and not each.is_nested)
        return sum(len(each) for each in tensors if each.shape[1:] == (1, 12, 12))

    class Watched(Pipeline):
        most = 0

        def forward(self, images: Tensor) -> Tensor:
            self.most = max(self.most, held() - before)
            return super().forward(images)

    before = held()  # of other tests
    pipeline = Watched().eval()
    found = record_inputs(pipeline, domain(torch.rand(20, 1, 32, 32), 24), [*range(20)], {"finder": 12}, 10)
    assert found["finder"].shape == (10, 1, 12, 12)
    # of 80 windows, in 5 batches; those of the last batch are there once more, joined
    assert 0 < pipeline.most <= 10 + 2 * 16


def test_the_parts_of_a_copy_are_antialiased():
    pipeline = Pipeline().eval()
    converted: Any = antialias_parts(pipeline, {"reader": torch.rand(2, 1, 8, 8)})
    assert str(converted.reader) != str(pipeline.reader)
    assert str(converted.finder) == str(pipeline.finder) == str(Pipeline().finder)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"writer": 8}, r"parts: the network has no module 'writer': use a path of named_modules\(\)"),
        ({"finder": 48}, "parts: 'finder' is given no images of at least 48 x 48 pixels: use a smaller side"),
    ],
)
def test_parts_that_cannot_be_repaired_are_refused(parts: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        record_inputs(Pipeline().eval(), domain(pictures(4)), [0, 1], parts, 10)


def test_parts_are_repaired_one_after_the_other_and_resumed(tmp_path: Path):
    options: dict[str, Any] = {
        "parts": PARTS,
        "epochs": 8,
        "batch_size": 8,
        "learning_rate": 0.01,
        "min_agreement": 0,
        "min_consistency": 0,
    }
    original = Pipeline()
    unbroken = repair(original, pictures(), **options)
    assert [(point["part"], point["epoch"]) for point in unbroken.results["curve"]] == [
        *(("finder", epoch) for epoch in range(1, 9)),
        *(("reader", epoch) for epoch in range(1, 9)),
    ]
    assert unbroken.results["settings"]["parts"] == PARTS
    assert unbroken.results["images"]["held_out"] == 6
    assert unbroken.results["repaired"]["agreement"] == unbroken.results["curve"][-1]["agreement"]
    # the second part, taught alone
    train, _ = split_held_out(pictures(), 0.2, 0)
    inputs = record_inputs(original.eval(), domain(pictures()), train, PARTS, 4000)
    alone = antialias_parts(original, inputs).get_submodule("reader")
    chosen = RepairOptions(epochs=8, batch_size=8, learning_rate=0.01)
    lesson = Distillation(original.reader, alone, domain(inputs["reader"]), [*range(len(train))], chosen)
    assert len([*lesson.remaining_steps()]) == 24
    assert same_weights(alone, unbroken.model.get_submodule("reader"))

    def interrupt(stage: str, done: float) -> None:
        if stage == "repairing" and done > 0.8:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        repair(Pipeline(), pictures(), output=tmp_path, on_progress=interrupt, **options)
    resumed = repair(Pipeline(), pictures(), output=tmp_path, resume=True, **options)
    assert same_weights(unbroken.model, resumed.model)
    assert unbroken.results == resumed.results
