"""Optimizers, schedules, mixing and loss against PyTorch's own and formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias.errors import InputError
from dealias.training.optimization import make_average, make_mixing, make_optimizer, make_schedule, summed_loss
from dealias.training.settings import Settings, load_recipe


def settings(**more: Any) -> Settings:
    return load_recipe("zhang2019-imagenet", overrides={"epochs": 9, **more})


def rates(chosen: Settings, steps: int = 4) -> list[float]:
    optimizer = make_optimizer(nn.Linear(2, 2), chosen)
    schedule = make_schedule(optimizer, chosen, steps)
    found = []
    for _ in range(chosen.epochs * steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_steps_of_a_third() -> None:
    expected = [0.1 * 0.1 ** (step // 4 // 3) for step in range(36)]
    assert rates(settings(decay_epochs=3)) == pytest.approx(expected)
    assert rates(settings(decay_epochs=[3, 6])) == pytest.approx(expected)


def test_cosine_and_warm_up() -> None:
    cosine = [0.05 * (1 + torch.cos(torch.tensor(step * torch.pi / 36)).item()) for step in range(36)]
    assert rates(settings(schedule="cosine")) == pytest.approx(cosine, abs=1e-6)
    warm = rates(settings(schedule="cosine", warmup_epochs=2))
    assert warm[:9] == pytest.approx(torch.linspace(0.1 / 8, 0.1, 9).tolist())
    assert warm[8] == max(warm) == pytest.approx(0.1)
    assert warm[-1] < 0.001
    assert rates(settings(schedule="constant")) == pytest.approx([0.1] * 36)
    stepped = rates(settings(decay_epochs=3, warmup_epochs=1))
    assert stepped[4:12] == pytest.approx([0.1] * 8)
    assert stepped[12:24] == pytest.approx([0.01] * 12)
    with pytest.raises(InputError, match="must be fewer than epochs=9"):
        rates(settings(schedule="cosine", warmup_epochs=9))


def test_optimizers_come_from_timm() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    momentum, nesterov = (make_optimizer(net, settings(optimizer=name)) for name in ("momentum", "sgd"))
    assert isinstance(momentum, torch.optim.SGD)
    assert (momentum.defaults["nesterov"], nesterov.defaults["nesterov"]) == (False, True)
    assert [group["weight_decay"] for group in momentum.param_groups] == [1e-4]  # all, as the paper does
    assert {group["weight_decay"] for group in make_optimizer(net, settings(decay_all=False)).param_groups} == {0, 1e-4}
    assert isinstance(make_optimizer(net, settings(optimizer="adamw")), torch.optim.AdamW)
    with pytest.raises(InputError, match="optimizer='sdg' is unknown to timm"):
        make_optimizer(net, settings(optimizer="sdg"))


def test_losses_of_main_and_auxiliary_heads() -> None:
    logits, aux, target = torch.randn(5, 7), torch.randn(5, 7), torch.arange(5)
    expected = F.cross_entropy(logits, target) * 5
    torch.testing.assert_close(summed_loss(logits, target, 0.0), expected)
    torch.testing.assert_close(
        summed_loss((logits, aux, None), target, 0.0), expected + 0.3 * 5 * F.cross_entropy(aux, target)
    )


def test_mixing_gives_fractions_of_classes() -> None:
    assert make_mixing(settings(), 4) is None
    for chosen in ({"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}):
        mixing = make_mixing(settings(**chosen), 4)
        assert mixing is not None
        _, mixed = mixing(torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0]))  # an odd number too
        torch.testing.assert_close(mixed.sum(1), torch.ones(5))


def test_the_average_moves_by_its_decay() -> None:
    model = nn.Linear(2, 2)
    assert make_average(model, settings()) is None
    average = make_average(model, settings(ema_decay=0.75))
    assert average is not None
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.update(model, 2)  # the first step only copies
    torch.testing.assert_close(average.module.weight, before + 0.25)
