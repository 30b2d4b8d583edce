"""`method="alias-free"` in whole networks: what a shift by a fraction of a pixel changes."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.circular_networks import UNet, conv
from scipy import signal
from torch import nn

from dealias import antialias, sites, to_circular
from dealias.convert import antialias_with_report
from dealias.convert.rate_layers import Doubling
from dealias.errors import InputError
from dealias.functional import blur_pool2d
from dealias.nn import MapNorm, Quadratic
from dealias.optional import import_torchvision
from dealias.perturb import fourier_shift

SHIFTS = [(0.5, 0.5), (1 / 3, 0.0), (1.25, 2.7)]
FAMILIES = ("resnet18", "resnet50", "densenet121", "mobilenet_v2", "regnet_y_400mf", "efficientnet_b0", "googlenet")


class Function(nn.Module):
    """A convolution whose forward calls its activation, and pools by a function."""

    def __init__(self, act, width=6):
        super().__init__()
        self.conv, self.act = conv(width, width), act

    def forward(self, x):
        return self.act(self.conv(x))


def network(act, function=F.relu, channels=2):
    """Strided convolutions, an average pool, a block with a shortcut and one that calls a function; total stride 8."""
    torch.manual_seed(0)
    layers = [conv(channels, 6, 3, 2), nn.BatchNorm2d(6), act(), conv(6, 6), act(), nn.AvgPool2d(2)]
    layers += [Function(act()), nn.LazyBatchNorm2d(), conv(6, 6, 3, 2), Function(function), conv(6, 4)]
    model = nn.Sequential(*layers).double()
    model.train()(torch.randn(4, channels, 32, 32, dtype=torch.float64))
    return model.eval()


def image(*shape, seed=0):
    """Noise without the Nyquist frequency, of which no shift by a fraction of a pixel is known."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return blur_pool2d(x, "ideal", 1, "circular")


X = image(2, 2, 32, 32)


@torch.no_grad()
def worst(model, x, stride):
    """The largest error of equivariance over `SHIFTS`, relative to what the network returns."""
    y = model(x)
    errors = (
        model(fourier_shift(x, *shift)) - fourier_shift(y, *(amount / stride for amount in shift)) for shift in SHIFTS
    )
    return max(float(error.norm() / y.norm()) for error in errors)


def test_quadratic_activations_are_exact():
    model = network(lambda: Quadratic(6), Quadratic(6))
    free = antialias(model, X, method="alias-free")
    assert worst(free, X, 8) <= 1e-12
    assert worst(model, X, 8) > 1e-2
    assert worst(antialias(model, X, filter="ideal", stem=True), X, 8) > 1e-5


@pytest.mark.parametrize(("act", "function"), [(nn.ReLU, F.relu), (nn.GELU, F.gelu), (nn.SiLU, torch.sigmoid)])
def test_other_activations_err_by_a_tenth_at_most(act, function):
    model = network(act, function)
    free = antialias(model, X, method="alias-free")
    assert worst(free, X, 8) <= worst(model, X, 8) / 10
    assert worst(free, X, 8) < worst(antialias(model, X, filter="ideal", stem=True), X, 8) / 4


def resampled(x, factor):
    """`x` at twice the rate or at half of it, by SciPy; without the Nyquist frequency of the coarser map."""
    x = blur_pool2d(x, "ideal", 1, "circular") if factor == 2 else x
    y = x.numpy()
    for axis in (2, 3):
        size = int(y.shape[axis] * factor)
        y = signal.resample(y, size, axis=axis)
    return blur_pool2d(torch.from_numpy(y), "ideal", 1, "circular") if factor < 1 else torch.from_numpy(y)


def test_equals_what_scipy_computes():
    torch.manual_seed(0)
    model = nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4, 3, 2), nn.SiLU(), nn.MaxPool2d(3, 1, 1))
    model = to_circular(model).double().eval()
    free = antialias(model, X, method="alias-free")
    with torch.no_grad():
        y = resampled(F.relu(resampled(model[0](X), 2)), 0.5)
        padded = F.pad(resampled(y, 2), (0, 2, 0, 2), "circular")
        y = blur_pool2d(F.max_pool2d(padded, 2, 1, 0, 2), "ideal", 4, "circular")
        dense = F.conv2d(F.pad(y, (1, 1, 1, 1), "circular"), model[3].weight, model[3].bias)
        y = resampled(resampled(F.silu(resampled(dense, 2)), 0.5), 0.5)
        padded = F.pad(resampled(y, 2), (2, 2, 2, 2), "circular")
        y = resampled(F.max_pool2d(padded, 3, 1, 0, 2), 0.5)
        torch.testing.assert_close(free(X), y, rtol=0, atol=1e-12)


