"""What a network does when it runs, for audits: it shares nothing with `dealias.convert`.

Any control flow will do, also where the data decide how many boxes there are. Operations are those that reach PyTorch's
dispatcher below autograd. A blur is a strided convolution of each channel by itself, with positive, symmetric taps that
depend on no parameter; blurs are recorded on the pure PyTorch path, as the convolutions that graphs hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dealias.ops import reference, use_backend

Sample = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Kind, stride and size of what comes out."""

NORMS = ("batch_norm", "group_norm", "layer_norm", "instance_norm")
# fmt: off
POINTWISE = (
    "add", "sub", "rsub", "mul", "div", "neg", "dropout", "permute", "transpose", "contiguous", "clone", "alias",
    "_to_copy", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "slice", "split", "split_with_sizes",
    "chunk", "narrow", "getitem", "channel_shuffle", "constant_pad_nd", "expand", "detach", "copy", "cat", "t",
    "convert_element_type", "select", "lift_fresh",
)
ACTIVATIONS = (
    "relu", "relu6", "silu", "gelu", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu", "selu", "celu",
    "sigmoid", "tanh", "softplus", "mish", "prelu", "_prelu_kernel", "clamp", "clamp_min", "clamp_max", "glu",
    "_softmax", "abs", "maximum", "minimum", "amax", "max", "threshold", "rrelu", "rrelu_with_noise",
    "log_sigmoid_forward", "exp", "pow", "sqrt", "softsign", "softshrink", "hardshrink", "logit", "erf",
)
# fmt: on
EMPTY = ("new_empty", "empty", "empty_like")  # memory that something is written to, as circular padding does


@dataclass(eq=False)
class Operation:
    """One operation that ran: its name without the overload and the trailing underscore, and who reads its result."""

    name: str
    arguments: dict[str, Any]  # tensors are replaced by their `Operation` (None for one that no operation made)
    sizes: list[tuple[int, ...]]  # of the tensors that it returns
    parameter: str = ""  # for a leaf: its name in the network
    values: Tensor | None = None  # for a leaf that is no parameter
    users: list[Operation] = field(default_factory=list)

    @property
    def inputs(self) -> list[Operation]:
        """What it reads, in order."""
        return [one for one in tree_leaves(list(self.arguments.values())) if isinstance(one, Operation)]

    @property
    def size(self) -> tuple[int, ...]:
        """Of the first tensor that it returns."""
        return self.sizes[0] if self.sizes else ()


class Recorder(TorchDispatchMode):
    """Notes all operations in order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._makers: dict[int, Operation] = {}
        self._kept: list[Any] = [model]  # no id is given out twice while the network runs

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and note it."""
        given = dict(zip((one.name for one in func._schema.arguments), args, strict=False)) | dict(kwargs or {})
        arguments = {name: torch.utils._pytree.tree_map_only(Tensor, self._maker, one) for name, one in given.items()}
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        tensors = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        operation = Operation(name.removesuffix("_") or name, arguments, [tuple(one.shape) for one in tensors])
        for source in dict.fromkeys(operation.inputs):
            source.users.append(operation)
        self.operations.append(operation)
        for tensor in tensors:
            self._makers[id(tensor)] = operation
            if name.endswith("_") and tensor._base is not None:  # written through a view
                self._makers[id(tensor._base)] = operation
        self._kept.append(result)
        return result

    def _maker(self, tensor: Tensor) -> Operation:
        if id(tensor) not in self._makers:
            name = self._names.get(id(tensor), "")
            leaf = Operation("", {}, [tuple(tensor.shape)], name, None if name else tensor)
            self._makers[id(tensor)] = leaf
            self._kept.append(tensor)
        return self._makers[id(tensor)]


def record(model: nn.Module, call: Callable[[nn.Module], Any]) -> list[Operation]:
    """All operations of `call(model)`, without gradients."""
    as_convolutions = mock.patch.object(reference, "_uses_convolutions", return_value=True)
    with torch.no_grad(), use_backend("reference"), as_convolutions, Recorder(model) as recorder:
        call(model)
    return recorder.operations


def sampling(operations: Sequence[Operation]) -> tuple[Counter[Sample], int]:
    """The strided convolutions and poolings that ran, and the number of blurs (which are not among them)."""
    found: Counter[Sample] = Counter()
    blurs = 0
    for operation in operations:
        if (sample := _sample(operation)) is None:
            continue
        if is_blur(operation):
            blurs += 1
        else:
            found[sample] += 1
    return found, blurs


def _sample(operation: Operation) -> Sample | None:
    name, arguments = operation.name, operation.arguments
    if name == "convolution" and not arguments["transposed"]:
        kind = "conv"
    elif name.startswith(("max_pool", "avg_pool")):
        kind = name[:8]
    else:
        return None
    axes = len(operation.size) - 2
    if name[8:10] in ("1d", "2d", "3d"):
        axes = int(name[8])
    stride = tuple(arguments.get("stride") or arguments["kernel_size"])
    stride = stride * axes if len(stride) == 1 else stride
    return (kind, stride, operation.size[-axes:]) if max(stride) > 1 else None


