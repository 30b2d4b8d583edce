// The gradient of planes at stride 2 in registers: the reverse of strips.h, gathered, so that nothing is added in memory.
#pragma once

#include "strips.h"

namespace dealias::DEALIAS_ISA {

constexpr int kStripShares = (kStripTaps + 1) / 2;  // outputs that reach a column away from the border

// An output that reaches columns by way of the border, in lanes of either parity: -1 for none.
struct Extra {
    int64_t output = -1;
    Mask there[2][2];
    Vec weight[2][2];
};

// The lanes of the dense gradient, those of even and those of odd number apart, in up to two vectors. Lane i of one parity
// takes from the outputs output + i, and from those before as the filter is long.
struct BackwardStrip {
    Columns columns;
    int64_t lanes;  // up to the last column that this strip writes
    Mask result[kStripVectors];  // of the columns that it writes
    Index last;  // where the map wraps: its last column's lane of the last vector goes to the last lane
    int64_t output[2];
    bool swap;  // odd taps fall on even lanes
    bool plain;  // the filter's weights for all lanes, and all are written
    Mask there[2][2][kStripShares];  // parity; half; output
    Vec weight[2][2][kStripShares];
    Extra leading, trailing;  // added before the others, and after them
    Range inside;  // rows that the border adds nothing to
};

constexpr float kNothing = -0.0f;  // its product with zero changes no sum, not even the sign of a zero

// What the lanes of one parity in one vector take from an output each, while a strip is laid.
struct LaneWeights {
    float weight[kWidth];
    Lanes there;

    LaneWeights() { for (float& w : weight) w = kNothing; }
    void put(int64_t lane, float w) {
        weight[lane] = w;
        there.put(lane);
    }
};

// For dense column `d`, which falls on a tap of this parity: each output that reaches it goes to `shares`, by how far it lies
// before the output `newest`, or, if it reaches it by way of the border, to `extra`: leading, trailing. False if that is more
// than one output from either side.
inline bool lay_shares(const Axis& col, int64_t d, int64_t newest, int64_t parity, int64_t lane, LaneWeights* shares,
                       LaneWeights* extra, BackwardStrip& strip) {
    const Adjoint& adjoint = col.adjoint;
    int64_t natural = 0;
    for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
        const int64_t output = adjoint.output[e], l = newest - output;
        if (l >= 0 && parity + 2 * l < col.taps) {
            shares[l].put(lane, adjoint.weight[e]);
            strip.plain = strip.plain && adjoint.weight[e] == col.filter[parity + 2 * l];
            ++natural;
            continue;
        }
        Extra& side = l < 0 ? strip.trailing : strip.leading;
        if (side.output >= 0 && side.output != output) return false;
        side.output = output;
        extra[l < 0].put(lane, adjoint.weight[e]);
        strip.plain = false;
    }
    strip.plain = strip.plain && natural == (col.taps - parity + 1) / 2;
    return true;
}

// What the `windows` dense columns from `dense` on take: false where `lay_shares` is.
inline bool lay_weights(const Axis& col, int64_t dense, int64_t windows, int vectors, BackwardStrip& strip) {
    strip.swap = ((dense + col.lead) & 1) != 0;
    strip.leading.output = strip.trailing.output = -1;
    for (int64_t odd = 0; odd < 2; ++odd) {
        const int64_t parity = strip.swap != (odd != 0), base = (dense + odd + col.lead - parity) / 2;
        strip.output[odd] = base;
        for (int64_t h = 0; h < (vectors + 1) / 2; ++h) {
            LaneWeights shares[kStripShares], extra[2];
            for (int64_t lane = 0; lane < kWidth; ++lane) {
                const int64_t i = h * kWidth + lane, d = dense + 2 * i + odd;
                if (d >= dense + windows || col.adjoint.start[d] == col.adjoint.start[d + 1]) {
                    shares[0].weight[lane] = 0.0f;
                    strip.plain = false;
                } else if (!lay_shares(col, d, base + i, parity, lane, shares, extra, strip)) {
                    return false;
                }
            }
            for (int64_t l = 0; l < (col.taps + 1) / 2; ++l)
                strip.there[odd][h][l] = shares[l].there.mask, strip.weight[odd][h][l] = load(shares[l].weight);
            for (Extra* side : {&strip.leading, &strip.trailing}) {
                const LaneWeights& from = extra[side == &strip.trailing];
                side->there[odd][h] = from.there.mask;
                side->weight[odd][h] = load(from.weight);
            }
        }
    }
    return true;
}

