"""The parts of the training of the copy, against formulas."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.repairs import small_domain, small_images, small_network
from torch import nn

from dealias import antialias
from dealias.convert import sites
from dealias.repair import RepairOptions
from dealias.repair.distillation import Distillation, norms_train, reestimate_statistics
from dealias.repair.losses import feature_loss, features_at
from dealias.training.batches import epoch_batches


def test_statistics_are_the_average_over_the_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.BatchNorm2d(2))
    batches = [torch.randn(4, 2, 3, 3) * 3 + 1 for _ in range(3)]
    reestimate_statistics(model, batches)
    first, last = model[0], model[2]
    assert isinstance(first, nn.BatchNorm2d)
    assert isinstance(last, nn.BatchNorm2d)
    torch.testing.assert_close(first.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0))
    # what reaches it is normalised: dropout did not act
    torch.testing.assert_close(last.running_var, torch.ones(2), rtol=0.05, atol=0)
    assert (first.momentum, first.training) == (0.1, False)


@pytest.mark.parametrize("average", [False, True])
def test_steps_are_those_of_a_plain_loop(average: bool) -> None:
    original, images = small_network().eval(), small_images(16)
    model = antialias(original, images[:1])
    domain = small_domain(circular=True, images=images, prepare=lambda pixels: pixels, batch_size=8)
    options = RepairOptions(epochs=2, batch_size=8, average_shifts=average, feature_weight=0.5, seed=7)
    plain = norms_train(copy.deepcopy(model))
    distillation = Distillation(original, model, domain, list(range(16)), options)
    assert list(distillation.remaining_steps()) == [1, 2, 3, 4]

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=5)
    found = [site for site in sites(original, images[:1]) if site.placed and site.path]
    paths = [site.path for site in found]
    for batch in [*epoch_batches(16, 8, seed=7, epoch=0), *epoch_batches(16, 8, seed=7, epoch=1)]:
        with features_at(original, paths) as theirs, features_at(plain, paths) as ours:
            with torch.no_grad():
                views = original(images[batch]).unsqueeze(1)
            logits = plain(images[batch])
            features = feature_loss(theirs, ours, found)
        if average:
            with torch.no_grad():
                views = torch.cat([views, original(domain.shifted(batch.tolist())).view(8, 4, 10)], 1)
        wanted = F.softmax(views / 2, 2).mean(1)
        loss = 4 * (wanted * (wanted.log() - F.log_softmax(logits / 2, 1))).sum() / 8 + 0.5 * features
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_kept_norms_normalise_as_the_original_s():
    original, images = small_network().eval(), small_images(16)
    model = antialias(original, images[:1])
    domain = small_domain(circular=True, images=images, prepare=lambda pixels: pixels, batch_size=8)
    options = RepairOptions(epochs=1, batch_size=8, feature_weight=0.0, keep_norms=True, seed=7)
    plain = copy.deepcopy(model).eval()
    assert list(Distillation(original, model, domain, list(range(16)), options).remaining_steps()) == [1, 2]

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=3)
    for batch in epoch_batches(16, 8, seed=7, epoch=0):
        with torch.no_grad():
            wanted = F.softmax(original(images[batch]) / 2, 1)
        loss = 4 * F.kl_div(F.log_softmax(plain(images[batch]) / 2, 1), wanted, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    statistics = {name: tensor for name, tensor in original.named_buffers() if "running" in name}
    assert statistics
    assert all(torch.equal(model.get_buffer(name), tensor) for name, tensor in statistics.items())


def test_batch_norms_alone_train() -> None:
    model = norms_train(nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Conv2d(2, 2, 1)).train())
    assert [module.training for module in model] == [True, False, False]
