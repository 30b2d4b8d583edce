"""Repair in two gloo processes: against one, interrupted, and killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.repairs import same_weights, small_images
from helpers.training_runs import outcome, plain_network, python

from dealias.repair import repair

SCRIPT = """
import os, signal, sys
from pathlib import Path

import torch
from helpers.repairs import small_images, small_network
from helpers.training_runs import plain_network

import dealias.repair.run
from dealias.repair import repair
from dealias.runtime import process_group

folder, killed = Path(sys.argv[1]), sys.argv[2:] == ["kill"]
options = {"epochs": 2, "batch_size": 8, "min_agreement": 0, "min_consistency": 0}
second, dealias.repair.run.SAVE_SECONDS = os.environ["RANK"] == "1", 0.0
was_killed = (folder / "broken").exists()  # before any process of this run can make it

def network(kind):
    torch.manual_seed(0)
    return kind()

def stop(stage, done):
    if second and stage == "repairing" and done > 0.5:
        os.kill(os.getpid(), signal.SIGKILL if killed else signal.SIGINT)

def run(name, kind=small_network, images=small_images(), **more):
    done = repair(network(kind), images, output=folder / name, **options, **more)
    assert done.is_main_process is not second
    assert done.succeeded
    torch.save(done.model.state_dict(), folder / f"{name}-{os.environ['RANK']}.pt")

with process_group():
    if killed:
        run("broken", on_progress=stop)
    run("unbroken")
    if not was_killed:
        try:
            run("broken", on_progress=stop)
            raise SystemExit("it was not interrupted")
        except KeyboardInterrupt:
            pass
    run("broken", resume=True)
    run("plain", plain_network, small_images().tile(2, 2), feature_weight=0)
"""


@pytest.mark.sweep
@pytest.mark.parametrize("kill", [False, True])
def test_two_processes(tmp_path: Path, kill: bool) -> None:
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    if kill:
        killed = outcome(python(script, run, "kill", processes=2))
        assert killed.returncode != 0
        assert "torchrun: another process of this run was killed" in killed.stderr
        assert (run / "broken/state.pt").exists()
    run.mkdir(exist_ok=True)
    finished = outcome(python(script, run, processes=2))
    assert finished.returncode == 0, finished.stderr
    weights = {path.stem: torch.load(path, weights_only=True) for path in run.glob("*.pt")}
    for key, value in weights["unbroken-0"].items():
        assert all(torch.equal(value, weights[name][key]) for name in ("unbroken-1", "broken-0", "broken-1"))
    for name in ("results.json", "state.pt", "model.safetensors"):
        assert (run / "unbroken" / name).read_bytes() == (run / "broken" / name).read_bytes()
    # without batch statistics a batch's gradient is the mean of its parts'
    torch.manual_seed(0)
    one = repair(plain_network(), small_images().tile(2, 2), epochs=2, batch_size=8, feature_weight=0)
    for key, value in one.model.state_dict().items():
        torch.testing.assert_close(weights["plain-0"][key], value, rtol=1e-4, atol=1e-6)
    torch.manual_seed(0)
    assert not same_weights(one.model, plain_network())
