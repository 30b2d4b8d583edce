"""An audit of conversions that shares nothing with `dealias.convert`: it reads the graph that `torch.export` makes.

A network subsamples where a convolution, a pooling or a slice has a stride, or a resampling makes a map smaller. Such
an operation is a blur if it is a convolution of each channel by itself, with one symmetric kernel of positive weights
that sum to 1 and that depends on no parameter.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Node

Sample = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Kind, stride and size of what comes out."""

KINDS = ("conv", "max_pool", "avg_pool", "adaptive_pool", "interpolate", "slice", "pixel_unshuffle", "unfold")


def sampling(model: nn.Module, example: Any) -> tuple[Counter[Sample], int]:
    """All operations of `model` that subsample, and the number of blurs (which are not among them).

    `example` is what the model is called with: a tensor, a tuple of positional or a dict of keyword arguments.
    """
    positional = () if isinstance(example, dict) else example if isinstance(example, tuple) else (example,)
    keywords = example if isinstance(example, dict) else {}
    program = torch.export.export(model, positional, keywords, strict=False)
    tensors = {**program.state_dict, **program.constants}
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    parameters = set(signature.inputs_to_parameters)
    given = {node for node in program.graph.nodes if node.name in signature.user_inputs}  # and what comes of them
    found: Counter[Sample] = Counter()
    blurs = 0
    for node in program.graph.nodes:
        if given.isdisjoint(node.all_input_nodes):  # such as a mask of ones
            continue
        given.add(node)
        if node.op != "call_function" or (sample := _sample(node)) is None:
            continue
        if sample[0] == "conv" and _is_blur(node, names, tensors, parameters):
            blurs += 1
        else:
            found[sample] += 1
    return found, blurs


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple((value[0] if isinstance(value, tuple | list) else value).shape)


def _sample(node: Node) -> Sample | None:
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    if name in ("conv1d", "conv2d", "conv3d", "max_pool1d", "max_pool2d", "max_pool3d") or "avg_pool" in name:
        if name.startswith(("adaptive_", "_adaptive_")):
            return _smaller("adaptive_pool", node)
        return _strided(name[:-2], int(name[-2]), node)
    if name.startswith("max_pool"):
        return _strided("max_pool", int(name.partition("d")[0][-1]), node)
    if "adaptive_max_pool" in name:
        return _smaller("adaptive_pool", node)
    if "upsample" in name:
        return _smaller("interpolate", node)
    if name == "pixel_unshuffle":
        return _smaller("pixel_unshuffle", node)
    if name == "im2col":
        return _unfolded(node)
    if name == "unfold":
        return _unfolded_axis(node)
    return _sliced(node) if name == "slice" else None


def _arguments(node: Node) -> dict[str, Any]:
    operation: Any = node.target
    names = [argument.name for argument in operation._schema.arguments]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _strided(kind: str, spatial: int, node: Node) -> Sample | None:
    arguments = _arguments(node)
    stride = arguments.get("stride") or arguments.get("kernel_size") or 1
    stride = (stride,) * spatial if isinstance(stride, int) else tuple(stride)
    stride = stride * spatial if len(stride) == 1 else stride
    return (kind, stride, _shape(node)[-spatial:]) if max(stride) > 1 else None


def _smaller(kind: str, node: Node) -> Sample | None:
    before, after = _shape(node.args[0])[2:], _shape(node)[2:]
    if set(after) == {1} or not any(new < old for old, new in zip(before, after, strict=True)):
        return None
    return kind, tuple(max(round(old / new), 1) for old, new in zip(before, after, strict=True)), after


def _unfolded(node: Node) -> Sample | None:
    arguments = _arguments(node)
    stride = tuple(arguments["stride"])
    numbers = zip(
        _shape(node.args[0])[-2:],
        *(arguments[name] for name in ("kernel_size", "dilation", "padding", "stride")),
        strict=True,
    )
    sizes = tuple(
        (size + 2 * pad - dilation * (taps - 1) - 1) // step + 1 for size, taps, dilation, pad, step in numbers
    )
    return ("unfold", stride, sizes) if max(stride) > 1 and set(sizes) != {1} else None


def _unfolded_axis(node: Node) -> Sample | None:
    """`Tensor.unfold` along one axis of pixels; earlier ones along other axes have added axes at the end."""
    arguments, source = _arguments(node), cast(Node, node.args[0])
    while str(source.target).startswith("aten.unfold"):
        source = cast(Node, source.args[0])
    shape, axis, step = _shape(node), arguments["dimension"] % len(_shape(node.args[0])), arguments["step"]
    axes = range(2, len(_shape(source)))
    if step == 1 or axis not in axes or shape[axis] == 1:
        return None
    return "unfold", tuple(step if one == axis else 1 for one in axes), tuple(shape[one] for one in axes)


def _steps(node: Node) -> dict[int, int]:
    """Steps by axis, over a chain of slices that ends here."""
    steps: dict[int, int] = {}
    while str(node.target).startswith("aten.slice"):
        arguments = _arguments(node)
        axis = arguments.get("dim", 0) % len(_shape(node))
        if arguments.get("step", 1) > 1:
            steps[axis] = arguments["step"]
        node = cast(Node, node.args[0])
    return steps


def _sliced(node: Node) -> Sample | None:
    if _arguments(node).get("step", 1) == 1 or any(
        str(user.target).startswith("aten.slice") and _arguments(user).get("step", 1) > 1 for user in node.users
    ):
        return None
    steps, shape = _steps(node), _shape(node)
    if len(shape) < 3 or 0 in steps or set(steps) in ({1}, {len(shape) - 1}):  # batches, channels, features
        return None
    first = 1 if 1 in steps else 2
    axes = range(first, max(len(shape) - (2 - first), first + 1))
    return "slice", tuple(steps.get(axis, 1) for axis in axes), tuple(shape[axis] for axis in axes)


def _is_blur(node: Node, names: dict[str, str], tensors: dict[str, Any], parameters: set[str]) -> bool:
    arguments = _arguments(node)
    weight = arguments["weight"]
    if arguments.get("groups", 1) != _shape(arguments["input"])[1] or _shape(weight)[1] != 1:
        return False
    sources, waiting = set(), [weight]
    while waiting:
        one = waiting.pop()
        if one.op in ("placeholder", "get_attr"):
            sources.add(one.name)
        waiting += one.all_input_nodes
    if sources & parameters:
        return False
    values = [tensors[names[name]].double().flatten() for name in sources if names.get(name) in tensors]
    return bool(values) and all(map(_is_low_pass, values))  # the taps of each axis


def _is_low_pass(values: Tensor) -> bool:
    """One axis of taps, or a buffer with the kernels of all channels."""
    total = float(values.sum())
    return bool((values > 0).all() and torch.allclose(values, values.flip(0)) and abs(total - round(total)) < 1e-4)