// For the columns [begin, end) of the input's gradient, behind `reach` columns whose windows reach them; false if these do
// not fit, or if the border brings them more than one output from either side.
inline bool lay_backward(const Job& job, int64_t begin, int64_t end, int64_t reach, int vectors, BackwardStrip& strip) {
    const Axis& col = job.col;
    const int64_t first = begin - reach < -col.before || job.wrap ? -col.before : begin - reach;
    const int64_t lanes = vectors * kWidth, shift = begin - first;
    if (end - first > lanes) return false;
    if (job.wrap && (begin > 0 || end < col.size || (col.size - 1) / kWidth != vectors - 1)) return false;
    // Windows that start at these lanes: dense columns from `dense` on.
    const int64_t dense = first + col.before;
    const int64_t windows = (end + col.before < col.dense ? end + col.before : col.dense) - dense;
    lay_columns(job, first, windows, vectors, strip.columns);
    strip.lanes = end - first;
    for (int v = 0; v < vectors; ++v) {
        const int64_t start = v * kWidth;
        strip.result[v] = without(lanes_below(shift + end - begin - start), lanes_below(shift - start));
    }
    int32_t last[kWidth] = {};
    last[kWidth - 1] = static_cast<int32_t>((col.size - 1) % kWidth);
    strip.last = index_of(last);
    strip.plain = !kFreeMasks && shift == 0 && strip.lanes == lanes;
    return lay_weights(col, dense, windows, vectors, strip);
}

