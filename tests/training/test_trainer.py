"""The steps of a training against a plain PyTorch loop, and its switches."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from helpers.training_runs import assert_equal, half_network, losses, plain_network, records, run_tiny, tiny_config
from safetensors.torch import load_file
from torch import nn

from dealias.data import digits_split
from dealias.errors import InputError
from dealias.models import create_model
from dealias.training import recorder, run
from dealias.training.batches import epoch_batches, seed_all
from dealias.training.data import open_data
from dealias.training.processes import ProcessPart, make_accelerator
from dealias.training.trainer import Trainer

PLAIN = "helpers.training_runs:plain_network"


def plain_loop(
    model: nn.Module, *, limit: int, batch_size: int, epochs: int, scaler: torch.amp.GradScaler, clip_grad_norm: float
) -> list[float]:
    """The losses of a loop as PyTorch's tutorials write it; the scaler may be disabled."""
    chosen = sorted(Random(5).sample(range(4000), limit))
    images, labels = (values[chosen] for values in digits_split(0)[0])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = [batch for epoch in range(epochs) for batch in epoch_batches(limit, batch_size, seed=5, epoch=epoch)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=len(batches))
    found = []
    for batch in batches:
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        found.append(loss.item())
    return found


def test_steps_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    run_tiny(tmp_path, config=tiny_config("dealias:vgg_small", limit=400, batch_size=100, epochs=1))
    torch.manual_seed(5)
    model = create_model("dealias:vgg_small").train()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    expected = plain_loop(model, limit=400, batch_size=100, epochs=1, scaler=scaler, clip_grad_norm=math.inf)
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-5)
    trained = load_file(tmp_path / "checkpoints" / "last.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("more", [{"accumulation": 3}, {"channels_last": True}])
def test_switches_that_change_speed_and_memory_alone(tmp_path: Path, more: dict[str, Any]) -> None:
    for name, chosen in (("plain", {}), ("switched", more)):
        run_tiny(tmp_path / name, config=tiny_config(PLAIN, **chosen))
    assert losses(tmp_path / "switched") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


def test_bf16_is_near(tmp_path: Path) -> None:
    run_tiny(tmp_path / "fp32", config=tiny_config(PLAIN))
    AcceleratorState._reset_state(reset_partial_state=True)  # as Accelerate's own tests do
    try:
        run_tiny(tmp_path / "bf16", config=tiny_config(PLAIN, precision="bf16"))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.02)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")
    assert all(t.dtype == torch.float32 for t in load_file(tmp_path / "bf16/checkpoints/last.safetensors").values())


def test_fp16_is_a_plain_loop_with_a_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate refuses float16 on a CPU; PyTorch's autocast and scaler take it, and the first steps overflow."""
    monkeypatch.setattr(run, "make_accelerator", lambda device, _: make_accelerator(device, "fp32"))
    monkeypatch.setattr(recorder, "AGREE_EVERY", 0.0)
    config = tiny_config("helpers.training_runs:half_network", precision="fp16", clip_grad_norm=0.5, save_every=1e-9)
    run_tiny(tmp_path, config=config)
    torch.manual_seed(5)
    model, scaler = half_network().train(), torch.amp.GradScaler("cpu")
    expected = plain_loop(model, limit=200, batch_size=50, epochs=2, scaler=scaler, clip_grad_norm=0.5)
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-3)
    newest = max(tmp_path.glob("checkpoints/state-*.pt"))
    last = torch.load(newest, weights_only=True)
    assert last["scaler"] == scaler.state_dict()
    assert last["scaler"]["scale"] < 2**16  # a step was skipped
    newest.unlink()
    run_tiny(tmp_path, resume=True, config=config)
    assert_equal(torch.load(newest, weights_only=True), last)


@pytest.mark.sweep
def test_compiled_is_near(tmp_path: Path) -> None:
    run_tiny(tmp_path / "eager", config=tiny_config(PLAIN))
    run_tiny(tmp_path / "compiled", config=tiny_config(PLAIN, compile=True))
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
    names = load_file(tmp_path / "compiled/checkpoints/last.safetensors").keys()
    assert names == plain_network().state_dict().keys()


def test_the_average_is_what_is_measured_and_published(tmp_path: Path) -> None:
    run_tiny(tmp_path, config=tiny_config(PLAIN, ema_decay=0.5, epochs=1))
    state = torch.load(max(tmp_path.glob("checkpoints/state-*.pt")), weights_only=True)
    published = load_file(tmp_path / "checkpoints" / "last.safetensors")
    for name, tensor in published.items():
        assert torch.equal(tensor, state["average"][f"module.{name}"])
        assert not torch.equal(tensor, state["model"][name])
    model = plain_network()
    model.load_state_dict(published)
    images, labels = digits_split(0)[1]
    assert int((model(images).argmax(1) == labels).sum()) == records(tmp_path)[-1]["correct"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("colour_network", r"cannot take images of shape \(1, 32, 32\): .*to have 3 channels"),
        ("two_classes", "has 2 classes, the images have 10"),
    ],
)
def test_a_network_that_does_not_fit_the_images(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"model='helpers.training_runs:{name}' {message}"):
        run_tiny(tmp_path, config=tiny_config(f"helpers.training_runs:{name}"))


def test_random_numbers_of_a_step_depend_on_seed_step_and_process() -> None:
    config, part = tiny_config(), ProcessPart(0, 1, 0, pin_memory=False)
    third = SimpleNamespace(device=torch.device("cpu"), process_index=3, num_processes=1, prepare_model=lambda net: net)
    data = open_data(config, part)
    Trainer(config, data, third).learn(next(data.batches.of(0, 0)), 7)
    used = torch.initial_seed()
    seed_all(config.seed, 7, 3, 1)
    assert torch.initial_seed() == used


def test_clipping_leaves_steps_of_next_to_no_length(tmp_path: Path) -> None:
    run_tiny(tmp_path, config=tiny_config(PLAIN, clip_grad_norm=1e-4))
    assert max(losses(tmp_path)) - min(losses(tmp_path)) < 0.2
