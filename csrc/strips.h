// Planes at stride 2 in registers: a strip of up to four vectors walks down its map. With AVX-512 only x and the result touch
// memory; the forward with AVX2 keeps rows of sums in cache, and blurs along these: its permutations cost more than loads.
// Index tables, made once for many maps, bring the border of a row to its place; masks keep loads and stores inside. AVX2 and
// AVX-512 only: it takes their permutations across two registers.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

constexpr int kStripVectors = 4, kDownVectors = 2;
constexpr int kStripTaps = 5;

// Lines that come into cache while a strip goes down its band. With AVX-512 each vector asks for the line `ahead` elements
// further on. With AVX2 the next band comes in the order of memory, which the strips do not follow: each asks for its `share`,
// two neighbours at a time: the processor then fetches on by itself.
template <int ForWriting, class T> class Lines {
public:
    Lines(const T* share, int64_t ahead) : share_(share), ahead_(ahead) {}

    // To be called where vector `v` of the strip is at `at`.
    [[gnu::always_inline]] void pass(const T* at, int v) {
        if (v * kWidth % kLine<T> != 0) return;
        if (kFreeMasks) return __builtin_prefetch(at + ahead_, ForWriting);
        if (++passed_ % 2) return;
        __builtin_prefetch(share_, ForWriting, ForWriting ? 3 : 2);
        __builtin_prefetch(share_ + kLine<T>, ForWriting, ForWriting ? 3 : 2);
        share_ += 2 * kLine<T>;
    }

private:
    const T* share_;
    int64_t ahead_, passed_ = 0;
};

// Elements from a row to the same row of the next band, where several strips go down in bands of `rows`; 7 KB at least.
template <class T> int64_t elements_ahead(int64_t strips, int64_t rows, int64_t pitch) {
    constexpr int64_t least = 7168 / sizeof(T);
    return strips > 1 && rows * pitch > least ? rows * pitch : least;
}

// Lanes of a pair of vectors that go to one vector.
struct Route {
    Index index;
    Mask there;
};

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
    bool leaves;  // some window leaves the map
    bool reaches;  // some window reaches past the last lane
    Mask beside[2][kStripVectors];  // lanes whose first and second right neighbours are inside
    Mask wrapped[2][kStripVectors];  // lanes whose first and second right neighbours start the row anew
};

// Lanes for the windows that start at the columns [first, first + windows) of x.
inline void lay_columns(const Job& job, int64_t first, int64_t windows, int vectors, Columns& columns) {
    const Axis& col = job.col;
    const bool turns = job.wrap && first + windows + col.kernel - 1 > col.size;
    columns.first = first;
    columns.leaves = first < 0 || first + windows + col.kernel - 1 > col.size;
    columns.reaches = windows + col.kernel - 1 > vectors * kWidth;
    for (int v = 0; v < vectors; ++v) {
        const int64_t start = first + v * kWidth;
        columns.leading[v] = lanes_below(-start);
        columns.inside[v] = without(lanes_below(col.size - start), columns.leading[v]);
        for (int64_t k = 1; k <= 2; ++k) {
            columns.beside[k - 1][v] = without(lanes_below(col.size - k - start), lanes_below(-k - start));
            columns.wrapped[k - 1][v] = without(columns.inside[v], lanes_below(turns ? col.size - k - start : kWidth));
        }
    }
}

// Whether pairs of vectors hold the even and the odd columns of x from the start: bfloat16 comes so for free.
template <class T> constexpr bool kHalves = std::is_same_v<T, bfloat16>;
template <class T, int Kernel, int V> constexpr bool kParted = kFreeMasks && kHalves<T> && Kernel == 1 && V > 1;

