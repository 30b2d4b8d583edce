"""The networks of the paper, as torchvision builds them: what anti-aliasing keeps, and where it blurs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers import sweep
from torch import nn

import dealias.nn as layers
from dealias import antialias, models, sites

FAMILIES = ["alexnet", "vgg11_bn", "resnet18", "resnet50", "densenet121", "mobilenet_v2"]
NETWORKS = [
    *FAMILIES,
    *("vgg11", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("resnet34", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d"),
    *("wide_resnet50_2", "wide_resnet101_2", "densenet161", "densenet169", "densenet201"),
]
SIZES = [224, 225, 97]
# What runs them with numbers takes seconds: two in `make test`, all in `make sweep`.
QUICK = ["resnet18", "mobilenet_v2"]
RUN = sweep.only(QUICK, FAMILIES)


def convolution_inputs(model, x):
    """The size of the map that each convolution convolves, read by hooks of PyTorch alone."""
    found = {}

    def note(name):
        return lambda module, args: found.__setitem__(name, tuple(args[0].shape[2:]))

    hooks = [m.register_forward_pre_hook(note(name)) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    output = model(x)
    for hook in hooks:
        hook.remove()
    return found, output


DEEP = ("101", "152", "161", "169", "201")


@pytest.mark.parametrize("name", sweep.only([n for n in NETWORKS if not any(d in n for d in DEEP)], NETWORKS))
def test_sizes_and_state_are_kept(build_network, name):
    baseline = build_network(name, device="meta")
    converted = antialias(baseline, torch.empty(1, 3, 224, 224, device="meta"))

    assert type(converted) is type(baseline)
    shapes = [(key, value.shape) for key, value in baseline.state_dict().items()]
    assert [(key, value.shape) for key, value in converted.state_dict().items()] == shapes

    shortcuts = {
        key: module
        for key, module in baseline.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride == (2, 2)
    }
    assert bool(shortcuts) == ("resne" in name)
    for size in SIZES:
        x = torch.empty(2, 3, size, size, device="meta")
        before, expected = convolution_inputs(baseline, x)
        after, output = convolution_inputs(converted, x)
        assert output.shape == expected.shape
        for key in shortcuts:  # blurred and subsampled in front
            before[key] = tuple((pixels + 1) // 2 for pixels in before[key])
        assert after == before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", ["same-size", "zhang2019"])
@pytest.mark.parametrize("name", sweep.only(set(FAMILIES) - {"densenet121"}, FAMILIES))
def test_every_recipe_and_size_converts(build_network, name, recipe, size):
    x = torch.empty(1, 3, size, size, device="meta")
    baseline = build_network(name, device="meta")
    converted = antialias(baseline, x, recipe=recipe)
    assert converted(x).shape == baseline(x).shape
    assert all(site.placed for site in sites(baseline, x, stem=True, recipe=recipe))


def assert_logits_close(actual, expected):
    """Equal up to rounding, which depends on how a backend orders its sums."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


class EverySecond(nn.Module):
    """What BlurPool of stride 2 without a filter is, in whole windows."""

    def forward(self, x):
        return x[:, :, : x.shape[2] // 2 * 2 : 2, : x.shape[3] // 2 * 2 : 2]


@pytest.mark.parametrize("name", RUN)
def test_without_a_filter_logits_stay(build_network, name):
    """A dense layer sampled at the stride is the strided layer: with blurs of one tap all logits stay."""
    baseline = build_network(name)
    converted = antialias(baseline, torch.rand(1, 3, 64, 64), filter="none", stem=True)
    for parent in list(baseline.modules()):
        for key, module in parent.named_children():
            if isinstance(module, nn.AvgPool2d):
                setattr(parent, key, EverySecond())
    for size in (64, 97):
        x = torch.randn(1, 3, size, size)
        with torch.no_grad():
            expected = baseline(x)
            assert_logits_close(converted(x), expected)


@pytest.mark.parametrize("name", RUN)
def test_checkpoints_load_both_ways_and_copies_agree(build_network, name):
    baseline = build_network(name)
    x = torch.rand(1, 3, 65, 65)
    converted = antialias(baseline, x)
    with torch.no_grad():
        expected = converted(x)
        assert not torch.equal(expected, baseline(x))

        other = antialias(build_network(name, device="meta").to_empty(device="cpu"), x)
        other.load_state_dict(baseline.state_dict(), strict=True)
        assert_logits_close(other(x), expected)
        baseline.load_state_dict(converted.state_dict(), strict=True)

        assert torch.equal(copy.deepcopy(converted)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(converted))(x), expected)


@pytest.mark.parametrize("name", RUN)
def test_compiles_in_one_graph_and_exports(build_network, name):
    x = torch.rand(2, 3, 65, 65)
    converted = antialias(build_network(name), x)
    with torch.no_grad():
        expected = converted(x)
        torch.compiler.reset()
        compiled = torch.compile(converted, fullgraph=True, backend="eager")
        assert_logits_close(compiled(x), expected)
        program = torch.export.export(converted, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        y = torch.rand(3, 3, 65, 65)
        assert_logits_close(program.module()(y), converted(y))


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_to_machine_code(build_network, name):
    x = torch.rand(2, 3, 65, 65)
    converted = antialias(build_network(name), x)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(converted, fullgraph=True)
        assert_logits_close(compiled(x), converted(x))


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in FAMILIES])
def test_large_networks_keep_logits_without_a_filter(build_network, name):
    test_without_a_filter_logits_stay(build_network, name)
    test_checkpoints_load_both_ways_and_copies_agree(build_network, name)
    test_compiles_in_one_graph_and_exports(build_network, name)


