// Forward: blur down into one row that stays in cache, fill its border there, blur along it with the stride.
#pragma once

#include "columns.h"
#if defined(__AVX2__)
#include "strips.h"
#else
#include "no_strips.h"
#endif

namespace dealias::DEALIAS_ISA {

constexpr int64_t kTileFloats = 2048;  // of blurred rows, before the blur along them

// Rows of the map that is blurred, in a ring as long as the filter.
template <class T> class DenseRows {
public:
    DenseRows(const Job& job, Range need, Arena& arena)
        : job_(job), source_(job, need, arena), slots_(ring_size(job.row.taps)) {
        slot_ = take_array<Slot>(arena, slots_);
        for (int64_t s = 0; s < slots_; ++s) slot_[s] = {0, nullptr, arena.take(source_.n + kSlack)};
        zero_ = arena.take(source_.n + kSlack);
        set_row(zero_, 0.0f, source_.n);
    }

    void start(int64_t image) {
        source_.start(image);
        for (int64_t s = 0; s < slots_; ++s) slot_[s].row = nullptr;
    }

    int64_t n() const { return source_.n; }
    const RowSource<T>& source() const { return source_; }

    // Row `t` of the padded map.
    const float* operator()(int64_t t) {
        Slot& slot = slot_[t & (slots_ - 1)];
        if (slot.row && slot.t == t) return slot.row;
        const int64_t d = border(t, job_.row.dense, job_.padding_mode);
        slot.t = t;
        slot.row = d < 0 ? zero_ : dense(d, slot.buffer);
        return slot.row;
    }

private:
    struct Slot {
        int64_t t;
        const float* row;
        float* buffer;
    };

    const float* dense(int64_t d, float* buffer) {
        if (job_.op != DEALIAS_MAX_BLUR) return source_.extended(d, buffer);
        int64_t rows[kMaxKernel];
        const int64_t count = source_.window(d, rows);
        const float* candidate[kMaxKernel] = {};
        for (int64_t k = 0; k < count; ++k) candidate[k] = source_.pooled(rows[k]).best;
        if (count)
            max_rows(candidate, count, buffer, source_.n);
        else
            set_row(buffer, kLowest, source_.n);
        return buffer;
    }

    const Job& job_;
    RowSource<T> source_;
    int64_t slots_;
    Slot* slot_;
    float* zero_;
};

// Where the rows of a step start, how far apart they are and how many there are.
template <class T> struct Rows {
    T* first;
    int64_t pitch, count;
};

// Copies the pixels at offset `from` of rows to offset `to`, or puts zeros there if it is -1.
inline void fill_column(Rows<float> rows, int64_t to, int64_t from, int64_t channels) {
    float* line = rows.first;
    for (int64_t r = 0; r < rows.count; ++r, line += rows.pitch) {
        if (from < 0)
            memset(line + to, 0, static_cast<size_t>(channels) * sizeof(float));
        else if (channels == 1)
            line[to] = line[from];
        else
            memcpy(line + to, line + from, static_cast<size_t>(channels) * sizeof(float));
    }
}

// out[j] = sum of weight[b] * in[j * Stride + b]
template <int Stride, class T> void blur_along(Rows<const float> in, const float* weight, int64_t taps, Rows<T> out, int64_t n) {
    with_constant<1, kFixedTaps>(taps, [=](auto count) {
        constexpr int K = count;
        Vec w[K];
        for (int b = 0; b < K; ++b) w[b] = splat(weight[b]);
        const float* from = in.first;
        T* to = out.first;
        for (int64_t r = 0; r < out.count; ++r, from += in.pitch, to += out.pitch) {
            prefetch_row<1>(to + out.count * out.pitch, n);  // of the next band: a burst would make the core wait
            fill_exactly(to, n, [&](int64_t j) __attribute__((always_inline)) {
                const float* at = from + j * Stride;
                Vec s = splat(0.0f);
#pragma GCC unroll 7
                for (int b = 0; b < K; b += Stride) {
                    const Vec here = load(at + b);
                    if constexpr (Stride == 1) {
                        s = b == 0 ? mul(w[b], here) : madd(w[b], here, s);
                    } else {
                        const Vec next = load(at + b + kWidth);
                        s = b == 0 ? mul(w[b], evens_apart(here, next)) : madd(w[b], evens_apart(here, next), s);
                        if (b + 1 < K) s = madd(w[b + 1], odds_apart(here, next), s);
                    }
                }
                return Stride == 1 ? s : in_order(s);
            });
        }
    });
}

template <class T> void blur_along_any(const float* in, const float* weight, int64_t taps, int64_t stride, int64_t step,
                                       T* out, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
        float s = weight[0] * in[j * stride];
        for (int64_t b = 1; b < taps; ++b) s = madd(weight[b], in[j * stride + b * step], s);
        out[j] = from_float<T>(s);
    }
}

