"""The losses of the copy, against formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias import antialias
from dealias.convert import sites
from dealias.repair.losses import averaged_logits, feature_loss, features_at, logit_loss, output_loss, tensors_in


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


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl(p: Tensor, q: Tensor) -> Tensor:
    """The divergence summed over the last axis, its mean over all others."""
    return (p * (p / q).log()).sum(-1).mean()


def test_tensors_are_found_by_their_place() -> None:
    one, two, three = drawn(1), drawn(2), drawn(3)
    found = tensors_in({"logits": one, "parts": [two, None, (three, "text")]})
    assert found == {".logits": one, ".parts[0]": two, ".parts[2][0]": three}
    assert tensors_in(one) == {"": one}


def test_class_scores_are_compared_at_each_pixel() -> None:
    ours, theirs = drawn(2, 5, 3, 4), drawn(2, 5, 3, 4, seed=1)
    p, q = (F.softmax(each / 2, 1).movedim(1, -1) for each in (theirs, ours))
    torch.testing.assert_close(output_loss({"out": ours}, {"out": theirs}, "segmentation", 2.0), 4 * kl(p, q))


def test_probabilities_are_compared_as_they_are_and_tell_where_boxes_count() -> None:
    """As the networks of MTCNN: offsets of a box, and the probabilities of nothing and of a face."""
    offsets, wanted = drawn(6, 4), drawn(6, 4, seed=1)
    ours, theirs = F.softmax(drawn(6, 2, seed=2), 1), F.softmax(3 * drawn(6, 2, seed=3), 1)
    distance = F.smooth_l1_loss(
        offsets / wanted.std(0, correction=0), wanted / wanted.std(0, correction=0), reduction="none"
    )
    face = theirs[:, 1:].clamp_min(1e-3)
    expected = (kl(theirs, ours) + (distance * face).sum() / (4 * face.sum())) / 2
    torch.testing.assert_close(output_loss((offsets, ours), (wanted, theirs), "detection", 2.0), expected)


def test_the_queries_of_detr_count_by_their_objects() -> None:
    ours, theirs = drawn(2, 7, 4), 2 * drawn(2, 7, 4, seed=1)
    boxes, wanted = drawn(2, 7, 4, seed=2), drawn(2, 7, 4, seed=3)
    spread = wanted.movedim(1, 0).flatten(1).std(1, correction=0).view(1, -1, 1)
    distance = F.smooth_l1_loss(boxes / spread, wanted / spread, reduction="none")
    sure = (1 - theirs.softmax(-1)[..., -1:]).clamp_min(1e-3)
    p, q = (F.softmax(each / 2, -1) for each in (theirs, ours))
    expected = (4 * kl(p, q) + (distance * sure).sum() / (4 * sure.sum())) / 2
    found = output_loss(
        {"logits": ours, "pred_boxes": boxes}, {"logits": theirs, "pred_boxes": wanted}, "detection", 2.0
    )
    torch.testing.assert_close(found, expected)


def test_embeddings_are_compared_by_their_angle() -> None:
    ours, theirs = drawn(3, 8), drawn(3, 8, seed=1)
    cosine = (ours * theirs).sum(1) / (ours.norm(dim=1) * theirs.norm(dim=1))
    torch.testing.assert_close(output_loss(ours, theirs, "embeddings", 2.0), 1 - cosine.mean())
    assert float(output_loss(2 * theirs, theirs, "embeddings", 2.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "output"),
    [
        ("images", drawn(2, 3, 8, 8)),
        ("keypoints", drawn(2, 5, 2)),
        ("detection", (drawn(2, 84, 20).sigmoid(), [drawn(2, 16, 4, 4)])),
        ("detection", [{"boxes": drawn(3, 4), "labels": torch.tensor([1, 2, 3]), "scores": drawn(3).sigmoid()}]),
    ],
)
def test_equal_outputs_are_no_distance_apart(task: Any, output: Any) -> None:
    assert float(output_loss(output, output, task, 2.0)) == 0


def test_tensors_whose_size_the_image_decides_do_not_count() -> None:
    ours, theirs = ([{"boxes": drawn(count, 4), "scores": drawn(count)}] for count in (3, 5))
    assert float(output_loss(ours, theirs, "detection", 2.0)) == 0
