"""What a step of training costs with each method: its time beside the plain network's, and its peak of memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence

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


def main() -> None:
    """Print by how many MiB the process grows in two steps of the network and the method that are named."""
    torch.set_num_threads(1)
    step = step_of(*sys.argv[1:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


if __name__ == "__main__":
    main()
