"""What a step of training costs with each method: its time beside the plain network's, and its peak of memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from method_networks import INPUT, build
from records import Record
from torch import Tensor

from dealias.benchmark import median_ratio, processor, race
from dealias.ops import cpu

BATCH = 64


def step_of(network: str, method: str) -> Callable[[], None]:
    """A step of training on a batch of noise."""
    model = build(network, method, 0).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, labels = torch.rand(BATCH, *INPUT[1:]), torch.arange(BATCH) % 10

    def step() -> None:
        loss: Tensor = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def cost(network: str, methods: Sequence[str], rounds: int = 15) -> Record:
    """Steps of all methods, one after the other in each round, on one thread; each method's memory in a process."""
    torch.set_num_threads(1)
    times = race({method: step_of(network, method) for method in methods}, rounds)
    return {
        "data": "cost",
        "network": network,
        "machine": f"{processor()}, 1 thread, {cpu.instruction_set()}, torch {torch.__version__}",
        "ms": {method: 1e3 * sorted(times[method])[rounds // 2] for method in methods},
        "ratio": {method: median_ratio(times[method], times["none"]) for method in methods},
        "mib": {method: _peak(network, method) for method in methods},
    }


def _peak(network: str, method: str) -> float:
    command = [sys.executable, __file__, network, method]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _memory(name: str) -> int:
    """A line of Linux's account of this process, in KiB: "VmRSS", what it has now, or "VmHWM", the most that it had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    """Print by how many MiB the process grows at most in two steps of the network and the method that are named."""
    torch.set_num_threads(1)
    step = step_of(*sys.argv[1:])
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the most that it had is forgotten
    before = _memory("VmRSS")
    step()
    step()
    print((_memory("VmHWM") - before) / 1024)


if __name__ == "__main__":
    main()
