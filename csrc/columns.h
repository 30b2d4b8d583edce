// Channels-last maps at stride 2 in registers: some channels walk along an output row, and the vertical sums of columns that
// two outputs share are kept. Only x and the result touch memory. The last vector of a pixel overlaps the one before.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

// Where a unit's columns and the rows of one output row lie in an image, with windows of the maximum cut off at its edges:
// offsets in elements, -1 for zeros of the border.
template <int Kernel, int K> struct Places {
    int64_t row[K][Kernel];
    int64_t next;  // the first of the rows that the next output rows add
    const int64_t* columns;  // Kernel for each column that the unit's outputs look at
    int64_t* alone;  // columns of x that are the last of no window
    int64_t alone_count;
};

// Vectors of channels in a cache line; as many lines of a pixel are visited in order, as memory brings them.
template <class T> constexpr int64_t kLineVectors = kLine<T> / kWidth;
template <class T> constexpr int64_t kVisit = 16 * kLineVectors<T>;
constexpr int kColumnTaps = 5;
template <int Kernel> constexpr int kAtOnce = Kernel > 1 && !kFreeMasks ? 2 : 1;  // output rows, where theirs of x allow it

inline int64_t inside(int64_t at, int64_t size) { return at < 0 ? 0 : at < size ? at : size - 1; }

// Of the windows that start at sample `t` of the padded map.
template <int Kernel> void place(const Axis& axis, int mode, int64_t t, int64_t pitch, int64_t* places) {
    const int64_t d = border(t, axis.dense, mode);
    for (int64_t k = 0; k < Kernel; ++k) places[k] = d < 0 ? -1 : inside(d - axis.before + k, axis.size) * pitch;
}

// `Together` output rows whose rows of x follow one after the other; 0 stands for one output row at the border. Whether a NaN
// was met that these maxima do not follow. They do follow one in the last row and column of a window, so that it reaches a sum.
// Away from the border pixels in no such place are tested, and the sums.
template <class T, int Kernel, bool Relu, bool Nan, int K, int Together>
bool walk_columns(const Job& job, const Places<Kernel, K>& places, const T* image, T* out, int64_t columns) {
    const int64_t cs = job.channels, pitch = job.col.size * cs, out_pitch = job.col.out * cs;
    constexpr int64_t visit = kVisit<T>;
    constexpr int Outputs = Together > 0 ? Together : 1, Dense = K + 2 * (Outputs - 1), Rows = Dense + Kernel - 1;
    Vec down[K], along[K], kept[visit][K - 2][Outputs];
    for (int a = 0; a < K; ++a) down[a] = splat(job.row.filter[a]), along[a] = splat(job.col.filter[a]);
    Mask found = unordered(splat(0.0f), splat(0.0f));
    // The next output rows, and the rows that they add, come into cache in the order of memory, which the channels do not follow.
    const T *ahead = image + places.next, *ahead_out = out + Outputs * out_pitch;
    auto prefetch_next = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int r = 0; r < 2 * kAtOnce<Kernel>; ++r) {
            __builtin_prefetch(ahead + r * pitch);
            __builtin_prefetch(ahead + r * pitch + kLine<T>);
            if (r % 2 == 0) __builtin_prefetch(ahead_out + r / 2 * out_pitch, 1);
        }
        ahead += 2 * kLine<T>;
        ahead_out += kLine<T>;
    };
    for (int64_t p = 0; p < cs; p += visit * kWidth) {
        const T* from;
        // The maximum of a row over the columns of a window.
        auto across = [&](const T* row, const int64_t* column) __attribute__((always_inline)) {
            Vec v = load(row + column[0]);
#pragma GCC unroll 3
            for (int k = 1; k < Kernel; ++k) {
                const Vec next = load(row + column[k]);
                if (!Nan && !Together) found = either(found, unordered(v, next));
                v = larger_of<Nan>(v, next);
            }
            return Relu ? rectified(v) : v;
        };
        auto vertical = [&](const int64_t* column, Vec* sums) __attribute__((always_inline)) {
            for (int o = 0; o < Outputs; ++o) sums[o] = splat(0.0f);
            if (column[0] < 0) return;
            Vec best[Rows + 1];
            if (Together) {
                const T* row = from + places.row[0][0];
#pragma GCC unroll 9
                for (int r = 0; r < Rows; ++r) best[r] = across(row + r * pitch, column);
#pragma GCC unroll 2
                for (int r = 0; r < Kernel - 1 && !Nan; ++r) found = either(found, unordered(best[r]));
            }
#pragma GCC unroll 7
            for (int a = 0; a < Dense; ++a) {
                Vec v = splat(0.0f);
                if (Together || places.row[a][0] >= 0) {
#pragma GCC unroll 3
                    for (int k = 0; k < Kernel; ++k) {
                        const Vec next = Together ? best[a + k] : across(from + places.row[a][k], column);
                        v = k == 0 ? next : larger_of<Nan>(v, next);
                    }
                }
                for (int o = 0; o < Outputs; ++o) {
                    const int tap = a - 2 * o;
                    if (tap >= 0 && tap < K) sums[o] = tap == 0 ? mul(down[0], v) : madd(down[tap], v, sums[o]);
                }
            }
        };
        const int64_t vectors = p + visit * kWidth <= cs ? visit : (cs - p + kWidth - 1) / kWidth;
        auto channel = [&](int64_t v) { return p + (v + 1) * kWidth <= cs ? p + v * kWidth : cs - kWidth; };
        for (int64_t v = 0; v < vectors; ++v) {
            from = image + channel(v);
            for (int64_t c = 0; c < places.alone_count && Together && !Nan; ++c)
                for (int64_t r = 0; r < Rows; ++r)
                    found = either(found, unordered(load(from + places.row[0][0] + r * pitch + places.alone[c])));
            for (int b = 0; b < K - 2; ++b) vertical(places.columns + b * Kernel, kept[v][b]);
        }
        for (int64_t j = 0; j < columns; ++j) {
            const int64_t* next = places.columns + (2 * j + K - 2) * Kernel;
            for (int64_t v = 0; v < vectors; ++v) {
                if (v % kLineVectors<T> == 0) prefetch_next();
                from = image + channel(v);
                Vec sums[K][Outputs];
#pragma GCC unroll 5
                for (int b = 0; b < K - 2; ++b)
                    for (int o = 0; o < Outputs; ++o) sums[b][o] = kept[v][b][o];
                vertical(next, sums[K - 2]);
                vertical(next + Kernel, sums[K - 1]);
                for (int o = 0; o < Outputs; ++o) {
                    Vec sum = mul(along[0], sums[0][o]);
#pragma GCC unroll 5
                    for (int b = 1; b < K; ++b) sum = madd(along[b], sums[b][o], sum);
#pragma GCC unroll 5
                    for (int b = 0; b < K - 2; ++b) kept[v][b][o] = sums[b + 2][o];
                    if (Kernel > 1 && Together && !Nan) found = either(found, unordered(sum));
                    store(out + o * out_pitch + j * cs + channel(v), sum);
                }
            }
        }
    }
    return any(found);
}