class Pooled(nn.Module):
    """Max-pools by function calls, with a stride and without one, and of single pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.act = conv(2, 4), nn.Conv2d(4, 4, 1), nn.ReLU()

    def forward(self, x):
        y = self.act(self.conv(x))
        y = F.max_pool2d(y, 2) + F.avg_pool2d(F.max_pool2d(y, 3, 1, 1), 2)
        return y * self.act(self.gate(y.mean((2, 3), keepdim=True)))


def test_maxima_by_function_calls():
    model = Pooled().double().eval()
    free = antialias(model, X, method="alias-free", strict=True)
    assert worst(free, X, 2) < worst(antialias(model, X, filter="ideal"), X, 2) / 2


class Tokens(nn.Module):
    """A block of ConvNeXt: channels are last between its convolutions."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.norm, self.act = conv(width, width), nn.LayerNorm(width), nn.GELU()
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return x + self.narrow(self.act(self.wide(y))).permute(0, 3, 1, 2)


def test_norms_over_channels_and_channels_last():
    torch.manual_seed(0)
    model = nn.Sequential(conv(2, 6), nn.ReLU(), Tokens(6), conv(6, 6, 3, 2), nn.GELU(), Tokens(6)).double().eval()
    free = antialias(model, X, method="alias-free", strict=True)
    paths = {site.path for site in sites(model, X, method="alias-free") if site.kind == "nonlinearity"}
    assert paths == {"1", "2.norm", "2.act", "4", "5.norm", "5.act"}
    assert free[2].norm.antialias_before.axes == (-3, -2)
    assert worst(free, X, 2) < worst(model, X, 2) / 10


def test_map_norms_are_exact_at_any_rate():
    torch.manual_seed(0)
    model = nn.Sequential(conv(2, 6), MapNorm(6), Quadratic(6), conv(6, 4), MapNorm(4), nn.AvgPool2d(2)).double()
    free = antialias(model, X, method="alias-free", strict=True)
    assert [site.path for site in sites(model, X, method="alias-free")] == ["5", "2"]
    assert worst(free, X, 2) <= 1e-12


@pytest.mark.parametrize(("kernel", "padding"), [(4, 0), (4, 1), (2, 0)])
def test_dense_maps_that_fall_short_wrap_around(kernel, padding):
    """ConvNeXt's patches, and an even kernel whose padding cannot make its map whole."""
    torch.manual_seed(0)
    strided = nn.Conv2d(2, 6, kernel, kernel, padding, padding_mode="circular")
    model = nn.Sequential(strided, Quadratic(6), nn.Conv2d(6, 4, 2, 2), Quadratic(4)).double()
    free = antialias(model, X, method="alias-free", strict=True, padding_mode="circular")
    assert worst(free, X, 2 * kernel) <= 1e-12
    assert list(free.state_dict()) == list(model.state_dict())
    by_hand = F.conv2d(F.pad(X, (padding, kernel - 1 - padding) * 2, "circular"), strided.weight, strided.bias)
    with torch.no_grad():
        torch.testing.assert_close(free[0](X), by_hand)


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    torch.manual_seed(0)
    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = to_circular(import_torchvision().models.get_model(name, weights=None, **more))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(8, 3, 64, 64))
    x, model = blur_pool2d(torch.rand(2, 3, 64, 64), "ideal", 1, "circular"), model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        free = antialias(model, x, method="alias-free", strict=True)
    assert list(free.state_dict()) == list(model.state_dict())

    @torch.no_grad()
    def change(network):
        y = network(x)
        return float((network(fourier_shift(x, 0.5, 0.25)) - y).norm() / (y - y.mean(0)).norm())

    assert change(free) < change(model) / 2


