"""EfficientNet-Lite0 recognises photographs, as the weights' author would see it do."""

from __future__ import annotations

import torch

from dealias.data import photos
from dealias.models import default_input_size, default_normalization, efficientnet_lite0, imagenet_labels
from dealias.perturb import crop


def test_efficientnet_lite0_recognises_the_photographs() -> None:
    model, labels = efficientnet_lite0(), imagenet_labels()
    assert not model.training
    assert len(labels) == 1000
    assert all(isinstance(label, str) and label for label in labels)
    assert default_input_size(model) == (3, 224, 224)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in default_normalization(model))
    assert torch.allclose(255 * torch.stack([mean, std]).flatten(), torch.tensor([127.0] * 3 + [128.0] * 3))
    pictures = photos(256)
    images = torch.stack([crop(pictures[name], 16, 16, 224) for name in ("coffee", "camera", "rocket")])
    with torch.no_grad():
        probabilities, classes = model((images - mean) / std).softmax(1).max(1)
    assert [labels[index] for index in classes] == ["espresso", "tripod", "missile"]
    assert float(probabilities[0]) > 0.8