// The maximum along rows of x, for the windows that start in each lane.
template <class T, int Kernel, bool Relu, bool Nan, int V> class RowMaximum {
public:
    // Looks for NaN in all columns if it `tests`.
    RowMaximum(const Job& job, const Columns& columns, const T* plane, Lines<0, T> lines, bool tests = true)
        : lines_(lines), columns_(columns), from_(plane + columns.first), pitch_(job.col.size), size_(job.row.size), wrap_(job.wrap),
          tests_(tests) {
        // Without free masks, plain rows are read past their ends: no window leaves them, and what lies there is still x.
        const int64_t room = static_cast<const T*>(job.x) + job.images * size_ * pitch_ - from_ - V * kWidth - (Kernel - 1);
        plain_rows_ = kFreeMasks ? size_ : columns.leaves || room < 0 ? 0 : room / pitch_ + 1;
        for (int v = 0; v < V; ++v) inside_[v] = columns.inside[v];
    }

    // Of row `r`; it may lie in the padding, or beyond either end of a map that wraps. With windows of two columns also where
    // the second won; padding never does, not even over -inf.
    [[gnu::always_inline]] void operator()(int64_t r, Vec* best, Mask* second = nullptr) {
        if (Kernel > 1 && (r < 0 || r >= size_)) {
            if (!wrap_) {
                for (int v = 0; v < V; ++v) best[v] = splat(kLowest);
                return;
            }
            r += r < 0 ? size_ : -size_;
        }
        along(from_ + r * pitch_, !kFreeMasks && r < plain_rows_, best, second);
    }

    // The same of row `r` of the first `plain_rows`, from 0 on.
    [[gnu::always_inline]] void plain(int64_t r, Vec* best, Mask* second = nullptr) {
        along(from_ + r * pitch_, !kFreeMasks, best, second);
    }

    int64_t plain_rows() const { return plain_rows_ < size_ ? plain_rows_ : size_; }
    bool found_nan() const { return any(found_); }

private:
    [[gnu::always_inline]] void along(const T* from, bool plain, Vec* best, Mask* second) {
        if constexpr (kParted<T, Kernel, V>) {
#pragma GCC unroll 2
            for (int v = 0; v < V; v += 2) {
                load_parities(inside_[v], inside_[v + 1], from + v * kWidth, best[v], best[v + 1]);
                if (Relu) best[v] = rectified(best[v]), best[v + 1] = rectified(best[v + 1]);
                lines_.pass(from + v * kWidth, v);
            }
            return;
        }
        Vec here[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            here[v] = plain ? load(from + v * kWidth)
                            : load_lanes(inside_[v], from + v * kWidth, splat(Kernel > 1 ? kLowest : 0.0f));
            if (Relu) here[v] = rectified(here[v]);
            lines_.pass(from + v * kWidth, v);
        }
        if (Kernel > 1 && !Nan && tests_) {
#pragma GCC unroll 4
            for (int v = 0; v < V; v += 2) found_ = either(found_, unordered(here[v], here[v + (V > 1)]));
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            best[v] = here[v];
            if (Kernel == 1) continue;
            const Vec right = beside<1>(here, v, from, plain);
            if (!in_lanes(v) && !Nan && tests_ && v == V - 1) found_ = either(found_, unordered(right));
            if (second) second[v] = wins_over<Nan>(right, here[v]);
            if (second && !plain) second[v] = either(second[v], columns_.leading[v]);
            best[v] = larger_of<Nan>(best[v], right);
            if (Kernel > 2) best[v] = larger_of<Nan>(best[v], beside<2>(here, v, from, plain));
        }
    }

    // Whether the right neighbours of vector `v` are taken from the lanes, where permutations cost less than loads.
    bool in_lanes(int v) const { return kFreeMasks && (v < V - 1 || !columns_.reaches); }

    // The columns K to the right of those in vector `v`.
    template <int K> [[gnu::always_inline]] Vec beside(const Vec* here, int v, const T* from, bool plain) const {
        if (plain) return Relu ? rectified(load(from + v * kWidth + K)) : load(from + v * kWidth + K);
        Vec right;
        if (in_lanes(v))
            right = joined<K>(here[v], here[(v + 1) % V]);
        else
            right = load_lanes(columns_.beside[K - 1][v], from + v * kWidth + K, splat(kLowest));
        if (!wrap_) return right;
        return load_lanes(columns_.wrapped[K - 1][v], from + v * kWidth + K - pitch_, right);
    }

    Lines<0, T> lines_;
    const Columns& columns_;
    const T* from_;
    int64_t pitch_, size_, plain_rows_;
    bool wrap_, tests_;
    Mask inside_[V], found_ = lanes_below(0);
};

struct ForwardStrip {
    Columns columns;
    bool swap;  // tap 0 falls on odd lanes
    int64_t begin;
    int64_t ahead;  // elements to the lines that come into cache
    Mask outputs[2];
    Route tap[2][kStripTaps];
};

