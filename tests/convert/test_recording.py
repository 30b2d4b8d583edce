"""Recording a forward pass: what is seen, and that nothing is left behind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias.convert.recording import record
from dealias.errors import InputError


class Stateful(nn.Module):
    """Batch norm, a counter, random numbers and an error on demand."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, x, fail=False):
        self.calls += 1
        self.last = self.last + torch.rand(2)
        x = self.drop(self.norm(self.conv(x)))
        if fail:
            raise KeyError("no such thing")
        return x


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_and_the_random_state_are_as_before(fail):
    model, x = Stateful(), torch.randn(2, 3, 4, 4)
    model.conv.eval()
    flags = {name: module.training for name, module in model.named_modules()}
    buffers = dict(model.named_buffers())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    if fail:
        with pytest.raises(InputError, match="it raised KeyError: 'no such thing'"):
            record(model, (x, True))
    else:
        record(model, x)
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_values_link_operations_to_modules():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
    x = torch.randn(1, 3, 8, 8)
    trace = record(model.eval(), x)
    assert [(node.op, node.call.path) for node in trace.nodes][:1] == [("convolution", "0")]
    assert [(node.op, node.call.path) for node in trace.nodes][-1:] == [("relu", "1.1")]
    assert trace.nodes[0].norm == pytest.approx(float(x.norm()))
    assert trace.nodes[0].outputs[0].consumers == [trace.nodes[1]]
    assert trace.nodes[-1].inputs[0] is trace.nodes[1].outputs[0]
    outer = next(call for call in trace.calls if call.path == "1")
    assert outer.output is trace.nodes[-1].outputs[0]
    assert outer.output.returned
    assert outer.runs(trace.nodes[-1])
    assert not outer.runs(trace.nodes[0])
    assert [output.shape for output in trace.outputs] == [(1, 4, 6, 6)]
    assert trace.outputs[0].norm == pytest.approx(float(model(x).detach().norm()))


def test_weights_are_no_activations():
    model = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))
    assert [node.op for node in record(model, torch.randn(1, 3, 8, 8)).nodes] == ["convolution"]


def test_writing_through_a_view_makes_a_new_value_of_the_whole():
    class Paste(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            canvas = torch.zeros(1, 3, 8, 8)
            canvas[:, :, :4, :4] = self.conv(x)
            return F.max_pool2d(canvas, 2)

    (pool,) = (node for node in record(Paste(), torch.randn(1, 3, 4, 4)).nodes if "pool" in node.op)
    assert pool.inputs[0].depth == 1


def test_inference_mode_inside_the_model():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, 2)

        @torch.inference_mode()
        def forward(self, x):
            return F.max_pool2d(self.conv(x), 2)

    ops = [node.op for node in record(Frozen(), torch.randn(1, 3, 9, 9)).nodes]
    assert ops == ["convolution", "max_pool2d_with_indices"]


def test_input_in_a_container_of_the_model_s_own():
    class Batch:
        def __init__(self, image):
            self.image = image

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)

        def forward(self, batch):
            return self.pool(self.conv(batch.image))

    trace = record(Model(), (Batch(torch.randn(1, 3, 8, 8)),))
    assert [node.call.path for node in trace.nodes] == ["conv", "pool"]
