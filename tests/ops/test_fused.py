"""The torch.library layer, with a backend that computes by the reference and counts its calls."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from dealias import functional, ops
from dealias.errors import InputError
from dealias.ops import fused, reference
from dealias.ops.arguments import RELU, Blur, First, Pool

TAPS = (0.125, 0.375, 0.375, 0.125)
OTHER = (0.25, 0.5, 0.25)
BLUR = Blur((TAPS, OTHER), (2, 2), "reflect")
MAXIMA = {
    "unpadded": Pool((2, 2), (1, 1), (0, 0), (0, 0), False),
    "padded": Pool((3, 2), (1, 1), (1, 0), (1, 1), False),
    "wrapped": Pool((2, 3), (1, 1), (0, 0), (1, 2), True),
}
CALLS: dict[str, First] = {"blur": None, "relu": RELU, "maximum": MAXIMA["padded"]}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


class ReferenceBackend:
    """A `fused.Backend` in terms of the reference; gradients by autograd."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def unavailable(self) -> str | None:
        return None

    def covers(self, dtype: torch.dtype, lengths: Sequence[int], *args: Any) -> bool:
        return dtype != torch.float16 and max(lengths) <= 7

    def forward(self, x: Tensor, blur: Blur, first: First) -> Tensor:
        self.calls["forward"] += 1
        assert type(x) in (Tensor, torch.nn.Parameter)
        return reference.blur_pool(x.detach(), blur, first)

    def backward(
        self, grad: Tensor, x: Tensor | None, blur: Blur, first: First, size: tuple[int, ...], channels_last: bool
    ) -> Tensor:
        self.calls["backward"] += 1
        assert (x is None) == (first is None)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        leaf = torch.zeros(size, dtype=grad.dtype) if x is None else x.detach()
        assert leaf.shape == size

        def differentiate() -> Tensor:
            given = leaf.clone(memory_format=layout).requires_grad_()
            (gradient,) = torch.autograd.grad(reference.blur_pool(given, blur, first), given, grad.detach())
            return reference.match_layout(gradient, given)

        with ThreadPoolExecutor(1) as outside_the_dispatcher:  # inside it autograd is off
            return outside_the_dispatcher.submit(differentiate).result()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReferenceBackend]:
    stand_in = ReferenceBackend()
    monkeypatch.setitem(fused._backends, "cpu", stand_in)
    monkeypatch.setattr(ops, "_covered", {})
    torch.compiler.reset()
    with ops.use_backend("fused"):
        yield stand_in
    torch.compiler.reset()


def given(name: str, dtype: torch.dtype = torch.float64, layout: torch.memory_format = LAYOUTS[0]) -> Tensor:
    generator = torch.Generator().manual_seed(len(name))
    x = torch.randn(2, 3, 6, 8, generator=generator, dtype=torch.float64)
    return x.to(dtype).contiguous(memory_format=layout)


def run(name: str, x: Tensor) -> Tensor:
    """The operation, by way of `dealias.ops`."""
    return ops.blur_pool(x, BLUR, CALLS[name])