def is_blur(operation: Operation) -> bool:
    """Whether it is a strided low-pass filter of each channel by itself."""
    if operation.name != "convolution" or _sample(operation) is None:
        return False
    image, weight = operation.arguments["input"], operation.arguments["weight"]
    if operation.arguments["groups"] != image.size[1] or weight.size[1] != 1:
        return False
    leaves = list(_leaves(weight))
    if any(leaf.parameter for leaf in leaves):
        return False
    values = [leaf.values.double().flatten() for leaf in leaves if leaf.values is not None and not leaf.values.is_meta]
    return all(bool((one > 0).all() and torch.allclose(one, one.flip(0))) for one in values)


def _leaves(operation: Operation) -> Iterator[Operation]:
    if not operation.inputs:
        yield operation
    for source in operation.inputs:
        yield from _leaves(source)


def early_blurs(operations: Sequence[Operation], strided: set[str]) -> list[str]:
    """The blurs that stand in front of a non-linearity and could stand behind it; `strided` are weights' names.

    Two kinds of blur are looked at: one whose map comes from convolutions with nothing but norms and pointwise linear
    operations in between, and one right in front of a 1x1 convolution that had a stride (its weight is in `strided`).
    The blur stands wrong where all that reads its map, or that convolution's, is such linear operations up to a
    non-linearity. Where it is added to a map that no blur made smaller, it cannot stand further behind.
    """
    wrong = []
    for number, operation in enumerate(operations):
        if is_blur(operation):
            sources = set(_sources(operation.arguments["input"]))
            if sources and all(source.name == "convolution" and not is_blur(source) for source in sources):
                start = operation
            else:
                continue
        elif _is_small(operation) and _weight_name(operation) in strided:
            if not all(map(is_blur, _sources(operation.arguments["input"]))):
                continue
            start = operation
        else:
            continue
        if (behind := _activation_behind(start, operations[number + 1 :], strided)) is not None:
            names = sorted({_weight_name(one) for one in ([start, *_sources(start.arguments["input"])])} - {""})
            wrong.append(f"blur at {', '.join(names)}: {start.size} -> {behind.name}")
    return wrong


def strided_weights(operations: Sequence[Operation]) -> set[str]:
    """The weights of the convolutions that have a stride."""
    return {_weight_name(one) for one in operations if one.name == "convolution" and _sample(one)} - {""}


def _weight_name(operation: Operation) -> str:
    if operation.name != "convolution":
        return ""
    return next((leaf.parameter for leaf in _leaves(operation.arguments["weight"]) if leaf.parameter), "")


def _is_small(operation: Operation) -> bool:
    return operation.name == "convolution" and set(operation.arguments["weight"].size[2:]) == {1}


def _is_linear(operation: Operation) -> bool:
    return operation.name in POINTWISE or any(norm in operation.name for norm in NORMS) or "pad" in operation.name


def _maps(operation: Operation) -> list[Operation]:
    """The inputs that are maps: no parameter, no constant, no empty memory, more than a pixel."""
    inputs = operation.inputs
    if any(norm in operation.name for norm in NORMS):
        inputs = inputs[:1]
    return [one for one in inputs if one.name and not _is_empty(one) and not _is_pixel(one)]


def _is_empty(operation: Operation) -> bool:
    return operation.name in EMPTY or (operation.name == "slice" and all(map(_is_empty, operation.inputs)))


def _is_pixel(operation: Operation) -> bool:
    return len(operation.size) < 3 or (len(operation.size) > 2 and set(operation.size[2:]) == {1})


def _sources(operation: Operation, strided: Collection[str] = ()) -> Iterator[Operation]:
    """Where a map comes from, norms, pointwise linear operations and the 1x1 convolutions `strided` left out."""
    waiting, seen = [operation], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if _is_linear(one) and _maps(one):
            waiting += _maps(one)
        elif strided and _is_small(one) and _weight_name(one) in strided:
            waiting.append(one.arguments["input"])
        else:
            yield one


def _activation_behind(start: Operation, later: Sequence[Operation], strided: set[str]) -> Operation | None:
    """The non-linearity to which all leads that reads the map of `start`; None if anything else reads it."""
    linear, nonlinear = {start}, set()
    for operation in later:
        reads = [one for one in operation.inputs if one in linear]
        if not reads or _is_pixel(operation):  # statistics of a gate are no map
            continue
        others = [one for one in _maps(operation) if one not in linear]
        product = operation.name == "mul" and (len(reads) > 1 or any(one in nonlinear for one in others))
        if operation.name in ACTIVATIONS or product:
            nonlinear.add(operation)
        elif _is_linear(operation) and all(is_blur(source) for other in others for source in _sources(other, strided)):
            linear.add(operation)
        else:
            return None
    return next(iter(nonlinear), None)
