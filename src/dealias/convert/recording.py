"""Record one forward pass of a network: every operation on its activations, and the module call that it ran in.

The pass really runs, so any control flow, any kind of output and any device (meta too) will do.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from dealias.convert.trace import BLUR, DOUBLE, HALVE, Call, Method, Node, Output, Trace, Value, is_blur_layer
from dealias.convert.windows import Window, window_of
from dealias.errors import InputError, InputTypeError, printable

ExampleInput: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with: a tensor, a tuple of positional arguments or a dict of keyword arguments."""

_WINDOWED = ("convolution", "_pool")
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"  # not torchvision beside it
_OURS = ("dealias.ops", "dealias.functional", "dealias.convert", "dealias.nn")
_GRAPHS = "dealias.convert.graphs"  # the operations of a graph are the user's


class _Recorder(TorchDispatchMode):
    """Notes each operation; those inside a blur (`opaque` is its call) count as one."""

    def __init__(self, model: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves this one untyped
        self.paths = {module: path for path, module in model.named_modules()}
        self.constants: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
        for tensor in (*model.parameters(), *model.buffers()):
            self.constants[tensor] = True
        self.values: MutableMapping[Tensor, Value] = WeakTensorKeyDictionary()
        for tensor in inputs:
            self.values[tensor] = Value(tuple(tensor.shape), tensor.dtype)
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.stack: list[Call] = []
        self.opaque: Call | None = None
        self.window: Window | None = None
        self.activations = 0  # that ran so far
        self.functional: FrameType | None = None  # the last call of a function of dealias.functional

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        first = args[0] if args and isinstance(args[0], Tensor) else None
        value = None if first is None else self.values.get(first)
        parent = self.stack[-1] if self.stack else None
        call = Call(module, self.paths.get(module), parent, len(self.nodes), value, self.activations)
        self.stack.append(call)
        self.calls.append(call)  # in a blur too: a hook in front of it may run one
        if self.opaque is None and is_blur_layer(module):
            self.opaque = call

    def leave(self, module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        call = self.stack.pop()
        if self.opaque is call:
            self.opaque = None
            if isinstance(output, Tensor) and call.input is not None:
                self.add(getattr(module, "rate_operation", BLUR), (call.input,), (output,), call)
        elif self.opaque is not None and self.opaque is call.parent and getattr(module, "is_anchor", False):
            self.opaque.input = None  # the anchor hangs in front of the blur, and is no part of it
            if isinstance(output, Tensor) and call.input is not None:
                self.add(BLUR, (call.input,), (output,), call)
                self.opaque.input = self.values[output]
        call.end, call.activations_after = len(self.nodes), self.activations
        if isinstance(output, Tensor):
            call.output = self.values.get(output)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # there, composite operations arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if self.opaque is None and self.stack:
            self.note(func, args, kwargs, result)
        elif self.opaque is not None and self.opaque.input is None:  # called by keyword, which hooks do not see
            read = (self.values.get(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            self.opaque.input = next(filter(None, read), None)
        return result

    def caller(self) -> tuple[str, Method | None, FrameType | None]:
        """Who runs the operation: file and line, the method of the model, and the function of dealias.functional."""
        frame, functional, source = sys._getframe(1), None, ""
        while frame.f_back is not None:
            name = frame.f_globals.get("__name__", "")
            if name == "dealias.functional" and frame.f_code.co_name.startswith("apply_"):
                functional = frame
            if (not name.startswith(_OURS) or name == _GRAPHS) and not frame.f_code.co_filename.startswith(_TORCH):
                source = source or f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                if self.window is None:
                    return source, None, functional
                method = _called_method(frame)
                if method is not None and method.module in self.paths:
                    return source, method, functional
            frame = frame.f_back
        return source, None, functional

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        op = func._schema.name.partition("::")[2]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        windowed = any(name in op for name in _WINDOWED)
        if windowed and tensors and tensors[0] not in self.values and tensors[0] not in self.constants:
            # the model hid its input from us, e.g. in a container of its own
            self.values[tensors[0]] = Value(tuple(tensors[0].shape), tensors[0].dtype)
        inputs = tuple(self.values[tensor] for tensor in tensors if tensor in self.values)
        if not inputs:
            return
        known = func._schema.arguments
        settings = {argument.name: argument.default_value for argument in known if argument.has_default_value()}
        settings |= dict(zip((argument.name for argument in known), args, strict=False)) | kwargs
        settings = {name: value.shape if isinstance(value, Tensor) else value for name, value in settings.items()}
        outputs = tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        if op == "convolution" and len(tensors) > 1 and _is_blur_kernel(tensors[1], settings["groups"]):
            self.add(BLUR, inputs[:1], outputs, self.stack[-1])  # in the graph of a converted model
            return
        in_place = op.endswith("_") and not op.startswith("_")
        pointwise, norm = torch.Tag.pointwise in func.tags, norm_of(tensors[0]) if op == "convolution" else None
        name = op.rstrip("_") if in_place else op
        self.add(name, inputs, outputs, self.stack[-1], pointwise=pointwise, settings=settings, norm=norm)
        if in_place and outputs and outputs[0]._base is not None:  # written through a view
            self.values[outputs[0]._base] = self.values[outputs[0]]

    def add(
        self,
        op: str,
        inputs: tuple[Value, ...],
        outputs: tuple[Tensor, ...],
        call: Call,
        *,
        pointwise: bool = False,
        settings: dict[str, Any] | None = None,
        norm: float | None = None,
    ) -> None:
        settings = settings or {}
        depth = max(value.depth for value in inputs) + (op == "convolution")
        values = tuple(Value(tuple(tensor.shape), tensor.dtype, depth=depth) for tensor in outputs)
        source, method, functional = self.caller() if op not in (BLUR, DOUBLE, HALVE) else ("", None, None)
        if functional is not None and functional is self.functional:  # the first of its operations stands for all
            node = self.nodes[-1]
            node.outputs = values
        else:
            if functional is not None:
                self.functional, op, settings, norm = functional, BLUR, {}, None
            index, window = len(self.nodes), self.window
            node = Node(index, op, inputs, values, call, pointwise, settings, window, method, source, norm)
            if method is not None and method.name == "forward" and window == Window("activation"):
                running = next((one for one in reversed(self.stack) if one.module is method.module), None)
                node.turn = None if running is None else self.activations - running.activations
            self.nodes.append(node)
            for value in dict.fromkeys(inputs):
                value.consumers.append(node)
        for tensor, value in zip(outputs, values, strict=True):
            value.producer = node
            self.values[tensor] = value


def _is_blur_kernel(weight: Tensor, groups: int) -> bool:
    """Whether a convolution's `weight` is no parameter but one low-pass filter for all channels."""
    if isinstance(weight, nn.Parameter) or weight.is_meta or groups != len(weight) or weight[0].numel() in (0, 1):
        return False
    kernel = weight[0].detach().double()
    even = torch.equal(kernel, kernel.flip(list(range(1, kernel.ndim)))) and bool((kernel > 0).all())
    return even and abs(float(kernel.sum()) - 1) < 1e-3 and bool((weight == weight[:1]).all())


class _Functions(TorchFunctionMode):
    """Tells a recorder which function runs; those that it calls in turn are out of sight, as for what answers calls."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        window = self.recorder.window = window_of(func, args, kwargs or {})
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.recorder.window = None
            self.recorder.activations += window is not None and window.kind == "activation"


def norm_of(tensor: Tensor) -> float | None:
    """The Euclidean norm of a tensor; None where it has no values, or none that a norm is taken of."""
    if tensor.is_meta or not tensor.is_floating_point() or type(tensor) not in (Tensor, nn.Parameter):
        return None
    return float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64))


def _called_method(frame: FrameType) -> Method | None:
    """The method of a module that runs in `frame`; None where the class of the module has no such method."""
    code = frame.f_code
    module = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
    if not isinstance(module, nn.Module):
        return None
    function = getattr(type(module), code.co_name, None)
    if not callable(function) or getattr(inspect.unwrap(function), "__code__", None) is not code:
        return None
    return Method(module, code.co_name)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training flags, buffers and random state are as before when it ends."""
    modules = list(model.modules())
    flags = [module.training for module in modules]
    buffers = [
        (module, name, buffer, buffer.clone(), buffer._version)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    gpus = sorted({parameter.get_device() for parameter in model.parameters() if parameter.is_cuda})
    with torch.random.fork_rng(devices=gpus), torch.no_grad():
        try:
            for module in modules:  # not model.eval(), which a model may have made something else
                module.training = False
            yield
        finally:
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            for module, name, buffer, saved, version in buffers:
                module._buffers[name] = buffer
                if buffer._version != version:
                    buffer.copy_(saved)


def _describe(example: Any) -> str:
    if isinstance(example, Tensor):
        dtype = str(example.dtype).removeprefix("torch.")
        return f"a tensor of shape {tuple(example.shape)}, {dtype} on {example.device}"
    if isinstance(example, tuple):
        return f"({', '.join(map(_describe, example))})"
    if isinstance(example, Mapping):
        return f"{{{', '.join(f'{key!r}: {_describe(value)}' for key, value in example.items())}}}"
    return repr(example) if isinstance(example, bool | int | float | str | None) else f"a {type(example).__name__}"


def call_arguments(example: ExampleInput) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that `example` stands for."""
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping) and all(isinstance(key, str) for key in example):
        return (), dict(example)
    raise InputTypeError(
        f"example_input is {_describe(example)}: give a tensor, a tuple of the model's positional arguments or a dict "
        "of its keyword arguments"
    )


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):  # torch.compile's wrapper
        raise InputTypeError(f"model is a {type(model).__name__}: convert the original model, then compile it")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise InputError(f"model has a lazy parameter, {name}, without a shape: run the model once before")


def record(model: nn.Module, example_input: ExampleInput) -> Trace:
    """Run `model` on `example_input` in evaluation mode and record what it did; the model is as before afterwards.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> [(node.op, node.call.path) for node in record(model, torch.rand(1, 3, 8, 8)).nodes]
    [('convolution', '0'), ('relu', '1')]

    Raises:
        InputError: `model` is no module that can be traced, or raised an error on `example_input`.
        InputTypeError: `model` or `example_input` is of the wrong type.
    """
    _check_model(model)
    args, kwargs = call_arguments(example_input)
    recorder = _Recorder(model, [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)])
    with undisturbed(model), ExitStack() as hooks:
        hooks.callback(register_module_forward_pre_hook(recorder.enter).remove)
        hooks.callback(register_module_forward_hook(recorder.leave, always_call=True).remove)
        try:
            with recorder, _Functions(recorder):
                output = model(*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"example_input={_describe(example_input)} is not what {type(model).__name__} takes: it raised "
                f"{type(error).__name__}: {printable(' '.join(str(error).split()))[:1000]}"
            ) from error
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    for tensor in tensors:
        if tensor in recorder.values:
            recorder.values[tensor].returned = True
    outputs = [Output(tuple(one.shape), norm_of(one)) for one in tensors]
    return Trace(recorder.nodes, recorder.calls, outputs, recorder.paths)
