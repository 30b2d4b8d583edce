"""Accuracy and consistency after an epoch, against plain loops."""

from __future__ import annotations

import torch
from torch import nn

from dealias.metrics import measure_consistency
from dealias.models import Preprocessing, vgg_small
from dealias.training.batches import Arrays
from dealias.training.processes import ProcessPart, make_accelerator
from dealias.training.validation import Validation, views_for

WHOLE = Preprocessing(32, 32, 32, 1, "bilinear", (0.0,), (1.0,))


def test_counts_are_those_of_plain_loops() -> None:
    torch.manual_seed(0)
    model, images, labels = vgg_small(), torch.rand(37, 1, 32, 32), torch.randint(10, (37,))
    views = views_for(WHOLE, pairs=2, seed=4)
    validation = Validation(Arrays(images, labels), WHOLE, views, 8, ProcessPart(0, 1, 0, pin_memory=False))
    calls: list[None] = []
    found = validation.measure(model, make_accelerator("cpu", "fp32"), lambda: calls.append(None))
    assert len(calls) == 5
    assert model.training
    model.eval()
    assert found["correct"] == int((model(images).argmax(1) == labels).sum())
    for mode, reach in (("circular", 16), ("zero_fill", 3)):
        plain = measure_consistency(model, images, mode=mode, pairs=2, seed=4, max_shift=reach)
        assert (found[f"{mode}_agreements"], found[f"{mode}_pairs"]) == (plain.agreements, plain.total)


def test_a_prediction_that_is_not_finite_is_wrong_and_agrees_with_itself_alone() -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3] / 0

    images, labels = torch.zeros(4, 1, 32, 32), torch.zeros(4, dtype=torch.int64)  # 0 / 0: NaN
    validation = Validation(Arrays(images, labels), WHOLE, views_for(WHOLE, 1, 0), 4, ProcessPart(0, 1, 0, False))
    found = validation.measure(Broken(), make_accelerator("cpu", "fp32"), lambda: None)
    assert (found["images"], found["correct"]) == (4, 0)


def test_views_of_networks_that_see_a_window_and_of_those_that_see_all() -> None:
    photo = Preprocessing(256, 224, 256, 3, "bilinear", (0.0,) * 3, (1.0,) * 3)
    assert list(views_for(photo, 1, 0)) == ["crop"]
    assert list(views_for(WHOLE, 1, 0)) == ["circular", "zero_fill"]


def test_processes_measure_each_image_once() -> None:
    labels = torch.arange(11)
    parts = [ProcessPart(rank, 3, 0, pin_memory=False) for rank in range(3)]
    found = [
        label
        for part in parts
        for _, _, batch in Validation(Arrays(torch.rand(11, 1, 32, 32), labels), WHOLE, {}, 2, part).batches
        for label in batch.tolist()
    ]
    assert sorted(found) == labels.tolist()