// One output column of a channels-last map: out[c] = sum of weight[b] * in[b * channels + c]
template <class T> void blur_column(const float* in, const float* weight, int64_t taps, int64_t channels, T* out) {
    if (taps > kFixedTaps) return blur_along_any(in, weight, taps, 1, channels, out, channels);
    with_constant<1, kFixedTaps>(taps, [=](auto k) {
        Vec w[k];
        for (int b = 0; b < k; ++b) w[b] = splat(weight[b]);
        fill_exactly(out, channels, [&](int64_t c) __attribute__((always_inline)) {
            Vec s = mul(w[0], load(in + c));
            for (int b = 1; b < k; ++b) s = madd(w[b], load(in + b * channels + c), s);
            return s;
        });
    });
}

template <class T> void blur_outputs(const Job& job, Rows<const float> in, Rows<T> out, int64_t columns) {
    const Axis& col = job.col;
    const int64_t cs = job.channels, stride = col.stride;
    if (cs == 1 && stride <= 2 && col.taps <= kFixedTaps)
        return stride == 1 ? blur_along<1>(in, col.filter, col.taps, out, columns)
                           : blur_along<2>(in, col.filter, col.taps, out, columns);
    for (int64_t r = 0; r < out.count; ++r) {
        const float* from = in.first + r * in.pitch;
        T* to = out.first + r * out.pitch;
        if (cs == 1)
            blur_along_any(from, col.filter, col.taps, stride, 1, to, columns);
        else
            for (int64_t j = 0; j < columns; ++j) blur_column(from + j * stride * cs, col.filter, col.taps, cs, to + j * cs);
    }
}

// The maximum of each pixel and those beside it along the row, Kernel in all.
template <int Kernel, bool Relu, bool Nan, class T> [[gnu::always_inline]] inline Vec window_maximum(const T* at) {
    const Vec here = load(at);
    Vec v = here;
    if constexpr (Kernel > 1) v = larger_of<Nan>(v, load_beside<1>(at, here));
    if constexpr (Kernel > 2) v = larger_of<Nan>(v, load_beside<2>(at, here));
    return Relu ? rectified(v) : v;
}

// Blurs K rows of maxima over Kernel x Kernel windows straight from the rows of x below `in`, for one output row, or for
// two that share rows. A row costs its maximum along the row again for each call that looks at it: less than keeping it.
template <int K, int Kernel, bool Relu, bool Nan, int Outputs, class T>
void blur_windows_once(const float* weight, const T* in, int64_t pitch, int64_t ahead, float* out, int64_t out_pitch,
                       int64_t n) {
    constexpr int kShared = 2;  // the stride between the two outputs
    Vec w[K];
    for (int a = 0; a < K; ++a) w[a] = splat(weight[a]);
    for (int64_t p = 0; p < n; p += kWidth) {
        const T* at = in + p;
#pragma GCC unroll 4
        for (int k = 0; k < kShared * Outputs; ++k) __builtin_prefetch(at + ahead + k * pitch);
        Vec best[Kernel], s[2];
        auto next = [&]() {
            const Vec v = window_maximum<Kernel, Relu, Nan>(at);
            at += pitch;
            return v;
        };
#pragma GCC unroll 3
        for (int k = 0; k < Kernel - 1; ++k) best[k] = next();
#pragma GCC unroll 9
        for (int a = 0; a < K + kShared * (Outputs - 1); ++a) {
            best[Kernel - 1] = next();
            Vec v = best[0];
#pragma GCC unroll 3
            for (int k = 1; k < Kernel; ++k) v = larger_of<Nan>(v, best[k]);
#pragma GCC unroll 3
            for (int k = 0; k < Kernel - 1; ++k) best[k] = best[k + 1];
            if (a < K) s[0] = a == 0 ? mul(w[a], v) : madd(w[a], v, s[0]);
            if (Outputs == 2 && a >= kShared) s[1] = a == kShared ? mul(w[0], v) : madd(w[a - kShared], v, s[1]);
        }
        store(out + p, s[0]);
        if (Outputs == 2) store(out + out_pitch + p, s[1]);
    }
}

// The same for many output rows.
template <int K, int Kernel, bool Relu, bool Nan, class T>
void blur_windows_fixed(const Job& job, const T* in, int64_t pitch, int64_t ahead, Rows<float> out, int64_t n) {
    const float* weight = job.row.filter;
    const int64_t down = job.row.stride * pitch;
    int64_t r = 0;
    if (job.row.stride == 2)
        for (; r + 2 <= out.count; r += 2, in += 2 * down)
            blur_windows_once<K, Kernel, Relu, Nan, 2>(weight, in, pitch, ahead, out.first + r * out.pitch, out.pitch, n);
    for (; r < out.count; ++r, in += down)
        blur_windows_once<K, Kernel, Relu, Nan, 1>(weight, in, pitch, ahead, out.first + r * out.pitch, 0, n);
}

// The side of the windows if `blur_windows` knows them, else 0.
inline int64_t window_side(const Job& job) {
    if (job.channels > 1 || job.row.taps > kFixedTaps) return 0;
    if (job.op != DEALIAS_MAX_BLUR) return 1;
    return job.row.kernel == job.col.kernel && job.row.dilation * job.col.dilation == 1 ? job.row.kernel : 0;
}

