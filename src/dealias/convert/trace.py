"""The graph of values that one forward pass of a network makes, and the module call that each operation ran in.

An in-place operation makes a new value of the same tensor. What depends on parameters and buffers alone is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from dealias.convert.windows import Window

BLUR = "blur"
"""The operation of a node that stands for a whole anti-aliasing layer."""
DOUBLE, HALVE = "double", "halve"
"""The operations that bring a map to twice its rate and back, as one node each."""


@dataclass(eq=False, repr=False)
class Value:
    """An activation: a tensor at one moment of the forward pass."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    producer: Node | None = None
    consumers: list[Node] = field(default_factory=list)
    depth: int = 0  # convolutions on the longest path from the input
    returned: bool = False  # part of what the model returns


@dataclass(eq=False, repr=False)
class Node:
    """One operation on activations; `settings` are its arguments by name, a tensor's shape in place of the tensor."""

    index: int
    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    call: Call
    pointwise: bool
    settings: dict[str, Any]
    window: Window | None  # of the function that the model called, where its calls can be answered
    method: Method | None  # that called the function
    source: str  # file and line in the user's code
    norm: float | None = None  # of what a convolution takes in, where it has values
    turn: int | None = None  # of an activation, among those that the forward in `method` runs

    def reads_constant(self, axes: Iterable[int]) -> bool:
        """Whether a constant has a value for each place along one of `axes`, which count from the last one, below 0."""
        shapes = [shape for shape in self.settings.values() if isinstance(shape, torch.Size)]
        spread = [any(len(shape) >= -axis and shape[axis] > 1 for axis in axes) for shape in shapes]
        return sum(spread) > len(self.inputs)


class Method(NamedTuple):
    """A method of a module of the model, by the name that its class gives it; None where its class has none."""

    module: nn.Module
    name: str | None


@dataclass(eq=False, repr=False)
class Call:
    """One call of a module: it ran the nodes [start, end)."""

    module: nn.Module
    path: str | None  # None where the module is registered nowhere in the model
    parent: Call | None
    start: int
    input: Value | None  # the first positional argument, where it is a tensor
    activations: int = 0  # that ran before it
    activations_after: int = 0  # that ran until its end
    end: int = -1
    output: Value | None = None  # only where the output is one tensor

    def runs(self, node: Node) -> bool:
        """Whether `node` ran inside this call."""
        return self.start <= node.index < self.end


@dataclass(frozen=True)
class Output:
    """A tensor that the model returned; `norm` is None where it has no values."""

    shape: tuple[int, ...]
    norm: float | None


@dataclass(eq=False, repr=False)
class Trace:
    """One forward pass."""

    nodes: list[Node]
    calls: list[Call]
    outputs: list[Output]
    paths: dict[nn.Module, str]  # of all modules of the model; the first, where one has several

    def calls_of(self, module: nn.Module) -> list[Call]:
        """The calls of `module`, in order."""
        return [call for call in self.calls if call.module is module]

    @property
    def convolutions(self) -> list[Node]:
        """All convolutions but those inside a blur."""
        return [node for node in self.nodes if node.op == "convolution"]


def is_blur_layer(module: nn.Module) -> bool:
    """Whether `module` is an anti-aliasing layer: one of ours, timm's, kornia's, ..., which all bear the same name."""
    if getattr(module, "anti_aliases", False):
        return True
    return any("blurpool" in owner.__name__.lower() for owner in type(module).__mro__)