// For the outputs [begin, end), from columns that lie `parted` or apart by shuffles: false if these do not fit into the lanes,
// or lie in lanes of either parity.
inline bool lay_forward(const Job& job, int64_t begin, int64_t end, int vectors, bool parted, ForwardStrip& strip) {
    const Axis& col = job.col;
    Range need = needed(col, job.padding_mode, 2 * begin - col.lead, 2 * (end - 1) - col.lead + col.taps);
    // From the start of a cache line where there are lanes left: loads then cross none, in maps that lie so.
    const int64_t lines = need.lo / kBlock * kBlock;
    if (need.hi - lines + col.reach <= vectors * kWidth) need.lo = lines;
    const int64_t halves = (vectors + 1) / 2, windows = need.hi - need.lo;
    if (windows < 1 || windows > vectors * kWidth || end - begin > halves * kWidth) return false;
    lay_columns(job, need.lo - col.before, windows, vectors, strip.columns);
    strip.begin = begin;
    strip.swap = ((2 * begin - col.lead - need.lo) & 1) != 0;
    for (int64_t h = 0; h < halves; ++h) {
        strip.outputs[h] = lanes_below(end - begin - h * kWidth);
        for (int64_t b = 0; b < col.taps; ++b) {
            int32_t from[kWidth] = {};
            Lanes there;
            for (int64_t lane = 0; lane < kWidth && begin + h * kWidth + lane < end; ++lane) {
                const int64_t d = border(2 * (begin + h * kWidth + lane) - col.lead + b, col.dense, job.padding_mode);
                if (d < 0) continue;
                const auto half = static_cast<int32_t>((d - need.lo) / 2);
                if (((d - need.lo) & 1) != ((b + strip.swap) & 1)) return false;
                from[lane] = parted ? half : lane_apart(half);
                there.put(lane);
            }
            strip.tap[h][b] = {index_of(from), there.mask};
        }
    }
    return true;
}

// finish(i, V vertical sums) for the outputs of the rows [row0, row1); whether a NaN was met that these maxima do not follow.
// Without `tests` it is seen where it reaches a sum: that misses one in the first columns.
template <class T, int Kernel, bool Relu, bool Nan, int K, int V, class Finish>
[[gnu::always_inline]] inline bool walk_down(const Job& job, RowMaximum<T, Kernel, Relu, Nan, V> maximum, bool tests,
                                             int64_t row0, int64_t row1, Finish finish) {
    constexpr int kOpen = (K + 1) / 2;  // outputs that a row takes part in
    const int64_t dense_rows = job.row.dense, before = job.row.before, lead = job.row.lead;
    const int mode = job.padding_mode;
    Mask found = lanes_below(0);
    auto look_for_nan = [&](const Vec* in) __attribute__((always_inline)) {
        if (Kernel == 1 || Nan || tests) return;
        for (int v = 0; v < V; v += 2) found = either(found, unordered(in[v], in[v + (V > 1)]));
    };
    Vec w[K], open[kOpen][V], carried[2][V], dense[V];
    for (int a = 0; a < K; ++a) w[a] = splat(job.row.filter[a]);
    for (auto& sums : open)
        for (Vec& sum : sums) sum = splat(0.0f);
    auto down = [&]() __attribute__((always_inline)) {
        if (Kernel == 1) return;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const Vec last = dense[v];
            dense[v] = larger_of<Nan>(Kernel > 2 ? larger_of<Nan>(carried[0][v], carried[1][v]) : carried[0][v], last);
            carried[0][v] = Kernel > 2 ? carried[1][v] : last;
            if (Kernel > 2) carried[1][v] = last;
        }
    };
    int64_t next = -job.row.size - 2;  // the window row whose first rows are carried
    auto read = [&](int64_t t) __attribute__((always_inline)) {
        const int64_t d = border(t, dense_rows, mode), r = d - before;
        if (d < 0) {
            for (Vec& v : dense) v = splat(0.0f);
            return;
        }
        if (Kernel > 1 && r != next) {
            maximum(r, carried[0]);
            look_for_nan(carried[0]);
            if (Kernel > 2) maximum(r + 1, carried[1]);
            if (Kernel > 2) look_for_nan(carried[1]);
        }
        maximum(r + Kernel - 1, dense);
        down();
        next = r + 1;
    };
    auto step = [&](int64_t i, auto read_row) __attribute__((always_inline)) {
        read_row(2 * i - lead);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
            for (int l = kOpen - 1; l > 0; --l) open[l][v] = madd(w[2 * l], dense[v], open[l - 1][v]);
            open[0][v] = mul(w[0], dense[v]);
        }
        read_row(2 * i - lead + 1);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
            for (int l = 0; l < kOpen; ++l)
                if (2 * l + 1 < K) open[l][v] = madd(w[2 * l + 1], dense[v], open[l][v]);
        if (i - (kOpen - 1) < row0) return;
        look_for_nan(open[kOpen - 1]);
        finish(i - (kOpen - 1), open[kOpen - 1]);
    };
    // Away from all borders rows follow without a question.
    const int64_t shift = Kernel - 1 - before, rows = maximum.plain_rows();
    const int64_t first = lead + 1 > lead - shift ? lead + 1 : lead - shift;
    const int64_t last = ((dense_rows < rows - shift ? dense_rows : rows - shift) + lead) / 2;
    for (int64_t i = row0; i < row1 + kOpen - 1; ++i) {
        const int64_t stop = last < row1 + kOpen - 1 ? last : row1 + kOpen - 1;
        if (i > row0 && i >= row0 + kOpen - 1 && 2 * i >= first && i < stop) {
            for (; i < stop; ++i)
                step(i, [&](int64_t d) __attribute__((always_inline)) {
                    maximum.plain(d + shift, dense);
                    down();
                });
            next = 2 * stop - lead - before;
            if (i == row1 + kOpen - 1) break;
        }
        step(i, read);
    }
    return any(found) || maximum.found_nan();
}