@pytest.mark.parametrize("name", FAMILIES)
def test_converting_twice_changes_nothing_and_says_so(build_network, name):
    x = torch.empty(1, 3, 224, 224, device="meta")
    once = antialias(build_network(name, device="meta"), x)
    with pytest.warns(UserWarning, match="already anti-aliased"):
        twice = antialias(once, x)
    assert repr(twice) == repr(once)
    assert not any(site.placed for site in sites(once, x))


@pytest.mark.parametrize("build", [models.vgg13_bn_cifar, models.vgg_small])
def test_our_own_networks(build):
    model = build(in_chans=3, padding_mode="circular").eval()
    x = torch.rand(2, 3, 32, 32)
    found = sites(model, x)
    assert [(site.kind, site.output_size[0], site.placed) for site in found] == [
        ("max_pool", size, True) for size in (16, 8, 4, 2, 1)
    ]
    converted = antialias(model, x)
    assert [module.padding_mode for module in converted.modules() if isinstance(module, layers.MaxBlurPool2d)] == [
        "circular"
    ] * 5
    converted.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert_logits_close(antialias(model, x, filter="none")(x), model(x))


def test_resnet50_is_blurred_where_the_paper_blurs_it(build_network):
    x = torch.empty(1, 3, 224, 224, device="meta")
    converted = antialias(build_network("resnet50", device="meta"), x)
    blurs = {name for name, module in converted.named_modules() if isinstance(module, layers.BlurPool2d)}
    assert blurs == {
        f"layer{stage}.0.{conv}.antialias_before" for stage in (2, 3, 4) for conv in ("conv3", "downsample.0")
    }
    assert isinstance(converted.maxpool, layers.MaxBlurPool2d)
    assert converted.conv1.stride == (2, 2)
    strides = {name: m.stride for name, m in converted.named_modules() if isinstance(m, nn.Conv2d) and name != "conv1"}
    assert set(strides.values()) == {(1, 1)}


def test_the_layers_of_the_other_families(build_network):
    def blurs(name, **arguments):
        x = torch.empty(1, 3, 224, 224, device="meta")
        converted = antialias(build_network(name, device="meta"), x, **arguments)
        kinds = (layers.BlurPool2d, layers.MaxBlurPool2d)
        return {key: type(m).__name__ for key, m in converted.named_modules() if isinstance(m, kinds)}

    assert blurs("alexnet") == {f"features.{i}": "AntiAliasedMaxPool2d" for i in (2, 5, 12)}
    assert blurs("vgg11_bn") == {f"features.{i}": "AntiAliasedMaxPool2d" for i in (3, 7, 14, 21, 28)}
    assert blurs("densenet121") == {"features.pool0": "AntiAliasedMaxPool2d"} | {
        f"features.transition{i}.pool": "AntiAliasedAvgPool2d" for i in (1, 2, 3)
    }
    inverted = {f"features.{i}.conv.1.2.antialias_after": "BlurPool2d" for i in (2, 4, 7, 14)}
    assert blurs("mobilenet_v2") == inverted
    assert blurs("mobilenet_v2", stem=True) == {"features.0.2.antialias_after": "BlurPool2d"} | inverted
    assert blurs("resnet18", stem=True)["relu.antialias_after"] == "BlurPool2d"


def test_the_released_recipe(build_network):
    x = torch.empty(1, 3, 224, 224, device="meta")
    resnet = antialias(build_network("resnet18", device="meta"), x, recipe="zhang2019")
    assert resnet.maxpool.geometry == ((2, 2), (2, 2), (0, 0), (1, 1))
    densenet = antialias(build_network("densenet121", device="meta"), x, recipe="zhang2019").features
    assert densenet.pool0.geometry == ((3, 3), (2, 2), (1, 1), (1, 1))
    assert not densenet.transition1.pool.whole

    alexnet = antialias(build_network("alexnet", device="meta"), x, recipe="zhang2019").features
    assert alexnet[0].stride == (2, 2)
    assert alexnet[1].antialias_after.stride == (2, 2)


def test_the_released_alexnet_is_its_formula(build_network):
    baseline = build_network("alexnet")
    x = torch.rand(1, 3, 224, 224)
    converted = antialias(baseline, x, filter="tri3", recipe="zhang2019")
    conv = baseline.features[0]
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (blur[:, None] * blur).expand(64, 1, 3, 3)
    with torch.no_grad():
        y = nn.functional.conv2d(x, conv.weight, conv.bias, stride=2, padding=2).relu()
        y = nn.functional.pad(y, [1, 1, 1, 1], mode="reflect")
        y = nn.functional.conv2d(y, kernel, stride=2, groups=64)
        torch.testing.assert_close(converted.features[:2](x), y)
