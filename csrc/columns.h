// Channels-last maps at stride 2 in registers: some channels walk along an output row, and the vertical sums of columns that
// two outputs share are kept. Only x and the result touch memory. The last vector of a pixel overlaps the one before.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

// Where a unit's columns and the rows of one output row lie in an image, windows of the maximum cut off at its edges:
// offsets in elements, -1 for zeros of the border.
template <int Kernel, int K> struct Places {
    int64_t row[K][Kernel];
    bool together;  // the rows follow one after the other
    int64_t next;  // the first of the two rows that the next output row adds
    const int64_t* columns;  // Kernel for each column that the unit's outputs look at
    int64_t* alone;  // columns of x that are the last of no window
    int64_t alone_count;
};

// Vectors of channels in a cache line; as many lines of a pixel are visited in order, as memory brings them.
template <class T> constexpr int64_t kLineVectors = kLine<T> / kWidth;
template <class T> constexpr int64_t kVisit = 16 * kLineVectors<T>;
constexpr int kColumnTaps = 5;

inline int64_t inside(int64_t at, int64_t size) { return at < 0 ? 0 : at < size ? at : size - 1; }

// Of the windows that start at sample `t` of the padded map.
template <int Kernel> void place(const Axis& axis, int mode, int64_t t, int64_t pitch, int64_t* places) {
    const int64_t d = border(t, axis.dense, mode);
    for (int64_t k = 0; k < Kernel; ++k) places[k] = d < 0 ? -1 : inside(d - axis.before + k, axis.size) * pitch;
}

// One output row; whether a NaN was met that these maxima do not follow. They do follow one in the last row and column of a
// window, so that it reaches a sum. Of rows that are `Together`, pixels in no such place are tested, and the sums.
template <class T, int Kernel, bool Relu, bool Nan, int K, bool Together>
bool walk_columns(const Job& job, const Places<Kernel, K>& places, const T* image, T* out, int64_t columns) {
    const int64_t cs = job.channels, pitch = job.col.size * cs;
    constexpr int64_t visit = kVisit<T>;
    Vec down[K], along[K], kept[K - 2][visit];
    for (int a = 0; a < K; ++a) down[a] = splat(job.row.filter[a]), along[a] = splat(job.col.filter[a]);
    Mask found = unordered(splat(0.0f), splat(0.0f));
    // The next output row, and the two rows that it adds, come into cache in the order of memory, which the channels do not follow.
    const T *ahead = image + places.next, *ahead_out = out + job.col.out * cs;
    auto prefetch_next = [&]() __attribute__((always_inline)) {
        __builtin_prefetch(ahead);
        __builtin_prefetch(ahead + kLine<T>);
        __builtin_prefetch(ahead + pitch);
        __builtin_prefetch(ahead + pitch + kLine<T>);
        __builtin_prefetch(ahead_out, 1);
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
        auto vertical = [&](const int64_t* column) __attribute__((always_inline)) {
            Vec sum = splat(0.0f);
            if (column[0] < 0) return sum;
            Vec best[K + Kernel];
            if (Together) {
                const T* row = from + places.row[0][0];
#pragma GCC unroll 8
                for (int r = 0; r < K + Kernel - 1; ++r) best[r] = across(row + r * pitch, column);
#pragma GCC unroll 2
                for (int r = 0; r < Kernel - 1 && !Nan; ++r) found = either(found, unordered(best[r]));
            }
#pragma GCC unroll 5
            for (int a = 0; a < K; ++a) {
                Vec v = splat(0.0f);
                if (Together || places.row[a][0] >= 0) {
#pragma GCC unroll 3
                    for (int k = 0; k < Kernel; ++k) {
                        const Vec next = Together ? best[a + k] : across(from + places.row[a][k], column);
                        v = k == 0 ? next : larger_of<Nan>(v, next);
                    }
                }
                sum = a == 0 ? mul(down[a], v) : madd(down[a], v, sum);
            }
            return sum;
        };
        const int64_t vectors = p + visit * kWidth <= cs ? visit : (cs - p + kWidth - 1) / kWidth;
        auto channel = [&](int64_t v) { return p + (v + 1) * kWidth <= cs ? p + v * kWidth : cs - kWidth; };
        for (int64_t v = 0; v < vectors; ++v) {
            from = image + channel(v);
            for (int64_t c = 0; c < places.alone_count && Together && !Nan; ++c)
                for (int64_t r = 0; r < K + Kernel - 1; ++r)
                    found = either(found, unordered(load(from + places.row[0][0] + r * pitch + places.alone[c])));
            for (int b = 0; b < K - 2; ++b) kept[b][v] = vertical(places.columns + b * Kernel);
        }
        for (int64_t j = 0; j < columns; ++j) {
            const int64_t* next = places.columns + (2 * j + K - 2) * Kernel;
            for (int64_t v = 0; v < vectors; ++v) {
                if (v % kLineVectors<T> == 0) prefetch_next();
                from = image + channel(v);
                Vec sums[K];
#pragma GCC unroll 5
                for (int b = 0; b < K - 2; ++b) sums[b] = kept[b][v];
                sums[K - 2] = vertical(next);
                sums[K - 1] = vertical(next + Kernel);
                Vec sum = mul(along[0], sums[0]);
#pragma GCC unroll 5
                for (int b = 1; b < K; ++b) sum = madd(along[b], sums[b], sum);
#pragma GCC unroll 5
                for (int b = 0; b < K - 2; ++b) kept[b][v] = sums[b + 2];
                if (Kernel > 1 && Together && !Nan) found = either(found, unordered(sum));
                store(out + j * cs + channel(v), sum);
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
    Places<Kernel, K> places = {{}, false, 0, offsets, take_array<int64_t>(arena, looks * Kernel), 0};
    // In a row of windows each shifts the columns of the one before.
    for (int64_t s = 0; s < looks; ++s)
        for (int64_t k = 0; k + 1 < Kernel; ++k) {
            const int64_t* at = offsets + s * Kernel + k;
            if (*at >= 0 && (s == 0 || at[1 - Kernel] != *at)) places.alone[places.alone_count++] = *at;
        }
    for (int64_t index = unit.image0; index < unit.image1; ++index) {
        const T* image = static_cast<const T*>(job.x) + index * row.size * pitch;
        for (int64_t i = unit.row0; i < unit.row1; ++i) {
            const int64_t first = 2 * i - row.lead - row.before;
            places.next = (first + K + Kernel - 1) * pitch + 2 * unit.col0 * cs;
            places.together = first >= 0 && first + K + Kernel - 1 <= row.size && first + row.before + K <= row.dense;
            for (int64_t a = 0; a < K; ++a)
                place<Kernel>(row, job.padding_mode, 2 * i - row.lead + a, pitch, places.row[a]);
            T* out = static_cast<T*>(job.result) + ((index * row.out + i) * col.out + unit.col0) * cs;
            const bool nan = places.together ? walk_columns<T, Kernel, F::Relu, false, K, true>(job, places, image, out, columns)
                                             : walk_columns<T, Kernel, F::Relu, false, K, false>(job, places, image, out, columns);
            if (nan) walk_columns<T, Kernel, F::Relu, true, K, false>(job, places, image, out, columns);
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