// Outputs of the rows [row0, row1); whether a NaN was met that these maxima do not follow.
template <class T, int Kernel, bool Relu, bool Nan, int K, int V>
bool strip_forward(const Job& job, const ForwardStrip& strip, const T* plane, T* out, int64_t row0, int64_t row1) {
    constexpr int H = (V + 1) / 2;  // vectors of outputs
    const int64_t out_pitch = job.col.out;
    const bool zeros = job.padding_mode == DEALIAS_ZEROS, swap = strip.swap;
    Vec w[K];
    for (int b = 0; b < K; ++b) w[b] = splat(job.row.filter[b]);
    RowMaximum<T, Kernel, Relu, Nan, V> maximum(job, strip.columns, plane, {plane, strip.ahead});
    return walk_down<T, Kernel, Relu, Nan, K, V>(job, maximum, true, row0, row1, [&](int64_t i, const Vec* sums)
                                                 __attribute__((always_inline)) {
        Vec parity[2][H];
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
            const Vec a = sums[2 * h], b = sums[2 * h + (V > 1)];
            parity[0][h] = kParted<T, Kernel, V> ? a : evens_apart(a, b);
            parity[1][h] = kParted<T, Kernel, V> ? b : odds_apart(a, b);
            if (swap) {
                const Vec even = parity[0][h];
                parity[0][h] = parity[1][h];
                parity[1][h] = even;
            }
        }
        T* to = out + i * out_pitch + strip.begin;
#pragma GCC unroll 2
        for (int h = 0; h < H; ++h) {
            Vec sum;
#pragma GCC unroll 5
            for (int b = 0; b < K; ++b) {
                const Route& route = strip.tap[h][b];
                const Vec first = parity[b & 1][0], second = parity[b & 1][H - 1];
                Vec v = H > 1 ? permuted(route.index, first, second) : permuted(route.index, first);
                if (zeros) v = keep(route.there, v);
                sum = b == 0 ? mul(w[0], v) : madd(w[b], v, sum);
            }
            store_lanes(strip.outputs[h], to + h * kWidth, sum);
        }
    });
}

template <class T> using StripForward = bool (*)(const Job&, const ForwardStrip&, const T*, T*, int64_t, int64_t);

