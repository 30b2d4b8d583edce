// Planes at stride 2 in registers: a strip of up to four vectors walks down its map; only x and the result touch memory.
// Index tables, made once for many maps, bring the border of a row to its place. Masks keep loads and stores inside where they
// cost nothing; else loads run past the ends of rows inside the map. AVX2 and AVX-512 only: it takes their permutations
// across two registers.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

constexpr int kStripVectors = 4, kStripTaps = 5;
// Bytes from what a strip reads or writes to what comes into cache for later.
constexpr int64_t kBytesAhead = 7168, kForwardBytesAhead = kFreeMasks ? kBytesAhead : 16384, kResultBytesAhead = 3072;

// Lines that come into cache while a strip goes down its band. With AVX-512 each vector asks for the line `ahead` elements
// further on. With AVX2 they come in the order of memory, which the strips do not follow: each asks for its `share` of the next
// band, two neighbours at a time: the processor then fetches on by itself.
template <int ForWriting, class T> class Lines {
public:
    Lines(const T* share, int64_t ahead) : share_(share), ahead_(ahead) {}

    // To be called where vector `v` of the strip's `vectors` is at `at`.
    [[gnu::always_inline]] void pass(const T* at, int v, int vectors) {
        if (v * kWidth % kLine<T> != 0) return;
        if (kFreeMasks) return __builtin_prefetch(at + ahead_, ForWriting);
        if (vectors * kWidth < 2 * kLine<T> ? ++passed_ % 2 : v * kWidth % (2 * kLine<T>)) return;
        __builtin_prefetch(share_, ForWriting);
        __builtin_prefetch(share_ + kLine<T>, ForWriting);
        share_ += 2 * kLine<T>;
    }

private:
    const T* share_;
    int64_t ahead_, passed_ = 0;
};

// Elements from a row to the same row of the next band, where several strips go down in bands of `rows`; `least` bytes at least.
template <class T> int64_t elements_ahead(int64_t strips, int64_t rows, int64_t pitch, int64_t least) {
    const int64_t elements = least / static_cast<int64_t>(sizeof(T));
    return strips > 1 && rows * pitch > elements ? rows * pitch : elements;
}

// A mask that grows lane by lane.
struct Lanes {
    Mask mask = lanes_below(0);
    void put(int64_t lane) { mask = either(mask, without(lanes_below(lane + 1), lanes_below(lane))); }
};

// Columns of x in the lanes of a strip.
struct Columns {
    int64_t first;  // the column in lane 0; negative under the maximum's padding
    Mask inside[kStripVectors];
    Mask leading[kStripVectors];  // lanes of the padding in front of the map
    bool leaves;  // some window leaves a map that does not wrap; not that of a lane of the border
    bool reaches;  // some window reaches past the last lane
    Mask beside[2][kStripVectors];  // lanes whose first and second right neighbours are inside
    // Where the map wraps: lanes whose column, first and second right neighbour start the row anew; lanes of the first vector
    // where they still end it.
    Mask wrapped[3][kStripVectors], ending[3];
};

// Whether the columns of the blur's border come from the other end of the row.
inline bool border_wraps(const Job& job) { return job.padding_mode == DEALIAS_CIRCULAR && (job.wrap || job.col.kernel == 1); }

// Lanes for the windows that start at the columns [first, first + windows) of x.
inline void lay_columns(const Job& job, int64_t first, int64_t windows, int vectors, Columns& columns) {
    const Axis& col = job.col;
    columns.first = first;
    const bool at_border = border_wraps(job);
    const Range real = common({first, first + windows}, {-col.before, col.dense - col.before});
    columns.leaves = !job.wrap && (real.lo < 0 || real.hi + col.kernel - 1 > col.size);
    columns.reaches = windows + col.kernel - 1 > vectors * kWidth;
    for (int v = 0; v < vectors; ++v) {
        const int64_t start = first + v * kWidth;
        columns.leading[v] = lanes_below(-start);
        columns.inside[v] = without(lanes_below(col.size - start), columns.leading[v]);
        for (int64_t k = 0; k <= 2; ++k) {
            if (k > 0) columns.beside[k - 1][v] = without(lanes_below(col.size - k - start), lanes_below(-k - start));
            const bool turns = k > 0 ? job.wrap : at_border;
            const Mask before_end = lanes_below(turns ? col.size - k - start : kWidth);
            columns.wrapped[k][v] = without(lanes_below(windows - v * kWidth), before_end);
            if (v == 0) columns.ending[k] = lanes_below(turns ? -first - k : 0);
        }
    }
}