// The gradient of the map that was blurred, row by row: the few rows of the output's gradient that a row takes are spread
// over the columns once and kept.
template <class T, int K, int V, bool Plain> class SpreadGradient {
public:
    SpreadGradient(const Job& job, const BackwardStrip& strip, const T* grad, Lines<0, T> lines)
        : lines_(lines), job_(job), strip_(strip), grad_(grad), begin_(static_cast<const T*>(job.grad)),
          end_(begin_ + job.images * job.row.out * job.col.out) {}

    // f(r, vectors, inner) for the rows [row0, row1) of windows, in order; `inner` is std::true_type for most rows of the range
    // of that name. Inlined, so that the rows that are kept stay in registers.
    template <class F> [[gnu::always_inline]] void rows(int64_t row0, int64_t row1, Range inner, F f) {
        const Axis& row = job_.row;
        const Range plain = {strip_.inside.lo - row.before, strip_.inside.hi - row.before};
        const Range in_pairs = common(common(plain, inner), {row0, row1});
        Vec open[kOpen][V], sums[V];
        int64_t kept = INT64_MIN / 2;  // the newest output whose row is kept
        for (int64_t r = row0; r < row1;) {
            int64_t d = r + row.before;
            if (job_.wrap && d < 0) d += row.dense;
            const int64_t newest = (d + row.lead) / 2;
            const bool even = (d + row.lead) % 2 == 0;
            if (even && r >= in_pairs.lo && r + 1 < in_pairs.hi && newest == kept + 1) {
                for (; r + 1 < in_pairs.hi; r += 2) {
                    keep_next(open, ++kept);
                    combine<0>(open, sums);
                    f(r, sums, std::true_type());
                    combine<1>(open, sums);
                    f(r + 1, sums, std::true_type());
                }
                continue;
            }
            if (d < 0 || d >= row.dense) {
                for (Vec& v : sums) v = splat(0.0f);
            } else {
                const bool follows = newest >= kept && newest - kept < kOpen;
                for (int64_t i = follows ? kept + 1 : newest - kOpen + 1; i <= newest; ++i) keep_next(open, i);
                kept = newest;
                combine_at(d, newest, open, sums);
            }
            f(r++, sums, std::false_type());
        }
    }

private:
    static constexpr int kOpen = (K + 1) / 2, H = (V + 1) / 2;

    [[gnu::always_inline]] void keep_next(Vec (*open)[V], int64_t i) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
            for (int l = kOpen - 1; l > 0; --l) open[l][v] = open[l - 1][v];
        for (int h = 0; h < H; ++h) lines_.pass(grad_ + i * job_.col.out + strip_.output[0] + h * kWidth, h, H);
        spread(i, open[0]);
    }

    template <int Odd> [[gnu::always_inline]] void combine(const Vec (*open)[V], Vec* out) const {
        constexpr int last = 2 * (kOpen - 1) + Odd < K ? kOpen - 1 : kOpen - 2;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            Vec sum = mul(splat(job_.row.filter[2 * last + Odd]), open[last][v]);
#pragma GCC unroll 4
            for (int l = last - 1; l >= 0; --l) sum = madd(splat(job_.row.filter[2 * l + Odd]), open[l][v], sum);
            out[v] = sum;
        }
    }

    // Of any row: its own weights.
    [[gnu::always_inline]] void combine_at(int64_t d, int64_t newest, const Vec (*open)[V], Vec* out) const {
        const Adjoint& adjoint = job_.row.adjoint;
        float weight[kOpen];
        bool takes[kOpen] = {};
        for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
            const int64_t l = newest - adjoint.output[e];
            if (l < 0 || l >= kOpen) {
                Vec far[V];
                gather(d, far);
                for (int v = 0; v < V; ++v) out[v] = far[v];
                return;
            }
            weight[l] = adjoint.weight[e];
            takes[l] = true;
        }
        for (int v = 0; v < V; ++v) out[v] = splat(adjoint.start[d] < adjoint.start[d + 1] ? kNothing : 0.0f);