template <class T, class F> void columns_forward(F, const Job& job, const Unit& unit, Arena& arena) {
    constexpr int Kernel = F::Kernel, K = F::K;
    const Axis &row = job.row, &col = job.col;
    const int64_t cs = job.channels, pitch = col.size * cs, columns = unit.col1 - unit.col0, looks = 2 * (columns - 1) + K;
    int64_t* offsets = take_array<int64_t>(arena, looks * Kernel);
    for (int64_t s = 0; s < looks; ++s)
        place<Kernel>(col, job.padding_mode, 2 * unit.col0 - col.lead + s, cs, offsets + s * Kernel);
    Places<Kernel, K> places = {{}, 0, offsets, take_array<int64_t>(arena, looks * Kernel), 0};
    // In a row of windows each shifts the columns of the one before.
    for (int64_t s = 0; s < looks; ++s)
        for (int64_t k = 0; k + 1 < Kernel; ++k) {
            const int64_t* at = offsets + s * Kernel + k;
            if (*at >= 0 && (s == 0 || at[1 - Kernel] != *at)) places.alone[places.alone_count++] = *at;
        }
    // The last row of x from which K windows lie inside.
    const int64_t last = common({0, row.size - Kernel + 1}, {0, row.dense - row.before}).hi - K;
    for (int64_t index = unit.image0; index < unit.image1; ++index) {
        const T* image = static_cast<const T*>(job.x) + index * row.size * pitch;
        auto walk = [&](int64_t i, auto nan, auto together) {
            for (int64_t a = 0; a < K; ++a) place<Kernel>(row, job.padding_mode, 2 * i - row.lead + a, pitch, places.row[a]);
            T* out = static_cast<T*>(job.result) + ((index * row.out + i) * col.out + unit.col0) * cs;
            return walk_columns<T, Kernel, F::Relu, nan, K, together>(job, places, image, out, columns);
        };
        for (int64_t i = unit.row0, count; i < unit.row1; i += count) {
            const int64_t first = 2 * i - row.lead - row.before;
            const int64_t most = first + 2 <= last && i + 1 < unit.row1 ? kAtOnce<Kernel> : 1;
            const int64_t together = first < 0 || first > last ? 0 : most;
            count = together > 0 ? together : 1;
            places.next = (first + 2 * count + K + Kernel - 3) * pitch + 2 * unit.col0 * cs;
            const auto quick = [&](auto n) { return walk(i, std::false_type(), n); };
            const bool nan = with_constant<0, kAtOnce<Kernel>>(together, quick);
            for (int64_t again = i; again < i + count && nan; ++again) walk(again, std::true_type(), Constant<0>());
        }
    }
}

template <class T> bool forward_in_columns(const Job& job, const Unit& unit, Arena& arena) {
    const Axis &row = job.row, &col = job.col;
    if (job.channels < kWidth || job.wrap || row.stride != 2 || col.stride != 2 || row.taps != col.taps) return false;
    if (row.kernel != col.kernel || row.dilation * col.dilation != 1) return false;
    for (const Axis* axis : {&row, &col})  // no window lies in padding alone
        if (axis->before >= axis->kernel || axis->dense - axis->before > axis->size) return false;
    if (row.taps < (row.kernel > 1 ? 2 : 3) || row.taps > kColumnTaps) return false;  // a blur of two costs less row by row
    with_form<2, kColumnTaps>(job, [&](auto form) { columns_forward<T>(form, job, unit, arena); });
    return true;
}

}  // namespace dealias::DEALIAS_ISA