// The maximum along rows of x, for the windows that start in each lane. Looks for NaN in the first `Tested` vectors.
template <class T, int Kernel, bool Relu, bool Nan, int V, int Tested = V> class RowMaximum {
public:
    RowMaximum(const Job& job, const Columns& columns, const T* plane, Lines<0, T> lines)
        : lines_(lines), columns_(columns), from_(plane + columns.first), pitch_(job.col.size), size_(job.row.size),
          wrap_(job.wrap), border_wraps_(border_wraps(job)) {
        // Without free masks, plain rows are read past their ends: what lies there is still x, and no result takes it.
        const int64_t before = from_ - static_cast<const T*>(job.x);
        const int64_t room = job.images * size_ * pitch_ - before - V * kWidth - (Kernel - 1);
        plain_ = {before < 0 ? (pitch_ - 1 - before) / pitch_ : 0, room < 0 ? 0 : room / pitch_ + 1};
        if (kFreeMasks) plain_ = {0, size_};
        if (plain_.hi > size_) plain_.hi = size_;
        for (int v = 0; v < V; ++v) inside_[v] = columns.inside[v];
    }

    // Of row `r`; it may lie in the padding, or beyond either end of a map that wraps, unless it is one of the `plain_rows` and
    // has no edges: `Inner`. With windows of two columns also where the second won; padding never does, not even over -inf.
    template <bool Inner = false> [[gnu::always_inline]] void row(int64_t r, Vec* best, Mask* second = nullptr) {
        if (Inner) return along<!kFreeMasks>(r, best, second);
        if (Kernel > 1 && (r < 0 || r >= size_)) {
            if (!wrap_) {
                for (int v = 0; v < V; ++v) best[v] = splat(kLowest);
                return;
            }
            r += r < 0 ? size_ : -size_;
        }
        if (!kFreeMasks && !has_edges() && r >= plain_.lo && r < plain_.hi)
            along<true>(r, best, second);
        else
            along<false>(r, best, second);
    }

    // Vector `v` of one of the `plain_rows`, with edges or without.
    template <bool Edges> [[gnu::always_inline]] Vec plain_vector(int64_t r, int v) {
        const T* from = from_ + r * pitch_;
        Vec best = at<0, !kFreeMasks, Edges>(from, v);
        lines_.pass(from + v * kWidth, v, V);
        if (Relu) best = rectified(best);
        if (Kernel > 1 && !Nan && v < Tested) found_ = either(found_, unordered(best));
        if (Kernel > 1) best = larger_of<Nan>(best, at<1, !kFreeMasks, Edges>(from, v));
        if (Kernel > 2) best = larger_of<Nan>(best, at<2, !kFreeMasks, Edges>(from, v));
        return best;
    }

    Range plain_rows() const { return plain_; }
    // Whether the map wraps, or a window leaves it and no mask hides that.
    bool has_edges() const { return wrap_ || border_wraps_ || (!kFreeMasks && columns_.leaves); }
    bool found_nan() const { return any(found_); }

private:
    template <bool Plain> [[gnu::always_inline]] void along(int64_t r, Vec* best, Mask* second) {
        const T* from = from_ + r * pitch_;
        Vec here[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            here[v] = at<0, Plain, !Plain>(from, v);
            if (Relu) here[v] = rectified(here[v]);
            lines_.pass(from + v * kWidth, v, V);
        }
        if (Kernel > 1 && !Nan) {
#pragma GCC unroll 4
            for (int v = 0; v < Tested; v += 2) found_ = either(found_, unordered(here[v], here[v + 1 < V ? v + 1 : v]));
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            best[v] = here[v];
            if (Kernel == 1) continue;
            const Vec right =
                in_lanes(v) ? turned<1>(joined<1>(here[v], here[(v + 1) % V]), v, from) : at<1, Plain, !Plain>(from, v);
            if (!in_lanes(v) && !Nan && Tested == V && v == V - 1) found_ = either(found_, unordered(right));
            if (second) second[v] = wins_over<Nan>(right, here[v]);
            if (second && !Plain) second[v] = either(second[v], columns_.leading[v]);
            best[v] = larger_of<Nan>(best[v], right);
            if (Kernel > 2) best[v] = larger_of<Nan>(best[v], at<2, Plain, !Plain>(from, v));
        }
    }

    // Whether the right neighbours of vector `v` are taken from the lanes, where permutations cost less than loads.
    bool in_lanes(int v) const { return kFreeMasks && (v < V - 1 || !columns_.reaches); }

    // The columns K to the right of those in vector `v`; the lowest number for those outside the map.
    template <int K, bool Plain, bool Edges> [[gnu::always_inline]] Vec at(const T* from, int v) const {
        const T* p = from + v * kWidth + K;
        const Mask inside = K > 0 ? columns_.beside[K > 0 ? K - 1 : 0][v] : inside_[v];
        const Vec outside = splat(Kernel > 1 ? kLowest : 0.0f);
        if (Plain && !Edges) return load(p);
        Vec columns = Plain ? load(p) : load_lanes(inside, p, outside);
        if (Plain && Kernel > 1) columns = choose(inside, columns, outside);
        return Edges ? turned<K>(columns, v, from) : columns;
    }

    // The same with those from the other end of a row that wraps.
    template <int K> [[gnu::always_inline]] Vec turned(Vec columns, int v, const T* from) const {
        if (!(K > 0 ? wrap_ : border_wraps_)) return columns;
        if (v == 0 && any(columns_.ending[K])) columns = load_lanes(columns_.ending[K], from + K + pitch_, columns);
        const Mask wrapped = columns_.wrapped[K][v];
        return any(wrapped) ? load_lanes(wrapped, from + v * kWidth + K - pitch_, columns) : columns;
    }

    Lines<0, T> lines_;
    const Columns& columns_;
    const T* from_;
    int64_t pitch_, size_;
    Range plain_;
    bool wrap_, border_wraps_;
    Mask inside_[V], found_ = lanes_below(0);
};

