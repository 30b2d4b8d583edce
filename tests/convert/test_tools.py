"""What people do to a network afterwards: the function of a converted network outlives each of these tools."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import randomize
from helpers.small_networks import (
    BLOCKS,
    WIDTH,
    ConvNormAct,
    Excited,
    Forked,
    Looped,
    Network,
    Pooled,
    Residual,
    Same,
)
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from dealias import antialias, sites
from dealias.errors import InputError
from dealias.optional import import_torchvision, require

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
OTHER_SIZE = torch.randn(1, 3, 48, 41, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=BLOCKS, ids=lambda block: block.__name__)
def converted(request):
    return convert(request.param)


def convert(*blocks):
    """A converted network, of which the blurs change what it computes by far more than rounding."""
    baseline = Network(*blocks).eval()
    model = antialias(baseline, X, strict=True)
    with torch.no_grad():
        assert (model(X) - baseline(X)).abs().max() > 1e-3
    return model


def check_same(tool, model, x=X):
    """`tool` gives a model that computes what `model` does, on a copy of it."""
    with torch.no_grad():
        torch.testing.assert_close(tool(copy.deepcopy(model))(x), model(x), atol=1e-5, rtol=1e-5)


def synchronise(model):
    made = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    return made


def freeze(model):
    made = require("timm.utils.model").freeze_batch_norm_2d(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    return made


def prune_nothing(model):
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", amount=0)
    return model


def average(model):
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    return averaged.eval()


def average_as_timm_does(model):
    averaged = require("timm.utils").ModelEmaV3(model)
    averaged.update(model)
    return averaged.eval()


def replicate(model):
    """As `torch.nn.DataParallel` does: replicas of all modules, with tensors of their own in place of parameters."""
    replicas = {module: module._replicate_for_data_parallel() for module in model.modules()}
    for module, replica in replicas.items():
        for name, child in module._modules.items():
            replica._modules[name] = replicas[child]
        for name, parameter in module._parameters.items():
            replica._parameters.pop(name, None)
            setattr(replica, name, None if parameter is None else parameter.clone())
    return replicas[model]


def parametrise(model):
    return torch.nn.utils.parametrizations.weight_norm(model.features) and model


@pytest.mark.parametrize(
    "tool",
    [
        *(copy.deepcopy, synchronise, freeze, prune_nothing, average, average_as_timm_does, replicate, parametrise),
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: model.requires_grad_(False),
        lambda model: model.to(memory_format=torch.channels_last),
        lambda model: nn.Sequential(model, nn.Identity()),
        lambda model: nn.DataParallel(model),
    ],
    ids=lambda tool: tool.__name__.strip("<>"),
)
def test_the_function_stays(tool, converted):
    check_same(tool, converted)
    check_same(tool, converted, OTHER_SIZE)


def test_replicas_use_their_own_weights(converted):
    replica = replicate(converted)
    replica.features.weight = torch.zeros_like(replica.features.weight)
    replica.features.bias = torch.ones_like(replica.features.bias)
    with torch.no_grad():
        ones = converted.head(torch.ones(2, 6, *converted(X).shape[2:]))
        torch.testing.assert_close(replica(X), ones)


@pytest.mark.parametrize("block", BLOCKS)
def test_symbolic_tracing(block):
    model = convert(block)
    check_same(torch.fx.symbolic_trace, model)
    check_same(torch.fx.symbolic_trace, model, OTHER_SIZE)
    check_same(lambda model: pickle.loads(pickle.dumps(torch.fx.symbolic_trace(model))), model)


def test_graphs_know_the_blurs_of_what_they_were_made_of(converted):
    with warnings.catch_warnings(action="ignore"):
        graphs = [torch.fx.symbolic_trace(converted), torch.export.export(converted, (X,)).module()]
    for graph in graphs:
        assert not any(site.placed for site in sites(graph, X))


@pytest.mark.parametrize("block", BLOCKS)
def test_features_are_extracted(block):
    import_torchvision()
    from torchvision.models.feature_extraction import create_feature_extractor

    model, seen = convert(block), {}
    model.features.register_forward_pre_hook(lambda module, args: seen.update(features=args[0]))
    extractor = create_feature_extractor(model, {"features": "features", "head": "head"})
    with torch.no_grad():
        expected, found = model(X), extractor(X)
        torch.testing.assert_close(found["head"], expected)
        torch.testing.assert_close(found["features"], model.features(seen["features"]))


@pytest.mark.filterwarnings("ignore")
def test_traces_of_torch_jit_run_at_other_sizes(converted):
    check_same(lambda model: torch.jit.trace(model, torch.rand(1, 3, 40, 40)), converted)
    check_same(lambda model: torch.jit.trace(model, torch.rand(1, 3, 40, 40)), converted, OTHER_SIZE)


def test_graphs_of_any_size(converted):
    """Exported or compiled at one size, run at another."""
    auto = torch.export.Dim.AUTO
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        exported = torch.export.export(converted, (X,), dynamic_shapes=({2: auto, 3: auto},)).module()
        compiled = torch.compile(converted, fullgraph=True, backend="eager", dynamic=True)
        for size in ((32, 32), (40, 48)):
            x = torch.randn(2, 3, *size)
            torch.testing.assert_close(exported(x), converted(x))
            torch.testing.assert_close(compiled(x), converted(x))
    torch._dynamo.reset()


def test_scripts_are_refused_in_one_line(converted):
    with warnings.catch_warnings(action="ignore"), pytest.raises(InputError, match=r"use torch\.jit\.trace") as caught:
        torch.jit.script(converted)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_gradients_are_those_without(converted, reentrant):
    saved = copy.deepcopy(converted)
    for block in saved.blocks:
        run = type(block).forward
        block.forward = lambda x, block=block, run=run: checkpoint(run, block, x, use_reentrant=reentrant)
    whole = copy.deepcopy(converted)
    for model, call in (
        (converted, converted),
        (saved, saved),
        (whole, lambda x: checkpoint(whole, x, use_reentrant=reentrant)),
    ):
        call(X.clone().requires_grad_()).square().sum().backward()
        for ours, expected in zip(model.parameters(), converted.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, expected.grad)


def test_transforms_of_functions(converted):
    """Weights given from outside, a map over samples, and derivatives forward and backward."""
    state = {**dict(converted.named_parameters()), **dict(converted.named_buffers())}
    expected = converted(X)
    torch.testing.assert_close(torch.func.functional_call(converted, state, (X,)), expected)
    torch.testing.assert_close(torch.func.vmap(lambda x: converted(x[None])[0])(X), expected)
    direction = torch.randn_like(X)
    _, forward = torch.func.jvp(lambda x: converted(x).sum(), (X,), (direction,))
    backward = torch.func.grad(lambda x: converted(x).sum())(X)
    torch.testing.assert_close(forward, (backward * direction).sum(), atol=1e-3, rtol=1e-3)


def test_other_precisions(converted):
    with torch.no_grad():
        expected, double = converted(X), copy.deepcopy(converted).double()
        torch.testing.assert_close(double(X.double()).float(), expected, atol=1e-4, rtol=1e-4)
        half = copy.deepcopy(converted).bfloat16()(X.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = converted(X)
    for one in (half, mixed):
        assert one.dtype == torch.bfloat16
        assert distance(one.float(), expected) < 0.02


def test_threads_share_a_model():
    model = convert(Forked, Pooled)
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        inputs = [torch.randn(1, 3, 32, 32) for _ in range(16)]
        expected = [model(x) for x in inputs]
        found = list(pool.map(model.requires_grad_(False), inputs))
    torch.testing.assert_close(found, expected)


def test_other_instances_of_a_class_run_as_before():
    """What answers calls wraps the method of the class: a network that is not converted must not notice."""
    for block in (Pooled, Same):
        torch.manual_seed(0)
        before = Network(block).eval()
        with torch.no_grad():
            y = before.stem_act(before.stem_bn(before.stem(X)))
            expected = PLAIN[block](before.blocks[0], y)
            antialias(before, X)
            torch.testing.assert_close(before.blocks(y), expected)
            torch.testing.assert_close(copy.deepcopy(before).blocks(y), expected)


PLAIN = {
    Pooled: lambda block, x: F.avg_pool2d(F.relu(block.conv(F.max_pool2d(x, 3, 2, 1))), 2),
    Same: lambda block, x: F.silu(block.bn(F.conv2d(F.pad(x, (0, 1, 0, 1)), block.conv.weight, block.conv.bias, 2))),
}


class Nested(nn.Module):
    """Checkpoints a function inside its forward, where the forward itself does not run again."""

    def __init__(self, function, reentrant=None):
        super().__init__()
        self.conv, self.function, self.reentrant = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), function, reentrant

    def forward(self, x):
        def inner(x):
            return self.function(self.conv(x).relu())

        return inner(x) if self.reentrant is None else checkpoint(inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "function",
    [lambda x: F.max_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2), lambda x: x[:, :, ::2, ::2]],
    ids=["max", "average", "slice"],
)
def test_checkpoints_of_nested_functions_are_never_wrong_in_silence(function, reentrant):
    """Only the function runs again, in which nothing would answer: no blur is placed there."""
    warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # PyTorch's own, as nothing is trained
    with pytest.warns(UserWarning, match="checkpoint"):
        model = antialias(Network(lambda: Nested(function, reentrant)).eval(), X)
    plain = Network(lambda: Nested(function)).eval()
    plain.load_state_dict(model.state_dict())
    for one in (model, plain):
        one(X.clone().requires_grad_()).square().sum().backward()
    for ours, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


class Auxiliary(Forked):
    """Runs another activation in training alone."""

    def forward(self, x):
        y = F.relu(self.bn(self.conv(x)))
        z = self.a(y) + self.b(y) + y.mean()
        return z + 0 * F.relu(z) if self.training else z


def test_networks_that_do_more_in_training_are_trained():
    model = convert(Auxiliary).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    expected = copy.deepcopy(model).eval()(X)
    torch.testing.assert_close(model(X), expected)
    expected.sum().backward()


def test_slices_are_not_traced_symbolically_without_their_blur():
    model = convert(Sliced)
    with pytest.raises(InputError, match=r"torch\.fx would lose the blur") as caught:
        torch.fx.symbolic_trace(model)
    assert len(str(caught.value).splitlines()) == 1
    # the other way round, it is there
    graph = torch.fx.symbolic_trace(Network(Sliced).eval())
    found = antialias(graph, X)
    with torch.no_grad():
        assert (found(X) - graph(X)).abs().max() > 1e-3


class Sliced(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1)

    def forward(self, x):
        return torch.tanh(self.conv(x))[:, :, ::2, ::2]


def test_pruning_after_or_before_is_the_same():
    def cut(model):
        for name, module in model.named_modules():
            if name.startswith("blocks") and isinstance(module, nn.Conv2d):
                prune.l1_unstructured(module, "weight", amount=0.5)
                prune.remove(module, "weight")
        return model

    baseline = Network(*BLOCKS[:3]).eval()
    with torch.no_grad():
        after = cut(antialias(baseline, X))(X)
        torch.testing.assert_close(after, antialias(cut(copy.deepcopy(baseline)), X)(X))
        assert not torch.equal(after, antialias(baseline, X)(X))


LOADING = """
import sys, torch
models, x, expected = torch.load(sys.argv[1], weights_only=False)
later = []
with torch.no_grad():
    for model, y in zip(models, expected):
        torch.testing.assert_close(model(x), y)
        for module in model.modules():
            module.register_forward_hook(lambda module, args, output: later.append(module))
            module.register_forward_pre_hook(lambda module, args: None)
        torch.testing.assert_close(model(x), y)
        assert model in later