#pragma GCC unroll 4
        for (int l = kOpen - 1; l >= 0; --l)
            for (int v = 0; v < V && takes[l]; ++v) out[v] = madd(splat(weight[l]), open[l][v], out[v]);
    }

    // Row `i` of the output's gradient over the columns of the strip; zero where there is no such row.
    [[gnu::always_inline]] void spread(int64_t i, Vec* out) const {
        const T* row = grad_ + i * job_.col.out;
        const float* w = job_.col.filter;
        if (i < 0 || i >= job_.row.out) {
            for (int v = 0; v < V; ++v) out[v] = splat(0.0f);
            return;
        }
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
            Vec shares[2];
            if constexpr (Plain) {
                const T *a = row + strip_.output[strip_.swap] + h * kWidth, *b = row + strip_.output[!strip_.swap] + h * kWidth;
                shares[0] = mul(splat(w[2 * kOpen - 2]), load(a - (kOpen - 1)));
                shares[1] = mul(splat(w[K / 2 * 2 - 1]), load(b - (K / 2 - 1)));
#pragma GCC unroll 3
                for (int l = kOpen - 2; l >= 0; --l) shares[0] = madd(splat(w[2 * l]), load(a - l), shares[0]);
#pragma GCC unroll 3
                for (int l = K / 2 - 2; l >= 0; --l) shares[1] = madd(splat(w[2 * l + 1]), load(b - l), shares[1]);
                if (strip_.swap) {
                    interleave(shares[1], shares[0], out[2 * h], out[2 * h + (V > 1)]);
                    continue;
                }
            } else {
                // Loads past the ends of the row are of the rows beside it.
                const bool roomy = row + strip_.output[0] - kOpen + 1 >= begin_ && row + strip_.output[1] + H * kWidth <= end_;
                for (int odd = 0; odd < 2; ++odd) shares[odd] = roomy ? share<true>(row, odd, h) : share<false>(row, odd, h);
            }
            interleave(shares[0], shares[1], out[2 * h], out[2 * h + (V > 1)]);
        }
    }

    // What the lanes of one parity take from a row of the output's gradient.
    template <bool Roomy> [[gnu::always_inline]] Vec share(const T* row, int odd, int h) const {
        const Extra &leading = strip_.leading, &trailing = strip_.trailing;
        const T* from = row + strip_.output[odd] + h * kWidth;
        Vec sum = splat(kNothing);
        if (leading.output >= 0)
            sum = mul(leading.weight[odd][h], keep(leading.there[odd][h], splat(to_float(row[leading.output]))));
#pragma GCC unroll 3
        for (int l = kOpen - 1; l >= 0; --l) {
            const Mask there = strip_.there[odd][h][l];
            const Vec g = Roomy && !kFreeMasks ? keep(there, load(from - l)) : load_lanes(there, from - l, splat(0.0f));
            sum = madd(strip_.weight[odd][h][l], g, sum);
        }
        if (trailing.output >= 0)
            sum = madd(trailing.weight[odd][h], keep(trailing.there[odd][h], splat(to_float(row[trailing.output]))), sum);
        return sum;
    }

    // What comes from further away, by way of the border: each share for itself.
    [[gnu::noinline]] void gather(int64_t d, Vec* out) const {
        const Adjoint& adjoint = job_.row.adjoint;
        for (int v = 0; v < V; ++v) out[v] = splat(kNothing);
        for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
            const Vec w = splat(adjoint.weight[e]);
            Vec share[V + 1];
            spread(adjoint.output[e], share);
            for (int v = 0; v < V; ++v) out[v] = madd(w, share[v], out[v]);
        }
    }

    Lines<0, T> lines_;
    const Job& job_;
    const BackwardStrip& strip_;
    const T *grad_, *begin_, *end_;
};

// What windows give to the column behind their strip, for each row of a band: from the strip on the left, to that on the
// right, whose first column needs one of these lanes.
struct Carried {
    const float* from;
    float* to;
};

// Lines of the next band.
template <class T> struct Below {
    Lines<0, T> grad, x;
    Lines<1, T> result;
};

template <bool All, class T> [[gnu::always_inline]] inline void write(Mask lanes, T* to, Vec v) {
    if (All)
        store(to, v);
    else
        store_lanes(lanes, to, v);
}

// Rows [row0, row1) of the gradient of a blur.
template <class T, bool Relu, int K, int V, bool Plain>
bool strip_blur_backward(const Job& job, const BackwardStrip& strip, const T* plane, const T* grad, T* out, int64_t row0,
                         int64_t row1, Carried, Below<T> next) {
    SpreadGradient<T, K, V, Plain> gradient(job, strip, grad, next.grad);
    const int64_t pitch = job.col.size, first = strip.columns.first;
    gradient.rows(row0, row1, {row0, row1}, [&](int64_t r, Vec* here, auto) __attribute__((always_inline)) {
        const int64_t offset = r * pitch + first;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            next.result.pass(out + offset + v * kWidth, v, V);
            if (Relu) {
                const T* at = plane + offset + v * kWidth;
                next.x.pass(at, v, V);
                const Vec x = Plain ? load(at) : load_lanes(strip.columns.inside[v], at, splat(0.0f));
                here[v] = drop(not_above_zero(x), here[v]);
            }
            write<Plain>(strip.result[v], out + offset + v * kWidth, here[v]);
        }
    });
    return false;
}