struct ForwardStrip {
    Columns columns;
    int64_t begin, outputs;
    Index edge[kStripVectors];  // with the border: from the vector before and this, for the first from this and the one behind
    Mask edge_there[kStripVectors];  // lanes that are not zeros of the border
    bool only_ends;  // of the border only the first and the last vector hold any, and it comes from themselves
    Index tail;  // the last full vector of the outputs, from both
};

// For the outputs [begin, end): lane 0 is the first column that they take. False if these do not fit, or what the border repeats
// lies too far.
inline bool lay_forward(const Job& job, int64_t begin, int64_t end, int vectors, ForwardStrip& strip) {
    const Axis& col = job.col;
    const int64_t first = 2 * begin - col.lead, windows = 2 * (end - 1 - begin) + col.taps;
    if (windows > vectors * kWidth || ((job.wrap || border_wraps(job)) && col.size < 8)) return false;
    lay_columns(job, first - col.before, windows, vectors, strip.columns);
    strip.begin = begin;
    strip.outputs = end - begin;
    strip.only_ends = true;
    int32_t from[kWidth];
    for (int64_t lane = 0; lane < kWidth; ++lane) from[lane] = static_cast<int32_t>(lane + strip.outputs - kWidth);
    strip.tail = index_of(from);
    for (int64_t v = 0; v < vectors; ++v) {
        const int64_t start = v > 0 ? (v - 1) * kWidth : 0;  // of the pair
        Lanes there;
        for (int64_t lane = 0; lane < kWidth; ++lane) {
            const int64_t own = v * kWidth + lane, t = first + own;
            const bool inside = border_wraps(job) || own >= windows || (t >= 0 && t < col.dense);
            const int64_t d = inside ? t : border(t, col.dense, job.padding_mode), source = d - first;
            from[lane] = static_cast<int32_t>(source - start);
            const bool near = !inside && d >= 0 && source / kWidth == v;
            strip.only_ends = strip.only_ends && (inside || (near && (v == 0 || v == vectors - 1)));
            if (!inside && d < 0) continue;
            if (source < start || source >= start + 2 * kWidth) return false;
            there.put(lane);
        }
        strip.edge[v] = index_of(from), strip.edge_there[v] = there.mask;
    }
    return true;
}