template <class T, bool Nan> StripForward<T> strip_forward_for(const Job& job, int vectors) {
    return with_form<2, kStripTaps>(job, [=](auto form) -> StripForward<T> {
        using F = decltype(form);
        if (vectors == 1) return strip_forward<T, F::Kernel, F::Relu, Nan, F::K, 1>;
        return vectors == 2 ? strip_forward<T, F::Kernel, F::Relu, Nan, F::K, 2>
                            : strip_forward<T, F::Kernel, F::Relu, Nan, F::K, kStripVectors>;
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
template <class T>
int64_t lay_forward_strips(const Job& job, const Unit& unit, int& vectors, ForwardStrip*& strips, Arena& arena) {
    const int64_t columns = unit.col1 - unit.col0, lanes = 2 * columns < job.col.size ? 2 * columns : job.col.size;
    vectors = lanes <= kWidth ? 1 : lanes <= 2 * kWidth ? 2 : kStripVectors;
    const bool parted = kHalves<T> && job.col.kernel == 1 && vectors > 1;
    const int64_t least = (lanes + kStripVectors * kWidth - 1) / (kStripVectors * kWidth);
    for (int64_t count = least; count <= (vectors < kStripVectors ? least : least + 2); ++count) {
        const int64_t width = ((columns + count - 1) / count + 1) / 2 * 2, needed = (columns + width - 1) / width;
        strips = take_array<ForwardStrip>(arena, needed);
        int64_t s = 0;
        for (int64_t from = unit.col0; s < needed; ++s, from += width)
            if (!lay_forward(job, from, from + width < unit.col1 ? from + width : unit.col1, vectors, parted, strips[s])) break;
        if (s == needed) return needed;
    }
    return 0;
}

constexpr int64_t kBandOutputs = 16;  // rows of the result that strips side by side compute in turn

// Strips side by side share cache lines: they go down together, some rows at a time.
template <class Walk> void each_band(int64_t row0, int64_t row1, int64_t strips, int64_t band, Walk walk) {
    const int64_t height = strips > 1 ? band : row1 - row0;
    for (int64_t r = row0; r < row1; r += height)
        for (int64_t s = 0; s < strips; ++s) walk(s, r, r + height < row1 ? r + height : row1);
}

// Rows of maps that are blurred down, strip by strip, with AVX2.
template <class T> class StripRows {
public:
    // For the dense columns `need` of every map.
    StripRows(const Job& job, Range need, Arena& arena) : job_(job) {
        if (kFreeMasks || !suits_strips(job)) return;
        constexpr int64_t lanes = kDownVectors * kWidth;
        count_ = (need.hi - need.lo + lanes - 1) / lanes;
        columns_ = take_array<Columns>(arena, count_);
        for (int64_t s = 0; s < count_; ++s) {
            const int64_t first = need.lo + s * lanes, windows = need.hi - first < lanes ? need.hi - first : lanes;
            lay_columns(job, first - job.col.before, windows, kDownVectors, columns_[s]);
        }
    }

    bool usable() const { return count_ > 0; }

    // For the outputs of the rows [row0, row1).
    void operator()(int64_t image, int64_t row0, int64_t row1, float* out, int64_t pitch) const {
        if constexpr (!kFreeMasks) {
            const T* plane = static_cast<const T*>(job_.x) + image * job_.row.size * job_.col.size;
            with_form<2, kStripTaps>(job_, [&](auto form) {
                if (down<false>(form, plane, row0, row1, out, pitch)) down<true>(form, plane, row0, row1, out, pitch);
            });
        }
    }

private:
    // Whether a NaN was met that these maxima do not follow: that is seen as `walk_down` says.
    template <bool Nan, class F>
    bool down(F, const T* plane, int64_t row0, int64_t row1, float* out, int64_t pitch) const {
        bool nan = false;
        for (int64_t s = 0; s < count_; ++s, out += kDownVectors * kWidth) {
            const T* next = plane + 2 * row1 * job_.col.size + columns_[0].first;
            const Lines<0, T> lines(next + s * 2 * (row1 - row0) * kDownVectors * kWidth, 0);
            const bool tests = s == 0;
            const RowMaximum<T, F::Kernel, F::Relu, Nan, kDownVectors> maximum(job_, columns_[s], plane, lines, tests);
            auto write = [&](int64_t i, const Vec* sums) __attribute__((always_inline)) {
                for (int v = 0; v < kDownVectors; ++v) store(out + (i - row0) * pitch + v * kWidth, sums[v]);
            };
            nan |= walk_down<T, F::Kernel, F::Relu, Nan, F::K, kDownVectors>(job_, maximum, tests, row0, row1, write);
        }
        return nan;
    }

    const Job& job_;
    int64_t count_ = 0;
    Columns* columns_ = nullptr;
};

template <class T> bool forward_in_strips(const Job& job, const Unit& unit, Arena& arena) {
    if (!suits_strips(job)) return false;
    int vectors;
    ForwardStrip* strips;
    const int64_t count = lay_forward_strips<T>(job, unit, vectors, strips, arena);
    for (int64_t s = 0; s < count; ++s) strips[s].ahead = elements_ahead<T>(count, 2 * kBandOutputs, job.col.size);
    const StripForward<T> run = strip_forward_for<T, false>(job, vectors), again = strip_forward_for<T, true>(job, vectors);
    for (int64_t image = unit.image0; image < unit.image1 && count > 0; ++image) {
        const T* plane = static_cast<const T*>(job.x) + image * job.row.size * job.col.size;
        T* out = static_cast<T*>(job.result) + image * job.row.out * job.col.out;
        each_band(unit.row0, unit.row1, count, kBandOutputs, [&](int64_t s, int64_t row0, int64_t row1) {
            if (run(job, strips[s], plane, out, row0, row1)) again(job, strips[s], plane, out, row0, row1);
        });
    }
    return count > 0;
}

}  // namespace dealias::DEALIAS_ISA