def defined(name: str, x: Tensor) -> Tensor:
    """The operation, by the reference."""
    return reference.blur_pool(x, BLUR, CALLS[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_eager(backend: ReferenceBackend, name: str, layout: torch.memory_format) -> None:
    x = given(name, layout=layout).requires_grad_()
    y = run(name, x)
    expected = defined(name, x)
    assert torch.equal(y, expected)
    assert y.stride() == expected.stride()
    grad = torch.randn_like(y).contiguous()
    torch.testing.assert_close(torch.autograd.grad(y, x, grad), torch.autograd.grad(expected, x, grad))
    assert backend.calls == {"forward": 1, "backward": 1}


@pytest.mark.parametrize("name", CALLS)
def test_without_gradient_the_backend_is_called_and_nothing_else(backend: ReferenceBackend, name: str) -> None:
    with torch.no_grad():
        y = run(name, given(name).requires_grad_())
    assert y.grad_fn is None
    assert run(name, given(name)).grad_fn is None
    assert backend.calls == {"forward": 2}


@pytest.mark.parametrize("maximum", MAXIMA)
def test_second_gradients(backend: ReferenceBackend, monkeypatch: pytest.MonkeyPatch, maximum: str) -> None:
    monkeypatch.setitem(CALLS, "maximum", MAXIMA[maximum])
    names = CALLS if maximum == "padded" else ["maximum"]
    for name in names:
        x = given(name)[:1, :2, :5].contiguous().requires_grad_()
        assert torch.autograd.gradcheck(lambda t, name=name: run(name, t), x)
        assert torch.autograd.gradgradcheck(lambda t, name=name: run(name, t).square(), x)


@pytest.mark.parametrize("name", CALLS)
def test_saved_for_backward(backend: ReferenceBackend, name: str) -> None:
    saved: list[Tensor] = []
    x = given(name).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        run(name, x)
    assert [t.data_ptr() for t in saved] == ([] if name == "blur" else [x.data_ptr()])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_the_op_keeps_the_rules_of_torch_library(
    backend: ReferenceBackend, name: str, layout: torch.memory_format
) -> None:
    x = given(name, torch.float32, layout).requires_grad_()
    arguments = fused.flatten(BLUR, CALLS[name])
    torch.library.opcheck(torch.ops.dealias.blur_pool2d.default, (x, *arguments))
    grad = torch.randn_like(defined(name, x)).requires_grad_()
    given_x = None if name == "blur" else x.detach()
    channels_last = layout == torch.channels_last
    backward = torch.ops.dealias.blur_pool2d_backward.default
    torch.library.opcheck(backward, (grad, given_x, tuple(x.shape), channels_last, *arguments))


@pytest.mark.parametrize("name", CALLS)
def test_functorch_and_forward_gradients_take_the_reference(backend: ReferenceBackend, name: str) -> None:
    x, tangent = given(name), given(name).flip(0)
    _, expected = torch.func.jvp(lambda t: defined(name, t), (x,), (tangent,))
    with torch.autograd.forward_ad.dual_level():
        y = run(name, torch.autograd.forward_ad.make_dual(x, tangent))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(y).tangent, expected)
    by_one = torch.stack([torch.func.grad(lambda t: run(name, t).square().sum())(t[None]) for t in x])
    by_sample = torch.func.vmap(torch.func.grad(lambda t: run(name, t[None]).square().sum()))(x)
    torch.testing.assert_close(by_sample, by_one[:, 0])
    assert not backend.calls


@pytest.mark.parametrize("name", CALLS)
def test_batched_gradients(backend: ReferenceBackend, name: str) -> None:
    x = given(name)[:1, :1].contiguous().requires_grad_()
    y = run(name, x)
    basis = torch.eye(y.numel(), dtype=y.dtype).view(-1, *y.shape)
    one_by_one = torch.stack([torch.autograd.grad(y, x, row, retain_graph=True)[0] for row in basis])
    backend.calls.clear()
    together = torch.func.vmap(lambda row: torch.autograd.grad(y, x, row, retain_graph=True)[0])(basis)
    torch.testing.assert_close(together, one_by_one)
    assert backend.calls == {"backward": 1}
    (together,) = torch.autograd.grad(y, x, basis, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(together, one_by_one)


def test_compile_takes_the_ops_without_a_break(backend: ReferenceBackend) -> None:
    def step(x: Tensor) -> Tensor:
        y = x * 1
        for name in CALLS:
            y = y + run(name, x).sum()
        return y.square().mean()

    for layout in LAYOUTS:
        x = given("compile", torch.float32, layout).requires_grad_()
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        result, expected = compiled(x), step(x)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(torch.autograd.grad(result, x), torch.autograd.grad(expected, x))
    assert backend.calls == {"forward": 4 * len(CALLS), "backward": 4 * len(CALLS)}


def test_export_takes_the_reference(backend: ReferenceBackend) -> None:
    class Pool(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.max_blur_pool2d(functional.blur_pool2d(x), 2)

    for strict in (False, True):
        program = torch.export.export(Pool(), (given("export", torch.float32),), strict=strict)
        assert not any("dealias" in str(node.target) for node in program.graph.nodes)
    traced = torch.jit.trace(Pool(), given("export", torch.float32), check_trace=False)
    assert "dealias::" not in str(traced.inlined_graph)
    assert not backend.calls


def test_what_takes_which_backend(backend: ReferenceBackend) -> None:
    x = given("backend", torch.float32)
    assert ops.backend_for(x, BLUR) == "cpu"
    assert ops.backend_for(x, BLUR, MAXIMA["padded"]) == "cpu"
    assert ops.backend_for(x.half(), BLUR) == "reference"
    assert ops.backend_for(x, BLUR._replace(taps=(TAPS, TAPS * 2))) == "reference"
    assert ops.backend_for(x[0], Blur((TAPS,), (2,), "reflect")) == "reference"
    assert ops.backend_for(x.to("meta"), BLUR) == "reference"
    run("blur", x.half())
    assert not backend.calls


def test_use_backend_holds_for_one_thread_until_it_is_left(backend: ReferenceBackend) -> None:
    x = given("choice").requires_grad_()

    def here() -> tuple[str, str]:
        return ops.backend_for(x, BLUR), ops.backends()["cpu"]

    taken, active = ("reference", "the reference path is chosen"), ("cpu", "active")
    assert here() == active
    with ThreadPoolExecutor(1) as other:
        elsewhere = other.submit(here).result()
        with ops.use_backend("reference"):
            assert here() == taken
            y = run("relu", x)
            with ops.use_backend("fused"):
                assert here() == active
            assert here() == taken
            assert other.submit(here).result() == elsewhere
        assert here() == active
    y.sum().backward()
    assert not backend.calls
    with pytest.raises(InputError, match="'native' is unknown: use 'reference' or 'fused'"), ops.use_backend("native"):
        pass
    with pytest.raises(KeyError), ops.use_backend("reference"):
        raise KeyError
    assert here() == active


def test_compiled_code_follows_use_backend(backend: ReferenceBackend) -> None:
    x = given("compiled", torch.float32)
    compiled = torch.compile(lambda x: run("maximum", x), fullgraph=True, backend="aot_eager")
    for name, calls in (("fused", 1), ("reference", 1), ("fused", 2)):
        with ops.use_backend(name):
            torch.testing.assert_close(compiled(x), defined("maximum", x))
        assert backend.calls["forward"] == calls


@pytest.mark.parametrize(("value", "says"), [("", "active"), ("reference", "chosen"), ("native", "unset it")])
def test_the_environment_chooses_the_backend(value: str, says: str) -> None:
    code = (
        "import dealias.ops\n"
        "try:\n    print(dealias.ops.backends())\n"
        "except dealias.errors.InputError as error:\n    print(error)"
    )
    environment = os.environ | {"DEALIAS_BACKEND": value}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert says in output


def test_autocast_leaves_the_dtype_alone(backend: ReferenceBackend) -> None:
    x = given("autocast", torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [run(name, x) for name in CALLS]
    assert all(y.dtype == torch.float32 for y in results)
    torch.stack([y.sum() for y in results]).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_a_subclass_passes_through_the_dispatcher(backend: ReferenceBackend) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(2, 3, 9, 8, device="cpu", requires_grad=True)
        y = run("maximum", x)
        assert y.shape == (2, 3, 5, 4)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape
    assert not backend.calls


def test_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_backends", {})

    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(fused, "import_module", import_module)
    with ops.use_backend("fused"):
        assert ops.backends()["cuda"] == "triton is not installed"


def test_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    def devices() -> list[str]:
        monkeypatch.setattr(ops, "_covered", {})
        with FakeTensorMode():
            inputs = [torch.empty(2, 3, 9, 8, device=device) for device in ("cuda", "mps")]
            for x in inputs:
                y = functional.max_blur_pool2d(x, 2)
                assert (y.shape, y.device.type) == ((2, 3, 4, 4), x.device.type)
            with ops.use_backend("fused"):
                return [ops.backend_for(x, BLUR, MAXIMA["unpadded"]) for x in inputs]

    monkeypatch.setattr(ops, "unavailable", lambda device: "triton is not installed")
    assert devices() == ["reference"] * 2
    monkeypatch.setattr(ops, "unavailable", lambda device: None)
    monkeypatch.setitem(fused._backends, "cuda", ReferenceBackend())
    assert devices() == ["cuda", "reference"]
