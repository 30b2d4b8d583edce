"""The losses of the copy, against formulas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dealias import antialias
from dealias.convert import sites
from dealias.repair.losses import averaged_logits, feature_loss, features_at, logit_loss


def test_dense_features_are_compared_on_the_original_s_grid():
    torch.manual_seed(0)
    original = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()
    )
    x = torch.rand(2, 1, 17, 15)
    found = sites(original, x, stem=True)
    converted = antialias(original, x, stem=True)
    paths = [site.path for site in found]
    with torch.no_grad(), features_at(original, paths) as theirs, features_at(converted, paths) as ours:
        original(x), converted(x)
    assert ours["0"].shape[2:] == (17, 15)
    assert feature_loss(theirs, ours, found[:1]) == 0  # nothing was blurred before the first
    expected = ((ours["2"][:, :, ::2, ::2] - theirs["2"]) ** 2).mean() / (theirs["2"] ** 2).mean()
    torch.testing.assert_close(feature_loss(theirs, ours, found), expected / 2)
    assert not original[0]._forward_hooks


def test_averaged_logits_soften_to_the_mean():
    views = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 4
    softened = (averaged_logits(views, 2.0) / 2).softmax(-1)
    torch.testing.assert_close(softened, (views / 2).softmax(-1).mean(1))


def test_the_logit_loss_is_the_divergence_by_its_formula() -> None:
    logits, wanted = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    p, q = F.softmax(wanted / 2, 1), F.softmax(logits / 2, 1)
    torch.testing.assert_close(logit_loss(logits, wanted, 2.0), 4 * (p * (p / q).log()).sum() / 6)
    assert float(logit_loss(wanted, wanted, 2.0)) == 0
