"""The backward kernel of the maximum and the blur behind it: the maximum is found again from the input."""

import triton
import triton.language as tl

from dealias.ops.cuda.blur_gradient import blur_back_along_x, dense_rows, gradient_row
from dealias.ops.cuda.launch import Sizes
from dealias.ops.cuda.parts import (
    CIRCULAR,
    REPLICATE,
    as_float,
    border,
    columns_of,
    everywhere,
    greater,
    locate,
    map_at,
    none_yet,
    store_columns,
)


@triton.jit
def _beats(later, earlier):
    """Whether a later element of a window takes over: ties stay with the first, and the last NaN wins."""
    return (later > earlier) | (later != later)


@triton.jit
def _maxima_along_x(given, KW: tl.constexpr):
    """The maxima of the windows that start in each column."""
    out = ()
    for k in tl.static_range(len(given) - KW + 1):
        best = given[k]
        for t in tl.static_range(1, KW):
            best = greater(best, given[k + t])
        out = out + (best,)
    return out


@triton.jit
def _handed_on(sums):
    """The rows' sums, with the second row's raised by the first's."""
    row = ()
    for c in tl.static_range(len(sums[0])):
        row = row + (sums[0][c] + sums[1][c],)
    return (sums[0], row) + sums[2:]


@triton.jit
def _wins(values, COUNT: tl.constexpr):
    """Whether each of the COUNT values behind the first one beats all before it."""
    best = values[0]
    wins = ()
    for t in tl.static_range(1, COUNT + 1):
        win = _beats(values[t], best)
        if t < COUNT:
            best = tl.where(win, values[t], best)
        wins = wins + (win,)
    return wins


@triton.jit
def _shares(value, wins, COUNT: tl.constexpr):
    """The gradient of a window for each of its elements, the winner's being `value` and all others 0."""
    shares = ()
    left = value
    for t in tl.static_range(COUNT):
        win = wins[COUNT - 1 - t]
        shares = (tl.where(win, left, 0.0),) + shares
        left = tl.where(win, 0.0, left)
    return (left,) + shares


@triton.jit
def _split_along_x(given, sums, group, FIRST: tl.constexpr, P):
    """Hand what the windows of a row received to their winners: the gradients of the V columns of each group.

    `given` are the row's columns from FIRST on, `sums` what the windows that start in them received.
    """
    shares = ()
    for k in tl.static_range(len(sums)):
        shares = shares + (_shares(sums[k], _wins(given[k : k + P.KW], P.KW - 1), P.KW - 1),)
    out = ()
    for c in tl.static_range(P.INPUT.V):
        total = shares[c + P.KW - 1][0]
        for t in tl.static_range(1, P.KW):
            total += shares[c + P.KW - 1 - t][t]
        if P.BW > 0 and c == 0:  # padding wins where all is -inf: the first element behind it takes the gradient
            total += tl.where(group == 0, shares[-1 - FIRST][0], 0.0)
        out = out + (total,)
    return out


@triton.jit(do_not_specialize=Sizes._fields)
def max_backward(grad, x, out, down, along, lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block,
                 P: tl.constexpr):
    """Each step of a lane computes SH rows of G * SW input columns; `launch` explains the arguments.

    The winner of a window is found along x in each input row, then along y among the rows' maxima; the gradient goes
    the same way back.
    """
    sizes = Sizes(lanes, groups, vectors, H, W, HO, WO, HD, WD, blocks, steps_of_block)
    V: tl.constexpr = P.INPUT.V
    PB: tl.constexpr = (len(down) - 1) // 2
    ROW: tl.constexpr = (P.BH + PB - len(down) + P.SH) // P.SH
    KEPT: tl.constexpr = (P.SH - 1 + P.BH + PB) // P.SH - ROW
    LOW: tl.constexpr = P.BW - P.KW + 1
    DENSE: tl.constexpr = V + P.KW - 1
    WARM: tl.constexpr = (2 * (P.KH - 1) + P.SH - 1) // P.SH
    block = tl.program_id(0) % sizes.blocks
    place = locate(tl.program_id(0) // sizes.blocks, sizes, P)
    upstream = map_at(grad, place, sizes.HO, sizes.WO, sizes.vectors, P.OUTPUT, P)
    result = map_at(out, place, sizes.H, sizes.W, sizes.vectors, P.INPUT, P)
    image = map_at(x, place, sizes.H, sizes.W, sizes.vectors, P.INPUT, P)

    start = block * sizes.steps_of_block
    given = ()  # output rows that the next step needs again
    for _ in tl.static_range(KEPT):
        given = given + (none_yet(P.COUNT, tl.float32, P),)
    above = ()  # the input rows that the next dense row needs again, their maxima along x,
    maxima = ()
    shares = ()  # and what dense rows further up gave to their windows
    for _ in tl.static_range(P.KH - 1):
        above = above + (none_yet(DENSE + P.KW - 1, x.dtype.element_ty, P),)
        maxima = maxima + (none_yet(DENSE, tl.float32, P),)
        shares = shares + (none_yet(DENSE, tl.float32, P),)
    for m in range(start - WARM - KEPT, tl.minimum(start + sizes.steps_of_block, (sizes.H + P.SH - 1) // P.SH)):
        given = given + (gradient_row(upstream, m + ROW + KEPT, P),)
        if m >= start - WARM:
            fresh = ()
            for k in tl.static_range(P.SH):
                h = m * P.SH + k + P.KH - 1
                if P.WRAP:
                    h = border(h, sizes.H, CIRCULAR, P.TINY)
                elif not P.PADDED:  # where the map ends no gradient arrives
                    h = border(h, sizes.H, REPLICATE, P.TINY)
                ok = everywhere((h >= 0) & (h < sizes.H), image.group)
                row = columns_of(image, h, ok, float("-inf"), LOW - P.BW, DENSE + P.KW - 1, P.PADDED, P.PADDED,
                                 P.INPUT, P)
                fresh = fresh + (row,)
            rows = dense_rows(given, upstream, down, m * P.SH + P.BH, sizes.HD, P.BH, ROW, not P.WRAP, P)
            for k in tl.static_range(P.SH):
                h = m * P.SH + k
                above = above + (fresh[k],)
                maxima = maxima + (_maxima_along_x(as_float(fresh[k]), P.KW),)
                dense = blur_back_along_x(rows[k], along, image.group, sizes.groups, (), LOW, DENSE, P)
                received = ()
                for c in tl.static_range(DENSE):
                    value = dense[c]
                    if not P.WRAP and (LOW + c < 0 or LOW + c > P.LAST):
                        d = image.group * V + (LOW + c)
                        value = tl.where((d >= 0) & (d < sizes.WD), value, 0.0)
                    wins = _wins([row[c] for row in maxima], P.KH - 1)
                    received = received + (_shares(value, wins, P.KH - 1),)
                sums = ()
                for u in tl.static_range(P.KH):
                    row = ()
                    for c in tl.static_range(DENSE):
                        total = received[c][u]
                        if u < P.KH - 1:
                            total += shares[u][c]
                        row = row + (total,)
                    sums = sums + (row,)
                columns = _split_along_x(as_float(above[0]), sums[0], image.group, LOW - P.BW, P)
                mine = place.live & everywhere((m >= start) & (h < sizes.H), image.group)
                store_columns(columns, result, h, mine, P.INPUT, P)
                if P.BH > 0:
                    if h < 0:  # as in `_split_along_x`: what padding won goes to the row behind it
                        sums = _handed_on(sums)
                above = above[1:]
                maxima = maxima[1:]
                shares = sums[1:]
        given = given[1:]
