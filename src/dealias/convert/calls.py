"""Layers that answer function calls inside a module's method, where there is no layer to change.

Whatever surrounds the call still runs; only the call itself goes to one of these layers, which have no state.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from dealias.convert.layers import Blurring
from dealias.convert.windows import FUNCTIONS, Window, window_of
from dealias.errors import InputError
from dealias.filters import IDEAL
from dealias.functional import apply_blur

torch.fx.wrap("apply_blur")

CALLS = "antialias_calls"
"""The name of the child that holds a module's layers for its function calls."""

_Layer: TypeAlias = nn.Module | None


class Answers(nn.ModuleList):
    """The layers that answer the function calls of one module, and the methods that make these calls."""

    def __init__(self) -> None:
        super().__init__()
        self.methods: set[tuple[type[nn.Module], str]] = set()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch leaves this one untyped
        for owner, method in self.methods:  # in the process that unpickles them, nothing is wrapped yet
            _wrap(owner, method)

    def __prepare_scriptable__(self) -> NoReturn:
        raise InputError(
            "torch.jit.script cannot compile an anti-aliased model: use torch.jit.trace or torch.export in its place"
        )


class PoolCall(nn.Module):
    """A layer in place of all poolings and resamplings with one window."""

    def __init__(self, window: Window, layer: nn.Module) -> None:
        super().__init__()
        self.window, self.layer = window, layer

    def forward(self, function: Callable[..., Tensor], arguments: dict[str, Any]) -> Any:
        """Pool `arguments["input"]`; a function that returns indices too gets none."""
        pooled = self.layer(arguments["input"])
        return (pooled, None) if FUNCTIONS[function].pair else pooled

    def extra_repr(self) -> str:
        """Which calls it answers."""
        return str(self.window)


