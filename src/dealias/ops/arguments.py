"""The arguments of an operation as values, and the sizes that follow from them, which may be symbolic.

An operation is a `Blur` of what comes first: a maximum (`Pool`), a ReLU, or the input itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from dealias.filters import Taps

PaddingMode: TypeAlias = Literal["reflect", "replicate", "circular", "zeros"]
PADDING_MODES: tuple[str, ...] = get_args(PaddingMode)
"""In the order of their numbers in the kernels (`csrc/dealias.h`, `dealias.ops.cuda.parts`)."""


Ints: TypeAlias = Sequence[int]


class Blur(NamedTuple):
    """Correlate each axis of every channel with its `taps` and keep each `stride`-th sample from index 0.

    The taps of each axis sum to 1, so that an axis with one tap is not filtered. `dealias.filters.IDEAL` stands for the
    ideal low-pass filter in front of that stride, with `padding_mode` "circular".

    >>> Blur(((0.5, 0.5), (1.0,)), (2, 1), "zeros").output_size((7, 8))
    (4, 8)
    """

    taps: tuple[Taps, ...]
    stride: tuple[int, ...]
    padding_mode: str

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """The spatial size of the result for a map of `size`."""
        return tuple([(n + step - 1) // step for n, step in zip(size, self.stride, strict=True)])

    def border(self) -> tuple[list[int], list[int]]:
        """The samples of the border before and after the map, for each axis."""
        return [(len(line) - 1) // 2 for line in self.taps], [len(line) // 2 for line in self.taps]


class Pool(NamedTuple):
    """The maximum at stride 1. The border is -inf, or with `wrap` the opposite side of the map.

    >>> Pool((3, 2), (1, 1), (1, 0), (1, 0), False).dense_size((7, 8))
    (7, 7)
    """

    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    wrap: bool

    def dense_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """The spatial size of the maximum over a map of `size`."""
        axes = zip(size, self.kernel_size, self.dilation, self.before, self.after, strict=True)
        return tuple([n + before + after - d * (k - 1) for n, k, d, before, after in axes])


RELU: Final = "relu"
First: TypeAlias = Pool | Literal["relu"] | None
"""What is computed before the blur."""


def pool_of(first: First) -> Pool:
    """The maximum that comes first; over windows of one pixel where there is none."""
    return first if isinstance(first, Pool) else Pool((1, 1), (1, 1), (0, 0), (0, 0), False)


def dense_size(size: Sequence[int], first: First) -> tuple[int, ...]:
    """The spatial size of the map that is blurred, for an input of `size`."""
    return first.dense_size(size) if isinstance(first, Pool) else tuple(size)
