"""Modules in unusual places are changed or refused, and all that is not a blur is kept."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter, placed, randomize, refused
from torch import nn

from dealias import BlurPool2d, MaxBlurPool2d, antialias, functional, sites


class Chain(nn.Module):
    """Layers in attributes, one after the other."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        for module in list(self._modules.values()):
            x = module(x)
        return x


def test_one_pool_for_many_calls():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x):
            return self.pool(self.conv(self.pool(self.conv(x))))

    x = torch.randn(1, 3, 20, 20)
    assert [site.output_size for site in sites(Model(), x)] == [(10, 10), (5, 5)]
    check_no_filter(Model(), x)


def test_layers_called_by_keyword():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.short = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2)
            self.relu, self.pool, self.average = nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(1, 2)

        def forward(self, x):
            x = self.pool(input=self.first(input=x))
            return self.average(input=self.relu(input=self.conv(input=x)) + self.short(input=x))

    x, model = torch.randn(1, 3, 34, 35), Model()
    assert all(site.placed for site in sites(model, x))
    check_no_filter(model, x)
    assert antialias(model, x)(x).shape == model(x).shape


class Twins(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, left, right):
        return self.encoder(left) - self.encoder(right)


def test_a_network_called_twice():
    encoder = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()))
    pair = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 24, 24)[..., :16, :16]
    check_no_filter(Twins(encoder), pair)
    assert placed(Twins(encoder), pair) == {("conv", "encoder.1")}


def test_a_convolution_whose_calls_differ_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, 2), nn.ReLU()

        def forward(self, x):
            return self.conv(self.relu(self.conv(self.first(x))))

    x = torch.randn(1, 3, 33, 33)
    assert {site.path for site in refused(Model(), x)} == {"conv"}


def test_a_module_under_two_names_is_changed_under_both():
    pool = nn.MaxPool2d(2)
    model = Chain(conv=nn.Conv2d(3, 4, 1), pool=pool, again=pool)
    converted = antialias(model, torch.randn(1, 3, 16, 16))
    assert converted.pool is converted.again
    assert isinstance(converted.pool, MaxBlurPool2d)
    assert len(list(converted.named_modules(remove_duplicate=False))) == 4


def test_slices_of_a_sequential_keep_their_layers():
    relu = nn.ReLU()
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), relu, nn.Conv2d(4, 4, 3, 2), relu)[1:]
    model = Chain(first=nn.Conv2d(3, 4, 1), layers=layers)  # named "1" to "4", so that "4" is not free
    x = torch.randn(1, 3, 33, 33)
    assert all(site.placed for site in sites(model, x))
    check_no_filter(model, x)


def test_modules_that_are_the_model():
    x = torch.randn(1, 3, 16, 16)
    assert isinstance(antialias(nn.MaxPool2d(2), x), MaxBlurPool2d)
    pool = nn.MaxPool2d(2)
    assert antialias(pool, x, inplace=True) is pool
    torch.testing.assert_close(pool(x), MaxBlurPool2d(2)(x))
    conv = nn.Conv2d(3, 4, 3, 2)
    check_no_filter(conv, x, stem=True)
    assert sites(conv, x)[0].status == "left alone"
    assert sites(nn.Conv2d(3, 4, 3), x) == []


def test_hidden_and_unused_layers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, 2)
            self.hidden = [nn.MaxPool2d(2)]
            self.bypassed = nn.Conv2d(3, 3, 3, 2)

        def forward(self, x):
            return self.bypassed.forward(self.hidden[0](self.conv(x)))

    x = torch.randn(1, 3, 16, 16)
    assert placed(Model(), x) == {("max_pool", ""), ("conv", "")}
    assert [site.path for site in refused(Model(), x)] == ["unused", "bypassed"]
    with pytest.warns(UserWarning, match="does not reach"):
        check_no_filter(Model(), x)


