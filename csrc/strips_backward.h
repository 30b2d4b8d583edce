// The gradient of planes at stride 2 in registers: the reverse of strips.h, gathered, so that nothing is added in memory.
#pragma once

#include "strips.h"

namespace dealias::DEALIAS_ISA {

constexpr int kStripTerms = (kStripTaps + 1) / 2 + 1;  // one more than inside the map: the border's

// A lane's share of one output: where that lies, and its weight.
struct Term {
    Route route;
    Vec weight;
};

struct BackwardStrip {
    Columns columns;
    Mask result[kStripVectors];  // lanes of the input's gradient that this strip writes
    Index last;  // where the map wraps: its last column's lane of the last vector goes to the last lane
    int64_t output;  // the column of the output's gradient in lane 0
    Mask outputs[2];
    Term term[2][2][kStripTerms];  // even and odd lanes; half; share
    bool border;  // some lane has the last share
};

// For the columns [begin, end) of the input's gradient; false if what they need does not fit.
inline bool lay_backward(const Job& job, int64_t begin, int64_t end, int vectors, BackwardStrip& strip) {
    const Axis& col = job.col;
    const int64_t reach = col.reach, first = begin - reach < -col.before || job.wrap ? -col.before : begin - reach;
    const int64_t halves = (vectors + 1) / 2, lanes = vectors * kWidth, shift = begin - first;
    if (end - first > lanes || (job.wrap && (begin > 0 || end < col.size))) return false;
    // Windows that start at these lanes: dense columns from `dense` on.
    const int64_t dense = first + col.before;
    const int64_t windows = (end + col.before < col.dense ? end + col.before : col.dense) - dense;
    if (!lay_columns(job, first, windows, vectors, strip.columns)) return false;
    Range need = {col.out, 0};
    const Adjoint& adjoint = col.adjoint;
    for (int64_t d = dense; d < dense + windows; ++d)
        for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
            const int64_t j = adjoint.output[e];
            need = {j < need.lo ? j : need.lo, j + 1 > need.hi ? j + 1 : need.hi};
        }
    if (need.hi < need.lo) need = {0, 0};
    if (need.hi - need.lo > halves * kWidth) return false;
    strip.output = need.lo;
    for (int64_t h = 0; h < halves; ++h) strip.outputs[h] = lanes_below(need.hi - need.lo - h * kWidth);
    const int64_t terms = (col.taps + 1) / 2;
    strip.border = false;
    for (int64_t h = 0; h < halves; ++h)
        for (int64_t odd = 0; odd < 2; ++odd) {
            IndexOf index[kStripTerms];
            Lanes there[kStripTerms];
            float weight[kStripTerms][kWidth] = {};
            for (int64_t lane = 0; lane < kWidth; ++lane) {
                const int64_t d = dense + 2 * (h * kWidth + lane) + odd;
                if (d >= dense + windows) continue;
                int64_t used = 0;
                for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
                    const auto source = static_cast<int32_t>(adjoint.output[e] - need.lo);
                    if (used > terms) return false;
                    strip.border = strip.border || used == terms;
                    index[used].lane[lane] = source;
                    weight[used][lane] = adjoint.weight[e];
                    there[used++].put(lane);
                }
                // Its product with zero changes no sum, not even the sign of a zero.
                for (used = used > 0 ? used : 1; used <= terms; ++used) weight[used][lane] = -0.0f;
            }
            for (int64_t m = 0; m <= terms; ++m)
                strip.term[odd][h][m] = {{index[m].vector(), there[m].mask}, load(weight[m])};
        }
    for (int v = 0; v < vectors; ++v) {
        const int64_t start = v * kWidth;
        strip.result[v] = without(lanes_below(shift + end - begin - start), lanes_below(shift - start));
    }
    IndexOf last;
    last.lane[kWidth - 1] = static_cast<int32_t>((col.size - 1) % kWidth);
    strip.last = last.vector();
    return !job.wrap || (col.size - 1) / kWidth == vectors - 1;
}

