"""The layers as modules: what they hold, and what compiles and exports."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import sweep
from helpers.cases import PADDING_MODES
from torch import Tensor, nn

import dealias
from dealias import functional
from dealias.errors import InputError
from dealias.nn import MapNorm, Quadratic, ReLUBlurPool2d
from dealias.ops import reference

LAYERS: dict[str, tuple[nn.Module, int, Callable[[Tensor], Tensor]]] = {
    repr(layer): (layer, spatial, same)
    for layer, spatial, same in [
        (dealias.BlurPool1d("tri3", 3), 1, lambda x: functional.blur_pool1d(x, "tri3", 3)),
        (dealias.BlurPool2d(5, (1, 2), "zeros"), 2, lambda x: functional.blur_pool2d(x, 5, (1, 2), "zeros")),
        (dealias.BlurPool3d(padding_mode="circular"), 3, lambda x: functional.blur_pool3d(x, padding_mode="circular")),
        (ReLUBlurPool2d("rect2"), 2, lambda x: functional.relu_blur_pool2d(x, "rect2")),
        (dealias.MaxBlurPool1d(2), 1, lambda x: functional.max_blur_pool1d(x, 2)),
        (
            dealias.MaxBlurPool2d(3, 2, 1, 2, True, filter=[1, 3], padding_mode="replicate"),
            2,
            lambda x: functional.max_blur_pool2d(x, 3, 2, 1, 2, True, filter=[1, 3], padding_mode="replicate"),
        ),
        (dealias.MaxBlurPool3d((1, 2, 2), 2), 3, lambda x: functional.max_blur_pool3d(x, (1, 2, 2), 2)),
        (dealias.BlurPool2d(("bin5", "tri3")), 2, lambda x: functional.blur_pool2d(x, ("bin5", "tri3"))),
    ]
}


@pytest.mark.parametrize(("layer", "spatial", "same"), LAYERS.values(), ids=LAYERS)
class TestEveryLayer:
    def test_it_is_its_function(self, layer: nn.Module, spatial: int, same: Callable[[Tensor], Tensor]) -> None:
        x = torch.randn(2, 3, *[7] * spatial)
        assert torch.equal(layer(x), same(x))

    def test_it_holds_no_state(self, layer: nn.Module, spatial: int, same: Callable[[Tensor], Tensor]) -> None:
        layer(torch.randn(2, 3, *[7] * spatial))
        assert not list(layer.parameters())
        assert not list(layer.buffers())
        assert not layer.state_dict()
        with pytest.raises(RuntimeError, match="Unexpected key"):
            layer.load_state_dict({"filt": torch.ones(1)})

    def test_copies_are_equal(self, layer: nn.Module, spatial: int, same: Callable[[Tensor], Tensor]) -> None:
        x = torch.randn(2, 3, *[7] * spatial)
        buffer = io.BytesIO()
        torch.save(layer, buffer)
        buffer.seek(0)
        for twin in (
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            torch.load(buffer, weights_only=False),  # written three lines above
        ):
            assert repr(twin) == repr(layer)
            assert torch.equal(twin(x), layer(x))

    def test_inference_then_training(self, layer: nn.Module, spatial: int, same: Callable[[Tensor], Tensor]) -> None:
        x = torch.randn(2, 3, *[7] * spatial)
        with torch.inference_mode():
            expected = layer(x)
        y = layer(x.requires_grad_())
        y.sum().backward()
        assert torch.equal(y, expected.clone())
        assert x.grad is not None

    def test_moving_and_casting_the_model_changes_nothing(
        self, layer: nn.Module, spatial: int, same: Callable[[Tensor], Tensor]
    ) -> None:
        x = torch.randn(2, 3, *[7] * spatial, dtype=torch.float64)
        assert torch.equal(copy.deepcopy(layer).to(torch.bfloat16).to("meta")(x), layer(x))


def test_defaults_are_those_of_the_paper_and_of_max_pool() -> None:
    x = torch.randn(1, 2, 9, 9)
    assert torch.equal(dealias.BlurPool2d()(x), functional.blur_pool2d(x, [1, 3, 3, 1], 2, "reflect"))
    assert torch.equal(dealias.MaxBlurPool2d(3)(x), functional.max_blur_pool2d(x, 3, 3, 0, 1, False, filter="bin4"))


def test_the_filter_reads_as_it_was_given() -> None:
    layer = dealias.BlurPool2d(("bin5", "tri3"), stride=(2, 1))
    assert layer.filter == ("bin5", "tri3")
    assert layer.taps == ((0.0625, 0.25, 0.375, 0.25, 0.0625), (1.0,))
    assert repr(layer) == "BlurPool2d(filter=('bin5', 'tri3'), stride=(2, 1), padding_mode='reflect')"
    assert dealias.MaxBlurPool3d(2, filter=["none", [3, 1], 3]).filter == ("none", (0.75, 0.25), "tri3")
    assert dealias.BlurPool1d(("bin4",)).filter == "bin4"
    for twin in (layer, dealias.MaxBlurPool2d((2, 1), filter="bin6")):
        assert dealias.BlurPool2d(twin.filter, twin.stride).taps == twin.taps


def test_the_text_names_every_setting() -> None:
    assert repr(dealias.BlurPool2d()) == "BlurPool2d(filter='bin4', stride=2, padding_mode='reflect')"
    assert repr(dealias.MaxBlurPool2d((3, 2), 2, ceil_mode=True, filter=[3, 1])) == (
        "MaxBlurPool2d(kernel_size=(3, 2), padding=0, dilation=1, ceil_mode=True, "
        "filter=(0.75, 0.25), stride=2, padding_mode='reflect')"
    )


# What traces


class Everything(nn.Module):
    """All 2d operations with kernels, paddings and filters of several kinds, on one input."""

    def __init__(self, padding_mode: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                dealias.BlurPool2d("bin5", 2, padding_mode),
                dealias.BlurPool2d([1, 2], (1, 3), padding_mode),
                dealias.BlurPool2d(("rect2", "bin5"), (3, 2), padding_mode),
                ReLUBlurPool2d("bin4", 2, padding_mode),
                dealias.MaxBlurPool2d(2, 2, padding_mode=padding_mode),
                dealias.MaxBlurPool2d(3, 2, 1, filter="tri3", padding_mode=padding_mode),
                dealias.MaxBlurPool2d(3, 2, ceil_mode=True, filter=7, padding_mode=padding_mode),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self.layers]


def assert_all_close(actual: Any, expected: list[Tensor]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("padding_mode", ["reflect", "circular"])
def test_compile_full_graph_with_gradient(padding_mode: Any) -> None:
    torch.compiler.reset()  # the limit of recompilations counts those of the tests before
    net = Everything(padding_mode)
    compiled = torch.compile(net, fullgraph=True, dynamic=False)
    x, twin = (torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2))
    actual, expected = compiled(x), net(twin)
    assert_all_close(actual, expected)
    for outputs in (actual, expected):
        sum((y.square().sum() for y in outputs), torch.zeros(())).backward()
    assert x.grad is not None
    assert_all_close([x.grad], [twin.grad])


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_compile_full_graph_with_dynamic_shapes(padding_mode: Any) -> None:
    torch.compiler.reset()  # the limit of recompilations counts those of the tests before
    net = Everything(padding_mode)
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 3, 12, 16), (4, 3, 13, 20), (3, 3, 7, 6)):
        x = torch.randn(shape)
        assert_all_close(compiled(x), net(x))
        in_channels_last = x.contiguous(memory_format=torch.channels_last)
        for y in compiled(in_channels_last):
            assert y.is_contiguous(memory_format=torch.channels_last)


DYNAMIC = {"x": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_export_with_dynamic_batch_and_size(padding_mode: Any) -> None:
    net = Everything(padding_mode)
    exported = torch.export.export(net, (torch.randn(2, 3, 12, 16),), dynamic_shapes=DYNAMIC).module()
    for shape in ((2, 3, 12, 16), (3, 3, 5, 7), (5, 3, 33, 8)):
        x = torch.randn(shape)
        assert_all_close(exported(x), net(x))


def test_export_with_named_dimensions_from_the_smallest_size() -> None:
    """A convolution whose output has one pixel fixes that size in torch.export, hence 4 and not 1."""
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    net = nn.ModuleList([dealias.BlurPool2d(6), dealias.MaxBlurPool2d(2), dealias.MaxBlurPool2d(3, 2, 1)])
    for layer in net:
        exported = torch.export.export(layer, (torch.randn(2, 3, 12, 16),), dynamic_shapes=(dims,)).module()
        for shape in ((2, 3, 4, 4), (1, 3, 40, 5)):
            x = torch.randn(shape)
            assert_all_close([exported(x)], [layer(x)])


QUICK = "reflect"  # the border that takes the most; the sweep runs the others


@pytest.mark.parametrize("padding_mode", sweep.only((QUICK,), PADDING_MODES))
def test_onnx_with_dynamic_batch_and_size(padding_mode: Any) -> None:
    net = Everything(padding_mode)
    program = torch.onnx.export(
        net.eval(), (torch.randn(2, 3, 12, 16),), dynamo=True, dynamic_shapes=DYNAMIC, verbose=False
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    name = session.get_inputs()[0].name
    for shape in ((2, 3, 12, 16), (1, 3, 3, 3), (3, 3, 4, 9), (5, 3, 33, 32)):  # on 3 x 3, bin7 reflects twice
        x = torch.randn(shape)
        outputs = session.run(None, {name: np.ascontiguousarray(x.numpy())})
        assert_all_close(outputs, net(x))


def test_onnx_on_maps_of_one_pixel() -> None:
    net = nn.Sequential(dealias.BlurPool2d("bin7"), dealias.MaxBlurPool2d(3, 2, 1))
    program = torch.onnx.export(
        net.eval(), (torch.randn(2, 1, 12, 16),), dynamo=True, dynamic_shapes=(DYNAMIC["x"],), verbose=False
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    x = torch.randn(4, 1, 1, 2)
    assert_all_close(session.run(None, {session.get_inputs()[0].name: x.numpy()}), [net(x)])


class Traced(nn.Module):
    """What `Everything` has, and more kinds of windows, as a tuple: torch.jit.trace warns of a list."""

    def __init__(self, padding_mode: Any) -> None:
        super().__init__()
        more = [
            dealias.BlurPool2d((40, "tri3"), 2, padding_mode),
            dealias.MaxBlurPool2d(2, 3, 1, 2, ceil_mode=True, padding_mode=padding_mode),
            dealias.MaxBlurPool2d(2, ceil_mode=True, padding_mode=padding_mode),
            dealias.MaxBlurPool2d((2, 1), (2, 1), padding_mode=padding_mode),
        ]
        self.layers = nn.ModuleList([*Everything(padding_mode).layers, *more])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


SIZES = ((2, 3, 12, 16), (1, 3, 3, 3), (3, 3, 5, 7), (5, 3, 33, 8))


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_a_trace_keeps_no_size(padding_mode: Any) -> None:
    reference._cached_kernel.cache_clear()  # the first trace of a filter must pass its own check, too
    net = Traced(padding_mode).eval()
    traced = torch.jit.trace(net, torch.rand(2, 3, 12, 16))
    for shape in SIZES:
        x = torch.randn(shape)
        assert_all_close(traced(x), list(net(x)))


@pytest.mark.parametrize("spatial", [1, 3])
def test_a_trace_of_lines_and_volumes_keeps_no_size(spatial: int) -> None:
    blur = (dealias.BlurPool1d, dealias.BlurPool2d, dealias.BlurPool3d)[spatial - 1]
    pool = (dealias.MaxBlurPool1d, dealias.MaxBlurPool2d, dealias.MaxBlurPool3d)[spatial - 1]
    for padding_mode in PADDING_MODES:
        net = nn.Sequential(blur("bin5", 2, padding_mode), pool(2, ceil_mode=True, padding_mode=padding_mode))
        traced = torch.jit.trace(net, torch.rand(2, 3, *[8] * spatial))
        for size in (5, 9, 12):
            x = torch.randn(1, 3, *[size] * spatial)
            assert_all_close([traced(x)], [net(x)])


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_onnx_by_way_of_a_trace_with_dynamic_batch_and_size(padding_mode: Any) -> None:
    net, file = Traced(padding_mode).eval(), io.BytesIO()
    axes = {"x": [0, 2, 3]}
    torch.onnx.export(net, (torch.rand(2, 3, 12, 16),), file, dynamo=False, dynamic_axes=axes, input_names=["x"])
    session = onnxruntime.InferenceSession(file.getvalue())
    for shape in SIZES:
        x = torch.randn(shape)
        assert_all_close(session.run(None, {"x": x.numpy()}), list(net(x)))


@pytest.mark.parametrize(("layer", "spatial", "same"), LAYERS.values(), ids=LAYERS)
def test_scripting_says_what_to_do(layer: nn.Module, spatial: int, same: Callable[[Tensor], Tensor]) -> None:
    for model in (layer, nn.Sequential(nn.ReLU(), nn.Sequential(layer))):
        with pytest.raises(InputError, match=rf"{type(layer).__name__} .*torch.jit.trace or torch.export"):
            torch.jit.script(model)


class Mixed(nn.Module):
    """Layers and functions, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(dealias.BlurPool2d(), ReLUBlurPool2d(3), dealias.MaxBlurPool2d(3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu_blur_pool2d(functional.max_blur_pool2d(self.layers(x), 2))


def test_torch_fx_traces_layers_and_functions() -> None:
    """Feature extractors and quantisers of PyTorch are built on such graphs."""

    model, x = Mixed(), torch.randn(2, 3, 97, 99)
    traced = copy.deepcopy(torch.fx.symbolic_trace(model))
    assert torch.equal(traced(x), model(x))


def test_the_polynomial_starts_nearest_to_gelu() -> None:
    """Against a fit by NumPy, weighted by the normal density."""
    x = np.linspace(-8, 8, 20001)
    gelu = nn.functional.gelu(torch.from_numpy(x)).numpy()
    fitted = np.polynomial.polynomial.polyfit(x, gelu, 2, w=np.exp(-x * x / 4))  # squared, the density
    layer = Quadratic(2)
    np.testing.assert_allclose(layer.coefficients.detach()[:, 1], fitted, rtol=0, atol=1e-6)
    y = layer.double()(torch.from_numpy(x).expand(1, 2, -1)).detach()
    np.testing.assert_allclose(y[0, 0], np.polynomial.polynomial.polyval(x, fitted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_each_channel_has_a_polynomial_of_its_own(spatial: int) -> None:
    layer, x = Quadratic(2), torch.randn(3, 2, *[4] * spatial)
    with torch.no_grad():
        layer.coefficients.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.0], [0.0, 3.0]]))
    expected = torch.stack([1 + 2 * x[:, 0], -1 + 3 * x[:, 1] ** 2], 1)
    torch.testing.assert_close(layer(x), expected)
    layer.reset_parameters()
    assert layer.coefficients[1].tolist() == [0.5, 0.5]


def test_map_norm_by_numpy() -> None:
    layer, x = MapNorm(5).double(), torch.randn(3, 5, 6, 4, dtype=torch.float64) * 3 + 1
    with torch.no_grad():
        layer.weight.copy_(torch.arange(5.0))
        layer.bias.fill_(0.5)
    centred = x.numpy() - x.numpy().mean(1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-6)
    expected = normed * np.arange(5.0).reshape(1, 5, 1, 1) + 0.5
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=0, atol=1e-12)
    layer.load_state_dict(nn.LayerNorm(5).state_dict())  # the same keys
