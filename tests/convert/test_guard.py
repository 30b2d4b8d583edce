"""A converted model says in one line when a tool took one of its blurs away, and nothing when nothing is missing."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from helpers.small_networks import BLOCKS, WIDTH, ConvNormAct, Forked, Network, Pooled, Residual, Same
from torch import nn

from dealias import antialias
from dealias.convert.guard import PlacementGuard
from dealias.errors import InputError

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def convert(*blocks):
    return antialias(Network(*blocks).eval(), X, strict=True)


def check_refused(model, path, x=X):
    """The next call says that something is missing at `path`, in one line."""
    with pytest.raises(InputError, match="no longer as antialias") as caught:
        model(x)
    line = str(caught.value)
    assert f"`{path}`" in line
    assert len(line.splitlines()) == 1


class Adapted(nn.Module):
    """A convolution and a low-rank one beside it, as LoRA has it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Conv2d(base.in_channels, 2, base.kernel_size, base.stride, base.padding, bias=False)
        self.up = nn.Conv2d(2, base.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)
        self.train(base.training)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def fresh(layer, stride=2):
    made = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, stride, layer.padding)
    made.weight = layer.weight
    return made.eval()


def replace_act(model):
    model.blocks[0].act = nn.ReLU()


def replace_conv(model):
    model.blocks[0].conv = fresh(model.blocks[0].conv)


def replace_block(model):
    model.blocks[0] = type(model.blocks[0])().eval()


def replace_one_reader(model):
    model.blocks[0].a = fresh(model.blocks[0].a, 1)


def restore_stride(model):
    model.blocks[0].conv.stride = (2, 2)


def replace_reader(model):
    model.blocks[0].conv2 = fresh(model.blocks[0].conv2, 1)


def replace_shortcut(model):
    model.blocks[0].shortcut[0] = fresh(model.blocks[0].shortcut[0], 1)


def drop_hooks(model):
    for module in model.modules():
        if not any(isinstance(hook, PlacementGuard) for hook in module._forward_pre_hooks.values()):
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()


def replace_same(model):
    block = model.blocks[0]
    plain = Same().conv
    plain.load_state_dict(block.conv.state_dict())
    block.conv = plain


def drop_calls(model):
    del model.blocks[0].antialias_calls


@pytest.mark.parametrize(
    ("block", "tool", "path"),
    [
        (ConvNormAct, replace_act, "blocks.0.act"),
        (ConvNormAct, replace_conv, "blocks.0.conv"),
        (ConvNormAct, replace_block, "blocks.0.act"),
        (Pooled, replace_block, "blocks.0"),
        (Same, replace_block, "blocks.0.conv"),
        (Forked, replace_one_reader, "blocks.0.a"),
        (ConvNormAct, restore_stride, "blocks.0.conv"),
        (ConvNormAct, drop_hooks, "blocks.0.act"),
        (Residual, replace_reader, "blocks.0.conv2"),
        (Residual, replace_shortcut, "blocks.0.shortcut.0"),
        (Same, replace_same, "blocks.0.conv"),
        (Pooled, drop_calls, "blocks.0"),
    ],
)
def test_what_is_taken_away_is_named(block, tool, path):
    model = convert(block)
    model(X)
    tool(model)
    check_refused(model, path)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_norm_that_is_replaced_took_nothing(block):
    model = convert(block)
    expected = model(X)
    made = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    torch.testing.assert_close(made.eval()(X), expected)


def test_a_convolution_that_is_replaced_by_a_dense_one_took_nothing():
    model = convert(ConvNormAct)
    expected = model(X)
    layer = fresh(model.blocks[0].conv, 1)
    layer.bias.data.zero_()
    model.blocks[0].conv = layer
    torch.testing.assert_close(model(X), expected)


def test_low_rank_adapters_of_a_convolution_in_front_of_its_blur_keep_the_function():
    model = convert(ConvNormAct)
    expected = model(X)
    model.blocks[0].conv = Adapted(model.blocks[0].conv)
    torch.testing.assert_close(model(X), expected)


def test_low_rank_adapters_around_a_blurred_convolution_are_refused():
    model = convert(Residual)
    model.blocks[0].conv2 = Adapted(model.blocks[0].conv2)
    check_refused(model, "blocks.0.conv2")


class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.act = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.MaxPool2d(2), nn.ReLU()

    def forward(self, x):
        return self.pool(self.act(self.conv(x)))


def test_a_pooling_that_is_replaced_is_named():
    model = convert(Pooling)
    model.blocks[0].pool = nn.MaxPool2d(2)
    check_refused(model, "blocks.0.pool")


class Reading(ConvNormAct):
    """Reads the stride of its convolution, which therefore keeps it as an attribute."""

    def forward(self, x):
        assert self.conv.stride == (2, 2)
        return super().forward(x)


def test_a_convolution_that_keeps_its_stride_as_an_attribute_is_named():
    model = convert(Reading)
    assert model.blocks[0].conv.stride == (2, 2)
    model(X)
    model.blocks[0].conv = fresh(model.blocks[0].conv)
    check_refused(model, "blocks.0.conv")


