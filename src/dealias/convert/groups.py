"""The operations that one change of a model covers, and what can be done to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from dealias.convert.downsampling import Spot
from dealias.convert.edits import AnswerConv, AnswerPool, Edit, SetStride, WholeMap
from dealias.convert.layers import CONVERTED
from dealias.convert.placement import caller_of
from dealias.convert.trace import Call, Trace, Value
from dealias.convert.windows import Window

ALL: Literal["all"] = "all"
"""In place of `stem=True`, for ideal filters: no convolution keeps a stride or returns a map that is cut short."""
Stem: TypeAlias = bool | Literal["all"]


class Group:
    """All spots where one layer subsamples, or where one module makes the same function call."""

    def __init__(self, trace: Trace, spots: Sequence[Spot], stem: Stem, recipe: str) -> None:
        self.trace, self.spots, self.stem, self.recipe = trace, tuple(spots), stem, recipe
        first = self.spots[0]
        self.kind, self.stride = first.kind, first.stride
        self.is_layer = first.call is not None
        self.module: Any = first.call.module if first.call is not None else caller_of(first.node).module
        self.path = trace.paths[self.module]

    @property
    def window(self) -> Window:
        """The arguments of the first call."""
        return self.spots[0].window

    @property
    def is_stem(self) -> bool:
        """Whether it is the first convolution."""
        return self.kind == "conv" and any(spot.source.depth == 0 for spot in self.spots)

    @property
    def stays(self) -> bool:
        """Whether it is the stem and left alone; the paper's networks blur a stem of stride 4."""
        return self.is_stem and not self.stem and (self.recipe != "zhang2019" or set(self.stride) != {4})

    @property
    def is_global(self) -> bool:
        """Whether its window covers the whole map, so that it returns a single pixel and subsamples nothing."""
        return all(
            set(spot.output_size) == {1}
            and all(taps >= size for taps, size in zip(spot.window.kernel, spot.input_size, strict=True))
            for spot in self.spots
        )

    @property
    def caller(self) -> tuple[str, str | None]:
        """The path of the module, and the method of it that calls the function; for a layer, its own forward."""
        method = self.spots[0].node.method
        return self.path, method.name if method is not None and method.module is self.module else None

    @property
    def steps(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The stride that a convolution keeps, and the stride of the blur.

        A stem of stride 4 or more keeps half of it, unless asked for: a dense one would cost 16 times as much.
        """
        if self.is_stem and self.stem != ALL and max(self.stride) > 3 and all(step % 2 == 0 for step in self.stride):
            return tuple(step // 2 for step in self.stride), (2,) * len(self.stride)
        return (1,) * len(self.stride), self.stride

    @property
    def answered(self) -> bool:
        """Whether to answer function calls: there is no layer, or the layer's own forward computes with its stride."""
        if not self.is_layer:
            return True
        has_own_forward = not type(self.module).forward.__module__.startswith(("torch.nn.modules", "dealias.convert"))
        if self.kind != "conv":
            return has_own_forward
        return has_own_forward and any(
            spot.window.stride != tuple(self.module.stride) or self._pads(spot) for spot in self.spots
        )

    def _pads(self, spot: Spot) -> bool:
        """Whether the layer pads its input by itself."""
        call = spot.call
        nodes = self.trace.nodes[call.start : call.end] if call is not None else []
        return self.module.padding_mode == "zeros" and any("pad" in node.op for node in nodes)

    def densify(self) -> Edit | None:
        """The edit that makes it compute every pixel; None where another stride would not do."""
        kept, _ = self.steps
        if self.kind == "conv":
            if self.problem is not None:
                return None
            if self.answered:
                return AnswerConv(*self.caller, self.window, kept)
            return WholeMap(self.path, kept, self._missing) if any(self._missing) else SetStride(self.path, kept)
        if self.kind not in ("max_pool", "avg_pool") or self.window.ceil_mode or self.uses_indices:
            return None
        if self.answered:
            return None if self.problem is not None else AnswerPool(*self.caller, self.window, dense=True)
        return SetStride(self.path, kept)

    @property
    def _missing(self) -> tuple[int, ...]:
        """The samples on each axis by which the dense map of a convolution without a border falls short of its input.

        That is so for kernels as long as their stride without padding, and even ones. Only ideal filters mind.
        """
        padded = self.module.padding_mode != "circular" and any(self.module._reversed_padding_repeated_twice)
        if self.stem != ALL or type(self.module) not in CONVERTED or padded:
            return ()
        own = self.module._reversed_padding_repeated_twice[::-1]
        missing = set()
        for spot in self.spots:
            axes = zip(spot.input_size, self.module.kernel_size, self.module.dilation, own[::2], own[1::2], strict=True)
            short = [gap * (taps - 1) - before - after for _, taps, gap, before, after in axes]
            whole = all(
                n == m * step for n, m, step in zip(spot.input_size, spot.output_size, self.stride, strict=True)
            )
            fits = all(0 <= one <= n for one, n in zip(short, spot.input_size, strict=True))
            missing.add(tuple(short) if whole and fits else ())
        return missing.pop() if len(missing) == 1 else ()

    @property
    def problem(self) -> str | None:
        """Why the stride cannot be changed, if so."""
        if self.answered:
            return self.unanswerable
        if len(self.trace.calls_of(self.module)) != len(self.spots):
            return "the layer does not subsample once on each call"
        if self.kind == "conv" and any(spot.window.stride != tuple(self.module.stride) for spot in self.spots):
            return "the layer convolves at another stride than that of its attribute"
        return None

    @property
    def unanswerable(self) -> str | None:
        """Why no layer can answer the calls, where one has to and cannot."""
        if not self.answered:
            return None
        for spot in self.spots:
            if spot.node.window is None or spot.node.window.kind == "activation":
                return f"{self.title} is made by {spot.node.op}, whose calls no layer can answer"
        if len({spot.window for spot in self.spots}) > 1:
            return f"{self.title} makes calls of several kinds"
        if len({spot.node.method and spot.node.method.name for spot in self.spots}) > 1:
            return f"{self.title} is called by several methods"
        if self.is_layer and len(self.trace.calls_of(self.module)) != len(self.spots):
            return "the layer does not subsample once on each call"
        return None

    @property
    def title(self) -> str:
        """The layer, or the function and where it is called."""
        if self.is_layer:
            return type(self.module).__name__
        where = f"`{self.path}` ({type(self.module).__name__})" if self.path else type(self.module).__name__
        node = self.spots[0].node
        what = f"{self.kind} by {node.op}" if self.kind == "unknown" else self.kind
        return f"{what} in {where}{f', {node.source}' if node.source else ''}"

    @property
    def uses_indices(self) -> bool:
        """Whether the indices of maxima are used."""
        if "max" not in self.spots[0].node.op:
            return False
        return any(len(spot.node.outputs) > 1 and _is_used(spot.node.outputs[1]) for spot in self.spots)

    @property
    def has_scale_factor(self) -> bool:
        """Whether a resampling is given a factor, not a size."""
        if self.is_layer:
            return self.module.size is None
        window = self.spots[0].node.window
        return window is not None and window.rest[0] is None

    @property
    def reads_stride(self) -> bool:
        """Whether a forward around the layer reads an attribute `stride`, for example to compute the padding."""
        call: Call | None = self.spots[0].call
        while call is not None and (call := call.parent) is not None:
            code = getattr(type(call.module).forward, "__code__", None)
            if code is not None and "stride" in code.co_names:
                return True
        return False

    @property
    def commutes_with_blur(self) -> bool:
        """Whether a convolution can have its blur in front: 1x1, unpadded, its input where the blur can take it."""
        if set(self.window.kernel) != {1} or any(spot.dense_size != spot.input_size for spot in self.spots):
            return False
        # a hook in front sees no input that is given by keyword
        return self.answered or all(spot.call is not None and spot.call.input is not None for spot in self.spots)

    @property
    def is_resnet_pool(self) -> bool:
        """Whether it is the ResNets' first pooling: 3x3 behind one convolution, in front of a residual branch."""
        window, spot = self.window, self.spots[0]
        readers = [node.op for node in spot.result.consumers]
        return (
            len(self.spots) == 1
            and (window.kernel, window.stride, window.padding, window.dilation) == ((3, 3), (2, 2), (1, 1), (1, 1))
            and spot.source.depth == 1
            and len(readers) > 1
            and "cat" not in readers
        )


def _is_used(value: Value) -> bool:
    # PyTorch runs 1-D poolings on 2-D maps, and takes the additional axis off their indices whether used or not
    return value.returned or any(node.op != "squeeze" or any(map(_is_used, node.outputs)) for node in value.consumers)