template <class T>
void blur_windows(const Job& job, bool nan, const T* in, int64_t pitch, int64_t ahead, Rows<float> out, int64_t n) {
    with_form<1, kFixedTaps>(job, [&](auto form) {
        using F = decltype(form);
        if (nan)
            blur_windows_fixed<F::K, F::Kernel, F::Relu, (F::Kernel > 1)>(job, in, pitch, ahead, out, n);
        else
            blur_windows_fixed<F::K, F::Kernel, F::Relu, false>(job, in, pitch, ahead, out, n);
    });
}

template <class T> void forward(const Job& job, const Unit& unit, Arena& arena) {
    arena.reset();
    if (forward_in_strips<T>(job, unit, arena)) return;
    if (forward_in_columns<T>(job, unit, arena)) return;
    const Axis &row = job.row, &col = job.col;
    const int64_t cs = job.channels, dense = col.dense;
    // The padded columns [t0, t1), and the dense columns that these stand for.
    const int64_t t0 = unit.col0 * col.stride - col.lead, t1 = (unit.col1 - 1) * col.stride - col.lead + col.taps;
    const Range need = needed(col, job.padding_mode, t0, t1);

    DenseRows<T> rows(job, need, arena);
    const int64_t n = rows.n(), base = t0 < need.lo ? t0 : need.lo, stop = t1 > need.hi ? t1 : need.hi;
    // Several rows at a time, one step after the other: a load too soon after the stores that it spans waits for them.
    const int64_t pitch = whole_blocks((stop - base) * cs) + 2 * kBlock;
    const int64_t outputs = unit.row1 - unit.row0, most = pitch < kTileFloats ? kTileFloats / pitch : 1;
    const int64_t bands = (outputs + most - 1) / most, height = (outputs + bands - 1) / bands;
    float* tile = arena.take(height * pitch + 4 * kSlack);
    const float** taps = take_array<const float*>(arena, row.taps);
    // Where the border of a row comes from: pairs of offsets, from -1 for zero.
    int64_t* fills = take_array<int64_t>(arena, 2 * (t1 - t0));
    int64_t fill_count = 0;
    for (int64_t t = t0; t < t1; ++t) {
        if (t >= 0 && t < dense) continue;
        const int64_t d = border(t, dense, job.padding_mode);
        fills[2 * fill_count] = (t - base) * cs;
        fills[2 * fill_count++ + 1] = d < 0 ? -1 : (d - base) * cs;
    }
    const RowSource<T>& source = rows.source();
    const int64_t side = window_side(job);
    for (int64_t image = unit.image0; image < unit.image1; ++image) {
        rows.start(image);
        for (int64_t i0 = unit.row0; i0 < unit.row1; i0 += height) {
            const int64_t i1 = i0 + height < unit.row1 ? i0 + height : unit.row1;
            // The outputs [b0, b1) whose rows can be read in place.
            int64_t b0 = i0, b1 = side ? i1 : i0;
            auto first_row = [&](int64_t i) { return i * row.stride - row.lead - row.before; };
            auto last_row = [&](int64_t i) { return first_row(i) + row.taps + side - 2; };
            while (b0 < b1 && first_row(b0) < 0) ++b0;
            while (b0 < b1 && last_row(b1 - 1) >= row.size) --b1;
            const T* block = nullptr;
            while (b0 < b1 && !(block = source.readable(first_row(b0), last_row(b1 - 1) - first_row(b0) + 1))) --b1;
            if (block) {
                const int64_t count = last_row(b1 - 1) - first_row(b0) + 1;
                const bool nan = side > 1 && has_nan(block, source.pitch, count, n + col.reach);
                const int64_t ahead = height * row.stride * source.pitch;
                float* first = tile + (b0 - i0) * pitch + need.lo - base;
                blur_windows(job, nan, block, source.pitch, ahead, {first, pitch, b1 - b0}, n);
            }
            T* out = static_cast<T*>(job.result) + ((image * row.out + i0) * col.out + unit.col0) * cs;
            for (int64_t i = i0; i < i1; ++i) {
                if (block && i >= b0 && i < b1) continue;
                float* line = tile + (i - i0) * pitch + (need.lo - base) * cs;
                for (int64_t a = 0; a < row.taps; ++a) taps[a] = rows(i * row.stride - row.lead + a);
                if (job.op == DEALIAS_RELU_BLUR)
                    weigh_rows<true>(taps, row.filter, row.taps, line, n);
                else
                    weigh_rows<false>(taps, row.filter, row.taps, line, n);
            }
            for (int64_t f = 0; f < fill_count; ++f)
                fill_column({tile, pitch, i1 - i0}, fills[2 * f], fills[2 * f + 1], cs);
            blur_outputs(job, {tile + (t0 - base) * cs, pitch, i1 - i0}, Rows<T>{out, col.out * cs, i1 - i0},
                         unit.col1 - unit.col0);
        }
    }
}

}  // namespace dealias::DEALIAS_ISA