class SliceCall(nn.Module):
    """A blur in front of strided slices with one window."""

    anti_aliases = True

    def __init__(self, window: Window, blurring: Blurring) -> None:
        super().__init__()
        self.window, self.blurring = window, blurring
        # attributes of its own, which torch.compile takes as constants
        self.index, self.padding_mode = window.rest, blurring.padding_mode
        self.steps = tuple(part[1] for part in window.rest if part is not Ellipsis and (part[1] or 1) > 1)
        self.taps = blurring.taps(self.steps)

    def forward(self, function: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        """Blur the axes of `arguments["input"]` along which `arguments["index"]` takes steps, then take them."""
        x, parts = arguments["input"], _spread(arguments["index"], arguments["input"].ndim, slice(None))
        known = _spread(self.index, x.ndim, (None, None))
        axes = [axis for axis, (_, step) in enumerate(known) if (step or 1) > 1]
        whole = all(not known[axis][0] and parts[axis].stop is None for axis in axes)
        if not whole and IDEAL in self.taps:  # it filters and subsamples at once, from index 0: roll the start there
            taken = {axis: range(x.shape[axis])[parts[axis]] for axis in axes}
            blurred = self.blur(x.roll([-taken[axis].start for axis in axes], axes), axes, True)
            kept = (slice(len(taken[axis])) if axis in taken else part for axis, part in enumerate(parts))
            return function(blurred, tuple(kept))
        blurred = self.blur(x, axes, whole)
        if whole:  # these steps are taken
            parts = [slice(None) if axis in axes else part for axis, part in enumerate(parts)]
        return function(blurred, tuple(parts))

    def blur(self, x: Tensor, axes: list[int], subsample: bool) -> Tensor:
        """Blur `x` along `axes`, and take the steps too if `subsample` is set."""
        if axes[0] > 1 and x.ndim < 6:  # a map as it is: torch.compile loses track of sizes that are moved and merged
            numbers = [axes.index(axis) if axis in axes else None for axis in range(2, x.ndim)]
            taps = tuple((1.0,) if number is None else self.taps[number] for number in numbers)
            stride = tuple(1 if number is None or not subsample else self.steps[number] for number in numbers)
            return apply_blur(x, taps, stride, self.padding_mode)
        last = list(range(-len(axes), 0))
        lined = x.movedim(axes, last)
        rows = lined.reshape(1, -1, *lined.shape[-len(axes) :])
        stride = self.steps if subsample else (1,) * len(axes)
        blurred = apply_blur(rows, self.taps, stride, self.padding_mode)
        return blurred.reshape(*lined.shape[: -len(axes)], *blurred.shape[2:]).movedim(last, axes)

    def extra_repr(self) -> str:
        """Which calls it answers."""
        return f"{self.window}; {self.blurring}"


def _spread(index: Any, axes: int, whole: Any) -> list[Any]:
    """The part of each axis; `whole` where `index` says nothing."""
    parts = list(index) if isinstance(index, tuple) else [index]
    at = next((number for number, part in enumerate(parts) if part is Ellipsis), len(parts))
    missing = axes - sum(part is not Ellipsis for part in parts)
    return [*parts[:at], *[whole] * missing, *parts[at + 1 :]]


class ChangedCall(nn.Module):
    """All calls with one window, at another stride if one is given, with a layer in front or behind if there is one.

    Of activations `_Answering` makes the calls, which have few arguments in common.
    """

    def __init__(
        self, window: Window, stride: tuple[int, ...] = (), *, before: _Layer = None, after: _Layer = None
    ) -> None:
        super().__init__()
        self.window, self.stride, self.before, self.after = window, stride, before, after

    def forward(self, function: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        """Call `function` with these changes."""
        if self.before is not None:
            arguments = arguments | {"input": self.before(arguments["input"])}
        if self.stride:
            arguments = arguments | {"stride": self.stride}
        is_slice = self.window.kind == "slice"  # which takes no argument by name
        y = function(*arguments.values()) if is_slice else function(**arguments)
        return y if self.after is None else cast(Tensor, self.after(y))

    def extra_repr(self) -> str:
        """Which calls it answers, and at which stride."""
        return f"{self.window} made {self.stride}" if self.stride else str(self.window)


class _Answering(TorchFunctionMode):
    """Hands the function calls of a running method to `calls`; `turns` holds the number of activations so far."""

    def __init__(self, calls: nn.ModuleList, turns: list[int]) -> None:
        super().__init__()
        self.calls, self.turns = calls, turns

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in FUNCTIONS:
            return func(*args, **kwargs)
        if FUNCTIONS[func].kind == "activation":
            turn = self.turns[0]
            self.turns[0] = turn + 1
            return _activated(self.calls, turn, func, args, kwargs)
        window = window_of(func, args, kwargs)
        others: Any = self.calls if window is not None else ()
        for call in others:
            if call.window.matches(window):
                _refuse_checkpoints()
                return call(func, FUNCTIONS[func].arguments(args, kwargs))
        return func(*args, **kwargs)


def _at_activations(calls: nn.ModuleList) -> list[Any]:
    """The layers at activations; the window of each has its turn, and how many activations its forward runs."""
    return [call for call in calls if cast(Window, call.window).kind == "activation"]


def _activated(calls: nn.ModuleList, turn: int, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What activation number `turn` of a forward returns with the layers in front of it and behind it, in order."""
    here = [call for call in _at_activations(calls) if call.window.rest[0] == turn]
    if not here:
        return function(*args, **kwargs)
    _refuse_checkpoints()
    input, *rest = (kwargs.pop("input"), *args) if "input" in kwargs else args
    for call in here:
        input = input if call.before is None else call.before(input)
    activated = function(input, *rest, **kwargs)
    for call in here:
        activated = activated if call.after is None else call.after(activated)
    return activated


def _refuse_checkpoints() -> None:
    """See that no checkpoint stands between the method and the call: the call would run again without its method."""
    if torch.compiler.is_compiling():
        return
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and "answers_here" not in frame.f_code.co_varnames:
        if frame.f_code.co_filename == checkpoint.__file__:
            raise InputError(
                "torch.utils.checkpoint would run a function inside a forward of an anti-aliased model again, without "
                "its blurs: checkpoint a method of the module, or the module itself, not a nested function"
            )
        frame = frame.f_back


def _check_turns(calls: nn.ModuleList, turns: int, training: bool) -> None:
    """See that a forward ran as many activations as when its blurs were placed; in training it may run more."""
    wanted = {call.window.rest[1] for call in _at_activations(calls)}
    if any(turns < of if training else turns != of for of in wanted):
        raise InputError(
            f"a forward with a filter at one of its activations ran {turns} of them, not {max(wanted)} as for the "
            "example_input of antialias(): give the activation a module of its own"
        )


def _check_arguments(calls: nn.ModuleList, args: Sequence[Any]) -> None:
    """See that the slices among `calls` can be answered: `torch.fx` records slices out of sight."""
    if any(isinstance(one, torch.fx.Proxy) for one in args) and any(isinstance(call, SliceCall) for call in calls):
        raise InputError(
            "torch.fx would lose the blur of a strided slice: trace the model first, then convert the graph"
        )


def _wrap(owner: type[nn.Module], method: str) -> None:
    """Let the layers of a module of class `owner` answer in its `method`: once for the class."""
    function = getattr(owner, method)
    if getattr(function, "answers_calls", False):
        return

    def answering(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls: Any = self._modules.get("antialias_calls")
        if calls is None:
            return function(self, *args, **kwargs)
        check_arguments(calls, args)
        turns, answers_here = [0], True
        with mode(calls, turns):
            result = function(self, *args, **kwargs)
        if is_forward and answers_here:
            check(calls, turns[0], self.training)
        return result

    mode, check, check_arguments, is_forward = _Answering, _check_turns, _check_arguments, method == "forward"
    # with the globals of the method, where torch.jit.script looks up the names in its source
    wrapper = FunctionType(answering.__code__, function.__globals__, method, None, answering.__closure__)
    functools.update_wrapper(wrapper, function)
    wrapper.__dict__["answers_calls"] = True
    setattr(owner, method, wrapper)


def answer_calls(module: nn.Module, method: str | None, call: nn.Module, *, nearest: bool = False) -> None:
    """Let `call` answer the function calls with its window that `method` of `module` makes.

    Of layers at the same activation it is the `nearest` one if asked for, else the last of those behind.
    The method is wrapped in the class of the module, so that `torch.fx`, replicas and checkpointing, which call methods
    of the class, meet the wrapper too. It is None where a forward that a user put in its place makes the calls.
    """
    if CALLS not in module._modules:
        module.add_module(CALLS, Answers())
    answers = cast(Answers, module.get_submodule(CALLS))
    answers.insert(0 if nearest else len(answers), call)
    if method is not None:
        answers.methods.add((type(module), method))
        _wrap(type(module), method)
    elif not isinstance(module.__dict__.get("forward"), _Forward):
        module.forward = _Forward(module, module.__dict__.get("forward"))


class _Forward:
    """A forward that a user gave a module, in which the module's layers answer; it travels through copies."""

    def __init__(self, module: nn.Module, own: Callable[..., Any] | None) -> None:
        self.module, self.own = module, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Answering(cast(Answers, self.module.get_submodule(CALLS)), [0]):
            return self._original()(*args, **kwargs)

    # by which torch.export names the inputs, and its errors the place
    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._original())

    @property
    def __code__(self) -> CodeType:
        return cast(CodeType, self._original().__code__)

    def _original(self) -> Any:
        return self.own or type(self.module).forward.__get__(self.module)