def test_same_padding_and_weights_computed_on_the_way():
    class Same(nn.Conv2d):
        def forward(self, x):
            pads = [(-(-size // 2) - 1) * 2 + 3 - size for size in x.shape[:1:-1]] if self.stride[0] == 2 else [2, 2]
            x = F.pad(x, [part for pad in pads for part in (pad // 2, pad - pad // 2)])
            return F.conv2d(x, self.weight, self.bias, self.stride)

    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    for size in (15, 16):
        x = torch.randn(1, 3, size, 16)
        check_no_filter(nn.Sequential(nn.Conv2d(3, 3, 1), Same(3, 3, 3, 2), nn.ReLU()), x)
    check_no_filter(nn.Sequential(nn.Conv2d(3, 3, 1), Standardized(3, 3, 3, 2, 1), nn.ReLU()), x)
    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, 2, 1))
    check_no_filter(nn.Sequential(nn.Conv2d(3, 3, 1), parametrized, nn.ReLU()), x)


def test_networks_that_are_anti_aliased_already():
    x = torch.randn(1, 3, 32, 32)

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return functional.blur_pool2d(functional.max_blur_pool2d(self.conv(x), 2), "none")

    for model in (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), BlurPool2d()), Written()):
        with pytest.warns(UserWarning, match="already anti-aliased") as caught:
            antialias(model, x)
        assert len(caught) == 1
        assert {site.status for site in sites(model, x)} == {"left alone"}
    with pytest.warns(UserWarning, match="no downsampling site"):
        antialias(nn.Linear(3, 3), torch.randn(2, 3))


def test_a_later_conversion_adds_what_the_first_left_alone():
    x = torch.randn(1, 3, 32, 32)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2))
    assert torch.equal(antialias(antialias(model, x), x, stem=True)(x), antialias(model, x, stem=True)(x))


def test_the_original_is_untouched_and_inplace_changes_it():
    x = torch.randn(1, 3, 32, 32)
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()))
    model[2].train()
    before, expected = repr(model), copy.deepcopy(model).eval()(x)
    converted = antialias(model, x)
    assert repr(model) == before
    assert torch.equal(copy.deepcopy(model).eval()(x), expected)
    assert [module.training for module in converted] == [False, False, True, False]
    weight = model[0].weight
    assert antialias(model, x, inplace=True) is model
    assert model[0].weight is weight
    assert torch.equal(model.eval()(x), converted.eval()(x))


def test_hooks_of_the_user_survive():
    seen = []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 2), nn.ReLU())
    for index in (1, 3):
        model[index].register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[2:])))
    x = torch.randn(1, 3, 16, 16)
    converted = antialias(model, x)
    seen.clear()
    converted(x)
    assert seen[0] == (8, 8)
    assert len(seen) == 2


class ReadingStride(nn.Module):
    """Reads the stride of its convolution, which therefore keeps it as an attribute."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(input=F.pad(x, (0, self.conv.stride[0] - 2) * 2)))


def add_hooks(layer):
    """Hooks that get the keyword arguments too, and change what goes through; returns the log that they write."""
    log = []

    def before(module, args, kwargs):
        log.append(("before", len(args), sorted(kwargs)))
        return tuple(arg * 2 for arg in args), {name: value * 2 for name, value in kwargs.items()}

    def after(module, args, kwargs, output):
        log.append(("after", len(args), sorted(kwargs)))
        return output + 1

    layer.register_forward_pre_hook(before, with_kwargs=True)
    layer.register_forward_hook(after, with_kwargs=True)
    return log


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(8)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=0.5)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, 2)), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()), "1"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()), "2"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), ReadingStride()), "1.conv"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), ReadingStride()), "1"),
    ],
    ids=str,
)
def test_hooks_with_keyword_arguments_run_as_before(model, path):
    """On layers that are replaced, get another stride, or carry a blur: with a filter of one tap nothing changes."""
    x = torch.randn(1, 3, 16, 16)
    plain, actions = model(x), [site.action for site in sites(model, x)]
    log = add_hooks(model.get_submodule(path))
    assert [site.action for site in sites(model, x)] == actions
    log.clear()
    expected, before = model(x), [*log]
    assert len(before) == 2
    assert not torch.allclose(expected, plain)
    converted = antialias(model, x, filter="none")
    log.clear()
    if isinstance(model[1], nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.Upsample):  # becomes a single sample
        expected = 2 * model[0](x)[..., ::2, ::2] + 1
    torch.testing.assert_close(converted(x), expected)
    assert log == before


def test_hooks_registered_after_loading_do_not_displace_the_blur():
    """PyTorch numbers hooks by process: a number in a pickle may be given out again where it is loaded."""
    x = torch.randn(1, 3, 16, 16)
    converted = antialias(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, 2)), x)
    data, expected = pickle.dumps(converted), converted(x)
    handles = torch.utils.hooks.RemovableHandle
    number, handles.next_id = handles.next_id, 0
    try:
        loaded = pickle.loads(data)
        for _ in range(200):
            loaded[1].register_forward_pre_hook(lambda module, args: None)
    finally:
        handles.next_id = max(number, handles.next_id)
    assert torch.equal(loaded(x), expected)


def test_gradients_and_training():
    model = antialias(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.ReLU()), torch.randn(1, 3, 16, 16))
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