// The gradient of the map that was blurred, a row at a time: the few rows of the output's gradient that it takes are
// spread over the columns once and kept.
template <class T, int K, int V> class SpreadGradient {
public:
    SpreadGradient(const Job& job, const BackwardStrip& strip, const T* grad) : job_(job), strip_(strip), grad_(grad) {
        // What the border repeats reaches no deeper than the filter is long, but not each row up to there.
        const int64_t dense = job.row.dense;
        inside_ = {0, dense};
        for (int64_t d = 0; d < dense && d < K; ++d)
            if (!plain(d)) inside_.lo = d + 1;
        for (int64_t d = dense - 1; d >= inside_.lo && d >= dense - K; --d)
            if (!plain(d)) inside_.hi = d;
    }

    // Inlined, so that the rows that are kept stay in registers.
    [[gnu::always_inline]] void operator()(int64_t d, Vec* out) {
        if (d < inside_.lo || d >= inside_.hi) return gather(job_, strip_, grad_, d, out);
        const int64_t newest = (d + job_.row.lead) / 2;
        if (newest != newest_) {
            if (newest != newest_ + 1)
                for (int l = kOpen - 1; l > 0; --l)
                    if (newest >= l) spread(job_, strip_, grad_, newest - l, open_[l - 1]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
                for (int l = kOpen - 1; l > 0; --l) open_[l][v] = open_[l - 1][v];
            spread(job_, strip_, grad_, newest, open_[0]);
            newest_ = newest;
        }
        if ((d + job_.row.lead) & 1)
            combine<1>(out);
        else
            combine<0>(out);
    }

private:
    static constexpr int kOpen = (K + 1) / 2, H = (V + 1) / 2;

    // Whether row `d` takes from each output that reaches it, from nothing by way of the border.
    bool plain(int64_t d) const {
        const Adjoint& adjoint = job_.row.adjoint;
        const int64_t top = d + job_.row.lead;
        int64_t e = adjoint.start[d];
        for (int64_t a = top % 2 + 2 * (kOpen - 1); a >= 0; a -= 2) {
            if (a >= K) continue;
            if (e == adjoint.start[d + 1] || adjoint.output[e] != (top - a) / 2 || top < a) return false;
            if (adjoint.weight[e] != job_.row.filter[a]) return false;
            ++e;
        }
        return e == adjoint.start[d + 1];
    }

    template <int Odd> [[gnu::always_inline]] void combine(Vec* out) const {
        constexpr int last = 2 * (kOpen - 1) + Odd < K ? kOpen - 1 : kOpen - 2;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            Vec sum = splat(0.0f);
            if constexpr (last >= 0) sum = mul(splat(job_.row.filter[2 * last + Odd]), open_[last][v]);
#pragma GCC unroll 4
            for (int l = last - 1; l >= 0; --l) sum = madd(splat(job_.row.filter[2 * l + Odd]), open_[l][v], sum);
            out[v] = sum;
        }
    }

    // Row `i` of the output's gradient over the columns of the strip.
    [[gnu::always_inline]] static void spread(const Job& job, const BackwardStrip& strip, const T* grad, int64_t i, Vec* out) {
        const T* from = grad + i * job.col.out + strip.output;
        Vec g[H];
        for (int h = 0; h < H; ++h) g[h] = load_lanes(strip.outputs[h], from + h * kWidth, splat(0.0f));
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
            Vec sum[2];
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; ++odd)
#pragma GCC unroll 3
                for (int m = 0; m <= kOpen; ++m) {
                    if (m == kOpen && !strip.border) break;
                    const Term& term = strip.term[odd][h][m];
                    const Vec share = pick(term.route.there, term.route.index, g[0], g[H - 1]);
                    sum[odd] = m == 0 ? mul(term.weight, share) : madd(term.weight, share, sum[odd]);
                }
            interleave(sum[0], sum[1], out[2 * h], out[2 * h + (V > 1)]);
        }
    }

    // Near the border: each share for itself.
    [[gnu::noinline]] static void gather(const Job& job, const BackwardStrip& strip, const T* grad, int64_t d, Vec* out) {
        const Adjoint& adjoint = job.row.adjoint;
        for (int v = 0; v < V; ++v) out[v] = splat(0.0f);
        for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
            const Vec w = splat(adjoint.weight[e]);
            Vec share[V + 1];
            spread(job, strip, grad, adjoint.output[e], share);
            for (int v = 0; v < V; ++v) out[v] = e == adjoint.start[d] ? mul(w, share[v]) : madd(w, share[v], out[v]);
        }
    }

    const Job& job_;
    const BackwardStrip& strip_;
    const T* grad_;
    Range inside_;
    int64_t newest_ = -2;
    Vec open_[kOpen][V];
};

// Rows [row0, row1) of the gradient of a blur.
template <class T, bool Relu, int K, int V>
bool strip_blur_backward(const Job& job, const BackwardStrip& strip, const T* plane, const T* grad, T* out, int64_t row0,
                         int64_t row1) {
    SpreadGradient<T, K, V> gradient(job, strip, grad);
    for (int64_t r = row0; r < row1; ++r) {
        Vec here[V];
        gradient(r, here);
        const int64_t offset = r * job.col.size + strip.columns.first;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            __builtin_prefetch(out + offset + v * kWidth + kStripAhead<T>, 1);
            if (Relu) {
                const Vec x = load_lanes(strip.columns.inside[v], plane + offset + v * kWidth, splat(0.0f));
                here[v] = drop(not_above_zero(x), here[v]);
            }
            store_lanes(strip.result[v], out + offset + v * kWidth, here[v]);
        }
    }
    return false;
}