print("the same")
"""


def test_another_process_loads_it(tmp_path):
    """Where nothing was converted: what answers calls must be wrapped there, and hooks must not collide."""
    models = nn.ModuleList([convert(ConvNormAct, Same), convert(Pooled), convert(Looped)])
    with torch.no_grad():
        torch.save((models, X, [model(X) for model in models]), tmp_path / "model.pt")
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(tmp_path / "model.pt")],
        env={**os.environ, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "the same\n", done.stderr


def test_hooks_of_the_user_see_what_leaves_and_enters(converted):
    """Registered before the conversion or after it: the maps that one module hands to the next."""

    def watch(model, seen):
        for name in ("blocks", "features"):
            module = getattr(model, name)
            module.register_forward_hook(lambda module, args, output, name=name: seen.append((name, output.shape)))
        model.features.register_forward_pre_hook(lambda module, args: seen.append(("in", args[0].shape)))

    (block,) = converted.blocks
    baseline, before, after, expected = Network(type(block)).eval(), [], [], []
    watch(baseline, before)
    model = antialias(baseline, X)
    with torch.no_grad():
        before.clear()
        baseline(X)
        expected = list(before)
        before.clear()
        watch(model, after)
        model(X)
    assert before == after == expected
    assert [name for name, _ in expected] == ["blocks", "in", "features"]


def test_hooks_see_the_blurred_map():
    baseline, seen = Network(ConvNormAct).eval(), []
    baseline.blocks[0].act.register_forward_hook(lambda module, args, output: seen.append(output))
    model = antialias(baseline, X)
    model.blocks[0].act.register_forward_hook(lambda module, args, output: seen.append(output))
    seen.clear()
    model(X)
    assert [one.shape for one in seen] == [(2, WIDTH, 16, 16)] * 2
    assert torch.equal(*seen)


# Fusion and quantisation ----------------------------------------------------------------------------------------------

FUSED = {
    ConvNormAct: [["conv", "bn", "act"]],
    Forked: [["conv", "bn"]],
    Residual: [["conv1", "bn1"], ["conv2", "bn2"], ["shortcut.0", "shortcut.1"]],
    Excited: [["expand", "bn1"], ["depthwise", "bn2"]],
    Looped: [["layers.0.0", "layers.0.1"]],
}


@pytest.mark.parametrize("block", FUSED)
def test_convolutions_and_norms_fuse(block):
    names = [["stem", "stem_bn", "stem_act"], *([f"blocks.0.{one}" for one in pair] for pair in FUSED[block])]
    check_same(lambda model: torch.ao.quantization.fuse_modules(model, names), convert(block))


def test_a_block_that_fuses_itself():
    """As detectors do before they are deployed: the norm becomes part of the convolution."""

    def fuse(model):
        block = model.blocks[0]
        block.conv, block.bn = torch.nn.utils.fusion.fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        return model

    for block in (ConvNormAct, Forked):
        check_same(fuse, convert(block))


def quantise_eagerly(model, training=False):
    quantization = torch.ao.quantization
    model = quantization.QuantWrapper(model)
    if training:
        model.train().qconfig = quantization.get_default_qat_qconfig(_engine())
        quantization.prepare_qat(model, inplace=True)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    else:
        model.qconfig = quantization.get_default_qconfig(_engine())
        quantization.prepare(model, inplace=True)
    model(X)
    return quantization.convert(model.eval())


def quantise_a_graph(model):
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    prepared = prepare_fx(model, get_default_qconfig_mapping(_engine()), (X,))
    prepared(X)
    return convert_fx(prepared)


def _engine():
    found = [one for one in ("x86", "fbgemm", "qnnpack") if one in torch.backends.quantized.supported_engines]
    if not found:
        pytest.skip("no kernels for quantised networks")
    return found[0]


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    ("tool", "blocks"),
    [
        (quantise_eagerly, [ConvNormAct, Pooled, Looped]),
        (lambda model: quantise_eagerly(model, training=True), [ConvNormAct, Pooled, Looped]),
        (quantise_a_graph, [ConvNormAct, Forked, Residual, Pooled, Looped]),
    ],
    ids=["eager", "eager-training", "graph"],
)
def test_quantisation_costs_a_converted_network_no_more_than_the_plain_one(tool, blocks):
    for block in blocks:
        torch.manual_seed(0)
        baseline = Network(block).eval()
        model = antialias(baseline, X)
        with warnings.catch_warnings(action="ignore"), torch.no_grad():  # PyTorch's own, of what it deprecates
            plain = distance(tool(copy.deepcopy(baseline))(X), baseline(X))
            ours = distance(tool(copy.deepcopy(model))(X), model(X))
            gap = distance(baseline(X), model(X))
        assert ours < 1.5 * plain < 0.5 * gap, block.__name__


def reparameterisable():
    """A small RepVGG and a small MobileOne of timm, in which several branches make a block."""
    byobnet = require("timm.models.byobnet")
    for kind in ("rep", "one"):
        stages = tuple(byobnet.ByoBlockCfg(type=kind, d=1, c=8, s=2, gs=0, br=1) for _ in range(2))
        cfg = byobnet.ByoModelCfg(blocks=stages, stem_type=kind, stem_chs=8, num_features=8)
        model = byobnet.ByobNet(cfg, num_classes=5).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        yield model


def test_branches_become_one_convolution():
    reparameterize = require("timm.utils.model").reparameterize_model
    x = torch.randn(2, 3, 64, 64)
    for baseline in reparameterisable():
        model = antialias(baseline, x, strict=True)
        made = reparameterize(copy.deepcopy(model))
        assert len(list(made.parameters())) < len(list(model.parameters()))
        with torch.no_grad():
            assert distance(baseline(x), model(x)) > 1e-3
            assert distance(made(x), model(x)) < 1e-5
            # and the other way round
            assert distance(antialias(reparameterize(copy.deepcopy(baseline)), x)(x), model(x)) < 1e-5


def test_a_convolution_with_a_blur_in_front_fuses_with_its_activation():
    """As in ShuffleNets: a strided convolution without an activation, then one that has its norm and its activation."""
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8)
    plain = randomize(nn.Sequential(*layers, nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()))
    ours, x = antialias(plain, torch.rand(2, 3, 16, 16)), torch.rand(2, 3, 16, 16)
    assert hasattr(ours[4], "antialias_before")
    with torch.no_grad():
        expected = ours(x)
        fused = torch.ao.quantization.fuse_modules(copy.deepcopy(ours), [["2", "3"], ["4", "5", "6"]])
        torch.testing.assert_close(fused(x), expected)