// Whether every NaN among the columns shows in the sums of the strip, or in those of the one on its left: the larger of two
// follows the right one.
template <int Kernel, int K> constexpr bool kSumsShowNan = (K - 1) / 2 >= Kernel - 1;

template <class T, int Kernel, bool Relu, bool Nan, int K, int V>
using ForwardMaximum = RowMaximum<T, Kernel, Relu, Nan, V, kSumsShowNan<Kernel, K> ? 0 : 1>;

// finish(i, V vertical sums, the filter) for the outputs of the rows [row0, row1); whether a NaN was met that these maxima do
// not follow.
template <class T, int Kernel, bool Relu, bool Nan, int K, int V, class Finish>
[[gnu::always_inline]] inline bool walk_down(const Job& job, ForwardMaximum<T, Kernel, Relu, Nan, K, V> maximum, int64_t row0,
                                             int64_t row1, Finish finish) {
    constexpr int kOpen = (K + 1) / 2;  // outputs that a row takes part in
    const int64_t dense_rows = job.row.dense, before = job.row.before, lead = job.row.lead;
    Mask found = lanes_below(0);
    auto look_for_nan = [&](const Vec* in) __attribute__((always_inline)) {
        if (Kernel == 1 || Nan) return;
        for (int v = 0; v < V; v += 2) found = either(found, unordered(in[v], in[v + 1 < V ? v + 1 : v]));
    };
    Vec w[K], open[kOpen][V], carried[2][V], even[V], odd[V];
    for (int a = 0; a < K; ++a) w[a] = splat(job.row.filter[a]);
    for (auto& sums : open)
        for (Vec& sum : sums) sum = splat(0.0f);
    // The maxima of windows from those along their rows, of which the newest comes in.
    auto down = [&](int v, Vec newest) __attribute__((always_inline)) {
        if (Kernel == 1) return newest;
        const Vec best = larger_of<Nan>(Kernel > 2 ? larger_of<Nan>(carried[0][v], carried[1][v]) : carried[0][v], newest);
        carried[0][v] = Kernel > 2 ? carried[1][v] : newest;
        if (Kernel > 2) carried[1][v] = newest;
        return best;
    };
    auto add_rows = [&](int v, Vec first, Vec second) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int l = kOpen - 1; l >= 0; --l) {
            open[l][v] = l > 0 ? madd(w[2 * l], first, open[l - 1][v]) : mul(w[0], first);
            if (2 * l + 1 < K) open[l][v] = madd(w[2 * l + 1], second, open[l][v]);
        }
    };
    int64_t next = -job.row.size - 2;  // the window row whose first rows are carried
    auto read = [&](int64_t t, Vec* dense) __attribute__((always_inline)) {
        const int64_t d = border(t, dense_rows, job.padding_mode), r = d - before;
        if (d < 0) {
            for (int v = 0; v < V; ++v) dense[v] = splat(0.0f);
            return;
        }
        if (Kernel > 1 && r != next) {
            maximum.row(r, carried[0]);
            look_for_nan(carried[0]);
            if (Kernel > 2) maximum.row(r + 1, carried[1]);
            if (Kernel > 2) look_for_nan(carried[1]);
        }
        maximum.row(r + Kernel - 1, dense);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) dense[v] = down(v, dense[v]);
        next = r + 1;
    };
    // Away from all borders rows follow without a question.
    const int64_t shift = Kernel - 1 - before;
    const Range rows = maximum.plain_rows();
    const int64_t first = lead + (rows.lo - shift > 1 ? rows.lo - shift : 1);
    const int64_t last = ((dense_rows < rows.hi - shift ? dense_rows : rows.hi - shift) + lead) / 2;
    auto put = [&](int64_t i) __attribute__((always_inline)) {
        look_for_nan(open[kOpen - 1]);
        finish(i - (kOpen - 1), open[kOpen - 1], w);
    };
    for (int64_t i = row0; i < row1 + kOpen - 1; ++i) {
        const int64_t stop = last < row1 + kOpen - 1 ? last : row1 + kOpen - 1;
        if (i > row0 && i >= row0 + kOpen - 1 && 2 * i >= first && i < stop) {
            auto steps = [&](auto edges) __attribute__((always_inline)) {
                for (; i < stop; ++i) {
                    const int64_t r = 2 * i - lead + shift;
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) {
                        const Vec upper = down(v, maximum.template plain_vector<edges>(r, v));
                        add_rows(v, upper, down(v, maximum.template plain_vector<edges>(r + 1, v)));
                    }
                    put(i);
                }
            };
            if (maximum.has_edges())
                steps(std::true_type());
            else
                steps(std::false_type());
            next = 2 * stop - lead - before;
            if (i == row1 + kOpen - 1) break;
        }
        read(2 * i - lead, even);
        read(2 * i - lead + 1, odd);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) add_rows(v, even[v], odd[v]);
        if (i >= row0 + kOpen - 1) put(i);
    }
    return any(found) || maximum.found_nan();
}