// Rows [row0, row1) of the gradient of a maximum over 2 x 2 windows: each window's share goes to one of its two rows, what
// a row has to one of two columns. Whether a NaN was met that these maxima do not follow.
template <class T, bool Nan, int K, int V>
bool strip_max_backward(const Job& job, const BackwardStrip& strip, const T* plane, const T* grad, T* out, int64_t row0,
                        int64_t row1) {
    const Axis& row = job.row;
    SpreadGradient<T, K, V> gradient(job, strip, grad);
    RowMaximum<T, 2, false, Nan, V> maximum(job, strip.columns, plane);
    Vec best[V], from_above[V];
    Mask second[V] = {};
    for (Vec& v : from_above) v = splat(0.0f);
    // Windows start a row above the first; where there are none, nothing comes from them.
    int64_t r = row0 - 1;
    maximum(r, best, second);
    for (; r < row1; ++r) {
        Vec below[V], share[V], own[V], beside[V];
        Mask below_second[V] = {};
        int64_t d = r + row.before;
        if (job.wrap && d < 0) d += row.dense;
        if (d >= 0 && d < row.dense)
            gradient(d, share);
        else
            for (Vec& v : share) v = splat(0.0f);
        for (Vec& v : share) v = positive_zero(v);
        maximum(r + 1, below, below_second);
        // Padding never wins, not even over -inf.
        const Mask above_map = lanes_below(r < 0 && !job.wrap ? kWidth : 0);
        const Mask inside = lanes_below(r + 1 < row.size || job.wrap ? kWidth : 0);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const Mask lower = both(either(wins_over<Nan>(below[v], best[v]), above_map), inside);
            const Vec sum = add(from_above[v], drop(lower, share[v]));
            from_above[v] = keep(lower, share[v]);
            own[v] = drop(second[v], sum);
            beside[v] = keep(second[v], sum);
            best[v] = below[v];
            second[v] = below_second[v];
        }
        if (r < row0) continue;
        const int64_t offset = r * job.col.size + strip.columns.first;
        const Vec turned = job.wrap ? permuted(strip.last, beside[V - 1], beside[V - 1]) : splat(0.0f);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            __builtin_prefetch(out + offset + v * kWidth + kStripAhead<T>, 1);
            const Vec left = shifted_in(v > 0 ? beside[v - 1] : turned, beside[v]);
            store_lanes(strip.result[v], out + offset + v * kWidth, add(own[v], left));
        }
    }
    return maximum.found_nan();
}

template <class T>
using StripBackward = bool (*)(const Job&, const BackwardStrip&, const T*, const T*, T*, int64_t, int64_t);

template <class T, int K, int V> StripBackward<T> strip_backward_for(int op, bool nan) {
    if (op == DEALIAS_BLUR) return strip_blur_backward<T, false, K, V>;
    if (op == DEALIAS_RELU_BLUR) return strip_blur_backward<T, true, K, V>;
    return nan ? strip_max_backward<T, true, K, V> : strip_max_backward<T, false, K, V>;
}

template <class T, int K> StripBackward<T> strip_backward_for(int op, bool nan, int vectors) {
    if (vectors == 1) return strip_backward_for<T, K, 1>(op, nan);
    return vectors == 2 ? strip_backward_for<T, K, 2>(op, nan) : strip_backward_for<T, K, kStripVectors>(op, nan);
}

template <class T> StripBackward<T> strip_backward_for(const Job& job, bool nan, int vectors) {
    switch (job.row.taps) {
        case 2: return strip_backward_for<T, 2>(job.op, nan, vectors);
        case 3: return strip_backward_for<T, 3>(job.op, nan, vectors);
        case 4: return strip_backward_for<T, 4>(job.op, nan, vectors);
        default: return strip_backward_for<T, 5>(job.op, nan, vectors);
    }
}

constexpr int64_t kBandInputs = 64;  // as kBandOutputs, for the rows of the input's gradient

template <class T> bool backward_in_strips(const Job& job, const Unit& unit, Arena& arena) {
    if (!suits_strips(job) || (job.op == DEALIAS_MAX_BLUR && job.row.kernel != 2)) return false;
    int vectors;
    BackwardStrip* strips;
    const int64_t lanes = unit.col1 - unit.col0 + (unit.col0 > 0 || job.col.before > 0 ? job.col.reach : 0);
    const int64_t count = lay_strips({unit.col0, unit.col1}, lanes, kMostBackward, vectors, strips, arena,
                                     [&](int64_t begin, int64_t end, int v, BackwardStrip& strip) {
                                         return lay_backward(job, begin, end, v, strip);
                                     });
    const StripBackward<T> run = strip_backward_for<T>(job, false, vectors), again = strip_backward_for<T>(job, true, vectors);
    for (int64_t image = unit.image0; image < unit.image1 && count > 0; ++image) {
        const int64_t offset = image * job.row.size * job.col.size;
        const T* plane = job.x ? static_cast<const T*>(job.x) + offset : nullptr;
        const T* grad = static_cast<const T*>(job.grad) + image * job.row.out * job.col.out;
        T* out = static_cast<T*>(job.result) + offset;
        each_band(unit.row0, unit.row1, count, kBandInputs, [&](int64_t s, int64_t row0, int64_t row1) {
            if (run(job, strips[s], plane, grad, out, row0, row1)) again(job, strips[s], plane, grad, out, row0, row1);
        });
    }
    return count > 0;
}

}  // namespace dealias::DEALIAS_ISA