def test_what_the_report_says():
    model = nn.Sequential(conv(2, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4), nn.GELU()).eval()
    free, report = antialias_with_report(model, X.float(), method="alias-free")
    kinds = [(site.kind, site.path, site.placed) for site in report.sites]
    assert kinds == [
        *(("conv", "0", True), ("max_pool", "2", True)),
        *(("nonlinearity", "1", True), ("nonlinearity", "4", True)),
    ]
    assert report.converted_flops == count_flops(free)
    assert report.filter == "ideal"


def count_flops(model):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(X.float())
    return counter.get_total_flops()


# It travels ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def free():
    return antialias(network(nn.ReLU).float(), X.float(), method="alias-free")


def test_weights_copies_and_pickles(free):
    x = X.float()
    assert list(free.state_dict()) == list(network(nn.ReLU).state_dict())
    with torch.no_grad():
        expected = free(x)
        assert torch.equal(copy.deepcopy(free)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(free))(x), expected)
        last = copy.deepcopy(free).to(memory_format=torch.channels_last)
        found = last(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def small():
    """A module of each kind that the method changes."""
    layers = conv(2, 3, 3, 2), nn.ReLU(), Function(F.relu, 3), nn.MaxPool2d(2)
    return antialias(nn.Sequential(*layers).eval(), X.float(), method="alias-free", strict=True)


def test_compiles_exports_and_traces(small):
    x = X.float()
    with torch.no_grad():
        expected = small(x)
        torch.compiler.reset()
        compiled = torch.compile(small, fullgraph=True, backend="aot_eager")  # whose C++ takes a minute
        torch.testing.assert_close(compiled(x), expected, atol=1e-5, rtol=1e-4)
        exported = torch.export.export(small, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
        torch.testing.assert_close(exported(x), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.fx.symbolic_trace(small)(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.sweep
def test_compiles_to_machine_code(small):
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(small, fullgraph=True)(X.float())
        torch.testing.assert_close(compiled, small(X.float()), atol=1e-5, rtol=1e-4)


@pytest.mark.sweep
def test_runs_in_onnxruntime(small):
    onnxruntime = pytest.importorskip("onnxruntime")
    any_size = dict.fromkeys((0,), torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(small, (X.float(),), dynamo=True, dynamic_shapes=(any_size,), verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    x = image(3, 2, 32, 32, seed=1).float()
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, small(x), rtol=1e-4, atol=1e-5)


def test_gradients():
    model = nn.Sequential(conv(1, 2), nn.Tanh(), nn.MaxPool2d(2)).double()
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(antialias(model, x.detach(), method="alias-free"), x)


def test_the_guard_names_a_replaced_activation(free):
    model = copy.deepcopy(free)
    model[4] = nn.ReLU()
    with pytest.raises(InputError, match="`4`, which was evaluated at twice the rate, was replaced"):
        model(X.float())


# What is refused ------------------------------------------------------------------------------------------------------


def test_maps_that_do_not_wrap_around_are_refused_unless_asked_for():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()).double()
    with pytest.raises(InputError, match=r"use dealias\.to_circular\(model\), or padding_mode='circular'"):
        antialias(model, X, method="alias-free")
    assert isinstance(antialias(model, X, method="alias-free", padding_mode="circular")[1].antialias_before, Doubling)


def test_products_of_maps_are_named():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(2, 4), conv(2, 4)

        def forward(self, x):
            return self.one(x) * self.two(x)

    model = nn.Sequential(Product(), nn.AvgPool2d(2)).double()
    words = r"not evaluated at twice the rate, 1 non-linearities:\n- nonlinearity `0`: mul"
    with pytest.warns(UserWarning, match=words):
        free = antialias(model, X, method="alias-free")
    with pytest.raises(InputError, match="strict=True"):
        antialias(model, X, method="alias-free", strict=True)
    assert [site.placed for site in sites(model, X, method="alias-free")] == [True, False]
    assert worst(free, X, 2) < worst(model, X, 2)


def test_decoders_run():
    x = image(1, 2, 16, 16).float()
    unet = UNet()
    converted = antialias(unet.eval(), x, method="alias-free")
    assert converted(x).shape == unet(x).shape
    assert all(site.placed for site in sites(unet, x, method="alias-free") if site.kind != "conv_transpose")