// Rows [row0, row1) of the gradient of a maximum over 2 x 2 windows: each window's share goes to one of its two rows, what
// a row has to one of two columns. Whether a NaN was met that these maxima do not follow.
template <class T, bool Nan, int K, int V, bool Plain>
bool strip_max_backward(const Job& job, const BackwardStrip& strip, const T* plane, const T* grad, T* out, int64_t row0,
                        int64_t row1, Carried carried, Below<T> next) {
    const int64_t size = job.row.size, pitch = job.col.size, first = strip.columns.first;
    const bool wrap = job.wrap;
    SpreadGradient<T, K, V, Plain> gradient(job, strip, grad, next.grad);
    RowMaximum<T, 2, false, Nan, V> maximum(job, strip.columns, plane, next.x);
    Vec best[V], from_above[V];
    Mask second[V] = {};
    for (Vec& v : from_above) v = splat(0.0f);
    // Windows start a row above the first; where there are none, nothing comes from them.
    maximum.row(row0 - 1, best, second);
    const Range inner = {row0 < 0 ? 0 : row0, !Plain ? size - 1 : maximum.has_edges() ? 0 : maximum.plain_rows().hi - 1};
    gradient.rows(row0 - 1, row1, inner, [&](int64_t r, Vec* share, auto is_inner) __attribute__((always_inline)) {
        constexpr bool Inner = decltype(is_inner)::value;  // inside the map, and a row of this band
        Vec below[V], own[V], beside[V];
        Mask below_second[V] = {};
        for (int v = 0; v < V; ++v) share[v] = positive_zero(share[v]);
        maximum.template row<Inner && Plain>(r + 1, below, below_second);
        // Padding never wins, not even over -inf.
        const Mask above_map = lanes_below(r < 0 && !wrap ? kWidth : 0);
        const Mask inside = lanes_below(r + 1 < size || wrap ? kWidth : 0);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            Mask lower = wins_over<Nan>(below[v], best[v]);
            if (!Inner) lower = both(either(lower, above_map), inside);
            const Vec sum = add(from_above[v], drop(lower, share[v]));
            from_above[v] = keep(lower, share[v]);
            own[v] = drop(second[v], sum);
            beside[v] = keep(second[v], sum);
            best[v] = below[v];
            second[v] = below_second[v];
        }
        if (!Inner && r < row0) return;
        const int64_t offset = r * pitch + first;
        Vec turned = splat(carried.from ? carried.from[(r - row0) * kWidth] : 0.0f);
        if (wrap) turned = permuted(strip.last, beside[V - 1], beside[V - 1]);
        if (carried.to) store(carried.to + (r - row0) * kWidth, beside[V - 1]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            next.result.pass(out + offset + v * kWidth, v, V);
            const Vec left = shifted_in(v > 0 ? beside[v - 1] : turned, beside[v]);
            write<Plain>(strip.result[v], out + offset + v * kWidth, add(own[v], left));
        }
    });
    return maximum.found_nan();
}

template <class T>
using StripBackward = bool (*)(const Job&, const BackwardStrip&, const T*, const T*, T*, int64_t, int64_t, Carried, Below<T>);

// With AVX2 wide maps take strips of four vectors, and of two where a maximum needs the registers; plain ones have their own.
constexpr int wide_vectors(int op) { return kFreeMasks || op != DEALIAS_MAX_BLUR ? kStripVectors : 2; }

template <class T, int K, int V> StripBackward<T> strip_backward_for(int op, bool nan, bool plain) {
    constexpr bool Blur = !kFreeMasks && V == wide_vectors(DEALIAS_BLUR), Max = !kFreeMasks && V == wide_vectors(DEALIAS_MAX_BLUR);
    if (op == DEALIAS_BLUR) return plain ? strip_blur_backward<T, false, K, V, Blur> : strip_blur_backward<T, false, K, V, false>;
    if (op == DEALIAS_RELU_BLUR) return plain ? strip_blur_backward<T, true, K, V, Blur> : strip_blur_backward<T, true, K, V, false>;
    if (nan) return plain ? strip_max_backward<T, true, K, V, Max> : strip_max_backward<T, true, K, V, false>;
    return plain ? strip_max_backward<T, false, K, V, Max> : strip_max_backward<T, false, K, V, false>;
}