// Brings the border to its lanes.
template <int V> [[gnu::always_inline]] inline void mend_edges(const ForwardStrip& strip, const Vec* sums, Vec* mended) {
    if (strip.only_ends) {
        for (int v = 1; v < V - 1; ++v) mended[v] = sums[v];
        mended[0] = permuted(strip.edge[0], sums[0]);
        mended[V - 1] = permuted(strip.edge[V - 1], sums[V - 1]);
        return;
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const Vec pair = permuted(strip.edge[v], sums[v > 0 ? v - 1 : 0], sums[v > 0 ? v : 1]);
        mended[v] = keep(strip.edge_there[v], pair);
    }
}

// Outputs of the rows [row0, row1); whether a NaN was met that these maxima do not follow.
template <class T, int Kernel, bool Relu, bool Nan, int K, int V>
bool strip_forward(const Job& job, const ForwardStrip& strip, const T* plane, T* out, int64_t row0, int64_t row1,
                   Lines<0, T> lines) {
    constexpr int H = (V + 1) / 2;  // vectors of outputs
    constexpr int64_t kResultAhead = kResultBytesAhead / sizeof(T);
    const ForwardMaximum<T, Kernel, Relu, Nan, K, V> maximum(job, strip.columns, plane, lines);
    return walk_down<T, Kernel, Relu, Nan, K, V>(job, maximum, row0, row1, [&](int64_t i, const Vec* sums, const Vec* w)
                                                 __attribute__((always_inline)) {
        Vec mended[V], parity[2][H], result[H];
        mend_edges<V>(strip, sums, mended);
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
            const Vec a = mended[2 * h], b = mended[2 * h + 1 < V ? 2 * h + 1 : 2 * h];
            parity[0][h] = in_order(evens_apart(a, b));
            parity[1][h] = in_order(odds_apart(a, b));
        }
        T* to = out + i * job.col.out + strip.begin;
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
            if (h * kWidth % kLine<T> == 0) __builtin_prefetch(to + kResultAhead + h * kWidth, 1);
#pragma GCC unroll 5
            for (int b = 0; b < K; ++b) {
                const Vec first = parity[b % 2][h], second = parity[b % 2][H - 1];
                const Vec v = b < 2 ? first : b < 4 ? joined<1>(first, second) : joined<2>(first, second);
                result[h] = b == 0 ? mul(w[0], v) : madd(w[b], v, result[h]);
            }
        }
        if (strip.outputs < kWidth) return store_first(to, result[0], strip.outputs);
        store(to, result[0]);
        if (H > 1) store(to + strip.outputs - kWidth, permuted(strip.tail, result[0], result[H - 1]));
    });
}

template <class T> using StripForward = bool (*)(const Job&, const ForwardStrip&, const T*, T*, int64_t, int64_t, Lines<0, T>);

template <class T, bool Nan> StripForward<T> strip_forward_for(const Job& job, int vectors) {
    return with_form<2, kStripTaps>(job, [=](auto form) -> StripForward<T> {
        using F = decltype(form);
        return with_constant<2, kStripVectors>(vectors, [](auto v) -> StripForward<T> {
            return strip_forward<T, F::Kernel, F::Relu, Nan, F::K, v>;
        });
    });
}