class Branched(nn.Module):
    """Two strided branches that meet, and become one convolution with the stride that the block remembers."""

    def __init__(self, stride=2):
        super().__init__()
        self.stride = stride
        self.large, self.small = (nn.Conv2d(WIDTH, WIDTH, size, stride, size // 2) for size in (3, 1))
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.merged(x) if hasattr(self, "merged") else self.large(x) + self.small(x))

    def merge(self):
        self.merged = nn.Conv2d(WIDTH, WIDTH, 3, self.stride, 1)
        self.merged.weight.data = self.large.weight + nn.functional.pad(self.small.weight, (1, 1, 1, 1))
        self.merged.bias.data = self.large.bias + self.small.bias
        del self.large, self.small


def test_branches_merged_at_their_old_stride_are_refused():
    model = convert(Branched)
    model.blocks[0].merge()
    check_refused(model, "blocks.0.large")
    # merged before the conversion, it is the same as the branches were
    model, merged = convert(Branched), Network(Branched).eval()
    merged.load_state_dict(model.state_dict())
    merged.blocks[0].merge()
    torch.testing.assert_close(antialias(merged, X)(X), model(X))


def test_branches_merged_together_with_their_activation_are_refused():
    """Nothing is left of what was placed, but a layer with a stride has come in its place."""
    model = convert(Branched)
    model.blocks[0].merge()
    model.blocks[0].merged = nn.Sequential(model.blocks[0].merged, nn.ReLU())
    model.blocks[0].act = nn.Identity()
    check_refused(model, "blocks.0.large")
    del model.blocks[0].act
    model.blocks[0].__dict__["act"] = nn.functional.relu
    check_refused(model, "blocks.0.large")


def test_branches_merged_at_the_stride_that_is_left_keep_the_function():
    model = convert(Branched)
    expected = model(X)
    model.blocks[0].stride = 1
    model.blocks[0].merge()
    torch.testing.assert_close(model(X), expected)


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_gone_as_a_whole_is_no_error(block):
    """A head or a block that a user cuts off takes its blurs with it."""
    model = convert(block, ConvNormAct)
    model.blocks[0] = nn.Identity()
    assert model(X).shape == (2, 5, 16, 16)
    model.blocks = nn.Identity()
    assert model(X).shape == (2, 5, 32, 32)
    part = convert(ConvNormAct, block)
    part.head = nn.Identity()
    assert part(X).shape[1] == 6


def test_a_block_that_is_used_elsewhere_is_not_watched():
    """The guard is the model's: a part of it runs by itself."""
    block = convert(ConvNormAct).blocks[0]
    assert block(torch.randn(1, WIDTH, 16, 16)).shape == (1, WIDTH, 8, 8)


def test_converting_twice_watches_both_times():
    model = Network(ConvNormAct).eval()
    model.stem.stride = (2, 2)
    antialias(model, X, inplace=True)
    antialias(model, X, stem=True, inplace=True)
    guards = [hook for hook in model._forward_pre_hooks.values() if isinstance(hook, PlacementGuard)]
    assert len(guards) == 1
    model(X)
    stem, second = copy.deepcopy(model), copy.deepcopy(model)
    stem.stem_act = nn.ReLU()
    check_refused(stem, "stem_act")
    second.blocks[0].act = nn.ReLU()
    check_refused(second, "blocks.0.act")


@pytest.mark.parametrize(
    "travel",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: copy.deepcopy(pickle.loads(pickle.dumps(model))),
    ],
    ids=["deepcopy", "pickle", "both"],
)
def test_the_guard_travels_with_the_model(travel):
    model = convert(ConvNormAct)
    copied = travel(model)
    torch.testing.assert_close(copied(X), model(X))
    replace_act(copied)
    check_refused(copied, "blocks.0.act")
    model(X)  # whose own activation is where it was


def test_a_model_inside_another_is_watched():
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.act = inner, nn.ReLU()

        def forward(self, x):
            return self.act(self.inner(x))

    outer = Outer(convert(ConvNormAct))
    outer(X)
    replace_act(outer.inner)
    check_refused(outer, "blocks.0.act")
    check_refused(nn.Sequential(nn.Identity(), outer), "blocks.0.act")


def test_one_converted_inside_another_that_is_converted():
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.first, self.act, self.pool, self.inner = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.MaxPool2d(2), inner

        def forward(self, x):
            return self.inner(self.pool(self.act(self.first(x))))

    outer = antialias(Outer(convert(ConvNormAct)).eval(), X)
    assert outer(X).shape == (2, 5, 8, 8)
    outer.inner.blocks[0].act = nn.ReLU()
    check_refused(outer, "blocks.0.act")


@pytest.mark.parametrize("block", BLOCKS)
def test_compiled_and_exported_models_run(block):
    model = convert(block)
    with torch.no_grad():
        expected = model(X)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(X), expected)
        with warnings.catch_warnings(action="ignore"):
            exported = torch.export.export(model, (X,)).module()
        torch.testing.assert_close(exported(X), expected)
    torch._dynamo.reset()


def test_a_model_that_lost_a_blur_is_refused_before_it_is_traced():
    model = convert(ConvNormAct)
    drop_hooks(model)
    with warnings.catch_warnings(action="ignore"), pytest.raises(InputError, match="no longer as antialias"):
        torch.jit.trace(model, X)


def test_what_is_not_converted_is_not_watched():
    with pytest.warns(UserWarning, match="nothing is changed"):
        model = antialias(Network().eval(), X)
    assert not model._forward_pre_hooks