template <class T> StripBackward<T> strip_backward_for(const Job& job, bool nan, int vectors, bool plain) {
    return with_constant<2, kStripTaps>(job.row.taps, [=, op = job.op](auto taps) {
        if constexpr (kFreeMasks)
            if (vectors == 1) return strip_backward_for<T, taps, 1>(op, nan, plain);
        return vectors == 2 ? strip_backward_for<T, taps, 2>(op, nan, plain)
                            : strip_backward_for<T, taps, kStripVectors>(op, nan, plain);
    });
}

constexpr int64_t kBandInputs = kFreeMasks ? 16 : 64;  // rows of the input's gradient that strips side by side compute in turn

// Full strips from left to right, the last narrower. What the windows of one give to the first column of the next is carried
// there; only the first recomputes it.
inline int64_t lay_full_strips(const Job& job, const Unit& unit, int64_t reach, int vectors, BackwardStrip* strips) {
    int64_t count = 0;
    for (int64_t from = unit.col0, to; from < unit.col1; from = to, reach = 0, ++count) {
        to = from + vectors * kWidth - reach < unit.col1 ? from + vectors * kWidth - reach : unit.col1;
        if (!lay_backward(job, from, to, reach, vectors, strips[count])) return 0;
    }
    return count;
}

template <class T> bool backward_in_strips(const Job& job, const Unit& unit, Arena& arena) {
    if (!suits_strips(job) || (job.op == DEALIAS_MAX_BLUR && job.row.kernel != 2)) return false;
    const int64_t reach = unit.col0 > 0 || job.col.before > 0 ? job.col.reach : 0, lanes = unit.col1 - unit.col0 + reach;
    int vectors = lanes <= 2 * kWidth ? 2 : lanes <= kStripVectors * kWidth ? kStripVectors : wide_vectors(job.op);
    if (kFreeMasks && lanes <= kWidth) vectors = 1;
    auto* strips = take_array<BackwardStrip>(arena, lanes / (vectors * kWidth) + 1);
    const int64_t count = lay_full_strips(job, unit, reach, vectors, strips);
    for (int64_t s = 0; s < count; ++s) strips[s].inside = find_plain(job.row);
    float* carried[2];  // by turns, as a strip may run again
    const int64_t ahead = elements_ahead<T>(count, kBandInputs, job.col.size, kBytesAhead);
    for (float*& rows : carried) rows = arena.take(kBandInputs * kWidth);
    for (int64_t image = unit.image0; image < unit.image1 && count > 0; ++image) {
        const int64_t offset = image * job.row.size * job.col.size;
        const T* plane = job.x ? static_cast<const T*>(job.x) + offset : nullptr;
        const T* grad = static_cast<const T*>(job.grad) + image * job.row.out * job.col.out;
        T* out = static_cast<T*>(job.result) + offset;
        each_band(unit.row0, unit.row1, count, kBandInputs, [&](int64_t row0, int64_t row1) {
            for (int64_t s = 0; s < count; ++s) {
                const BackwardStrip& strip = strips[s];
                const int64_t share = s * (row1 - row0) * vectors * kWidth, below = row1 * job.col.size + unit.col0 + share;
                const int64_t below_grad = row1 / 2 * job.col.out + unit.col0 / 2 + share / 4;
                const Below<T> next = {{grad + below_grad, ahead / 4}, {plane + below, ahead}, {out + below, ahead}};
                Carried turn = {nullptr, nullptr};
                if (s > 0) turn.from = carried[s % 2] + kWidth - 1;
                if (s + 1 < count) turn.to = carried[1 - s % 2];
                auto walk = [&](bool nan) {
                    return strip_backward_for<T>(job, nan, vectors, strip.plain)(job, strip, plane, grad, out, row0, row1, turn, next);
                };
                if (walk(false)) walk(true);
            }
        });
    }
    return count > 0;
}

}  // namespace dealias::DEALIAS_ISA
