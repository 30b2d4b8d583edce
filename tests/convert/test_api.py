"""The arguments of `antialias` and `sites`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conversion import placed
from torch import nn

from dealias import MaxBlurPool2d, antialias, sites
from dealias.errors import InputError, InputTypeError


def test_examples_of_every_kind():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)

        def forward(self, image, scale=1.0, *, mask=None):
            y = self.pool(self.conv(image * scale))
            return {"features": y, "mask": mask, "list": [y.mean()]}

    x = torch.randn(1, 3, 16, 16)
    for example in (x, (x,), (x, 2.0), {"image": x}, {"image": x, "mask": x}):
        assert placed(Model(), example) == {("max_pool", "pool")}
        assert isinstance(antialias(Model(), example).pool, MaxBlurPool2d)


def test_wrong_arguments():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)), torch.randn(1, 3, 16, 16)
    for wrong in ({"filter": "bin9"}, {"recipe": "zhang"}, {"padding_mode": "wrap"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            antialias(model, x, **wrong)
    with pytest.raises(InputError, match="recipe="):
        sites(model, x, recipe="zhang")
    with pytest.raises(InputTypeError, match=r"model must be a torch\.nn\.Module, got function"):
        antialias(F.relu, x)
    with pytest.raises(InputTypeError, match="example_input is a list"):
        antialias(model, [x])
    with pytest.raises(InputError, match=r"example_input=a tensor of shape \(1, 4, 8, 8\), float32 on cpu is not what"):
        antialias(model, torch.randn(1, 4, 8, 8))
    with pytest.raises(InputError, match=r"example_input=\{'image': a tensor of shape"):
        sites(model, {"image": x})
    with pytest.raises(InputError, match="lazy"):
        sites(nn.LazyConv2d(3, 3), x)
    with pytest.raises(InputTypeError, match="compile"):
        sites(torch.compile(model, backend="eager"), x)


def test_a_model_that_cannot_keep_its_shape_is_refused_whole():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.strided, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()

        def forward(self, x):
            x = self.strided(self.conv(x))
            assert x.shape[2:] == (8, 8)
            return self.relu(x)

    model = Model()
    with pytest.raises(InputError, match="model does not run at the sizes of its anti-aliased form"):
        antialias(model, torch.randn(1, 3, 16, 16), inplace=True)
    assert model.strided.stride == (2, 2)
