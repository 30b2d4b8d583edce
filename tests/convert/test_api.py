"""The arguments of `antialias` and `sites`."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import placed
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


def test_a_site_that_cannot_be_changed_is_left_with_its_reason():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.strided, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()

        def forward(self, x):
            x = self.strided(self.conv(x))
            assert x.shape[2:] == (8, 8)
            return self.relu(x)

    model, x = Model(), torch.randn(1, 3, 16, 16)
    (site,) = sites(model, x)
    assert "the model does not run with a blur here: AssertionError" in site.reason
    with pytest.warns(UserWarning, match="AssertionError"):
        antialias(model, x, inplace=True)
    assert model.strided.stride == (2, 2)


def test_strict_makes_an_error_of_what_is_not_placed():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.relu = nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(2), nn.ReLU()

        def forward(self, x):
            x = self.pool(self.relu(self.conv(x)))
            return x[:, :, ::2, ::2] + x[:, :, 1::2, ::2]  # of which neither is to lose what the other keeps

    model, x = Model(), torch.randn(1, 3, 34, 34)
    with pytest.raises(
        InputError, match=r"strict=True, and 2 sites cannot be anti-aliased: slice: .*test_api.py"
    ) as caught:
        antialias(model, x, strict=True, inplace=True)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(model.pool, nn.MaxPool2d)
    with pytest.warns(UserWarning, match="not anti-aliased, 2 of 4 downsampling sites") as warned:
        antialias(model, x)
    assert warned[0].filename == __file__
    # a stem that is left alone on purpose is no error
    antialias(nn.Sequential(model.conv, nn.ReLU(), nn.MaxPool2d(2)), x, strict=True)


def test_equal_reasons_are_said_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.unfold = nn.Unfold(3, stride=2)

        def forward(self, x):
            return self.unfold(x) + self.unfold(x)

    with pytest.warns(UserWarning, match=r"unfold `unfold`: .* \(2 times\)"):
        antialias(Twice(), torch.randn(1, 3, 9, 9))


def test_models_that_cannot_be_traced_are_refused_in_a_word():
    class Scripted(nn.Module):
        def forward(self, x):
            return x

    class Outside(nn.Module):
        """Leaves PyTorch halfway."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2)

        def forward(self, x):
            return torch.as_tensor(self.conv(x).detach().numpy().copy())

    x = torch.randn(1, 3, 9, 9)
    with warnings.catch_warnings(action="ignore"), pytest.raises(InputTypeError, match="convert the original model"):
        antialias(torch.jit.trace(Scripted(), x), x)
    # what follows is out of sight, but never wrong: the stem is left alone, and what the model returns is checked
    (site,) = sites(Outside(), x)
    assert site.status == "left alone"
    # a forward that reads the stride of a convolution goes on reading it
    assert antialias(Cheating(), x)(x).shape == Cheating()(x).shape


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.SiLU(inplace=True)])
@pytest.mark.parametrize("use", [lambda y, z: y, lambda y, z: z + y.mean()], ids=["ignored", "both"])
def test_readers_of_an_in_place_activation_s_argument_would_miss_the_blur(activation, use):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.activation = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), activation

        def forward(self, x):
            y = self.conv(self.first(x))
            return use(y, self.activation(y)).mean((2, 3))  # hides the size

    with pytest.warns(UserWarning, match=r"conv `conv`: the map in front of the blur is also read without it"):
        converted = antialias(Model(), torch.randn(1, 3, 17, 17))
    assert converted.conv.stride == (2, 2)


def test_what_reads_the_map_by_a_hook_before_the_blur_does_not_matter():
    means = []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
    model[2].register_forward_hook(lambda module, args, output: means.append(float(output.mean())))
    antialias(model, torch.randn(1, 3, 17, 17), strict=True)
    assert len(means) == 2


class Cheating(nn.Module):
    """Its sizes depend on what a layer is made of."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.ReLU()

    def forward(self, x):
        y = self.relu(self.conv(self.first(x)))
        return y[:, :, : 3 - self.conv.stride[0]]
