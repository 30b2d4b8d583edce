import pytest
import torch
from torch import nn

from dealias.errors import InputError
from dealias.training import fit


def _two_clusters() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(256) % 2
    images = torch.randn(256, 1, 4, 4, generator=generator) + 3 * labels.view(-1, 1, 1, 1)
    return images, labels


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def test_learns_and_leaves_the_model_in_eval_mode():
    images, labels = _two_clusters()
    losses: list[float] = []
    model = fit(_network(), images, labels, epochs=3, batch_size=32, on_step=losses.append)
    assert len(losses) == 3 * 256 // 32
    assert losses[-1] < 0.3 < losses[0]
    assert not model.training
    assert (model(images).argmax(1) == labels).float().mean() > 0.98


def test_the_seed_decides_the_order():
    images, labels = _two_clusters()
    weights = [
        fit(_network(), images, labels, epochs=1, batch_size=32, seed=seed).state_dict()["1.weight"]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fewer_images_than_a_batch():
    images, labels = _two_clusters()
    with pytest.raises(InputError, match="batch_size=64 is too large: there are 10 images"):
        fit(_network(), images[:10], labels[:10], epochs=1)


def test_a_loss_that_is_not_finite_stops_and_names_the_step():
    images, labels = _two_clusters()
    images[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"loss is nan at epoch 0, step \d"):
        fit(_network(), images, labels, epochs=1, batch_size=32)