// Whether strips may do: planes, stride 2, windows of one side, one filter for both axes, as long as the tables at most.
inline bool suits_strips(const Job& job) {
    const Axis &row = job.row, &col = job.col;
    return job.channels == 1 && row.stride == 2 && col.stride == 2 && row.taps >= 2 && row.taps <= kStripTaps &&
           row.taps == col.taps && !memcmp(row.filter, col.filter, static_cast<size_t>(row.taps) * sizeof(float)) &&
           row.kernel == col.kernel && row.dilation * col.dilation == 1 &&
           (!job.wrap || (row.size > row.reach && col.size > col.reach));
}

// Splits the unit into strips of equal width whose columns fit into the lanes; how many, or 0 if there is no way.
inline int64_t lay_forward_strips(const Job& job, const Unit& unit, int& vectors, ForwardStrip*& strips, Arena& arena) {
    const int64_t columns = unit.col1 - unit.col0;
    auto vectors_for = [&](int64_t outputs) { return (2 * (outputs - 1) + job.col.taps + kWidth - 1) / kWidth; };
    const int64_t least = (vectors_for(columns) + kStripVectors - 1) / kStripVectors;
    for (int64_t count = least; count <= least + 2; ++count) {
        const int64_t width = ((columns + count - 1) / count + 1) / 2 * 2, needed = (columns + width - 1) / width;
        const int64_t filled = vectors_for(width < columns ? width : columns);
        vectors = filled < 2 ? 2 : filled < kStripVectors ? static_cast<int>(filled) : kStripVectors;
        strips = take_array<ForwardStrip>(arena, needed);
        int64_t s = 0;
        for (int64_t from = unit.col0; s < needed; ++s, from += width)
            if (!lay_forward(job, from, from + width < unit.col1 ? from + width : unit.col1, vectors, strips[s])) break;
        if (s == needed) return needed;
    }
    return 0;
}

// Strips side by side share cache lines: they go down together, some rows at a time: walk(row0, row1).
template <class Walk> void each_band(int64_t row0, int64_t row1, int64_t strips, int64_t band, Walk walk) {
    const int64_t height = strips > 1 ? band : row1 - row0;
    for (int64_t r = row0; r < row1; r += height) walk(r, r + height < row1 ? r + height : row1);
}

// Rows of the result that strips side by side compute in turn: with AVX2 from 12.5 KB of x.
template <class T> int64_t band_outputs(int64_t pitch) {
    const int64_t rows = 12800 / static_cast<int64_t>(sizeof(T)) / (2 * pitch);
    return kFreeMasks ? 16 : rows < 4 ? 4 : rows;
}

template <class T> bool forward_in_strips(const Job& job, const Unit& unit, Arena& arena) {
    if (!suits_strips(job)) return false;
    int vectors;
    ForwardStrip* strips;
    const int64_t count = lay_forward_strips(job, unit, vectors, strips, arena), pitch = job.col.size;
    const StripForward<T> run = strip_forward_for<T, false>(job, vectors), again = strip_forward_for<T, true>(job, vectors);
    const int64_t band = band_outputs<T>(pitch);
    const int64_t ahead = elements_ahead<T>(count, 2 * band, pitch, kForwardBytesAhead);
    for (int64_t image = unit.image0; image < unit.image1 && count > 0; ++image) {
        const T* plane = static_cast<const T*>(job.x) + image * job.row.size * pitch;
        T* out = static_cast<T*>(job.result) + image * job.row.out * job.col.out;
        each_band(unit.row0, unit.row1, count, band, [&](int64_t row0, int64_t row1) {
            const T* next = plane + 2 * row0 * pitch + ahead;
            const int64_t share = 2 * (row1 - row0) * pitch / count;
            bool nan = false;
            for (int64_t s = 0; s < count; ++s)
                nan |= run(job, strips[s], plane, out, row0, row1, {next + s * share, ahead});
            for (int64_t s = 0; s < count && nan; ++s) again(job, strips[s], plane, out, row0, row1, {next + s * share, ahead});
        });
    }
    return count > 0;
}

}  // namespace dealias::DEALIAS_ISA
