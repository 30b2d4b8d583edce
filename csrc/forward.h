// Forward: blur down into one row that stays in cache, fill its border there, blur along it with the stride.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

// Rows of the map that is blurred, in a ring as long as the filter.
template <class T> class DenseRows {
public:
    DenseRows(const Job& job, int64_t image, Range need, Arena& arena)
        : job_(job), source_(job, image, need, arena), slots_(job.taps) {
        slot_ = take_array<Slot>(arena, slots_);
        for (int64_t s = 0; s < slots_; ++s) slot_[s] = {0, nullptr, arena.take(source_.n + kSlack)};
        zero_ = arena.take(source_.n + kSlack);
        set_row(zero_, 0.0f, source_.n);
    }

    int64_t n() const { return source_.n; }

    // Row `t` of the padded map.
    const float* operator()(int64_t t) {
        Slot& slot = slot_[modulo(t, slots_)];
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

// out[j] = sum of weight[b] * in[j * Stride + b]
template <int K, int Stride, class T> void blur_along_fixed(const float* RESTRICT in, const float* weight, T* RESTRICT out,
                                                            int64_t n) {
    float w[7] = {};
    for (int b = 0; b < K; ++b) w[b] = weight[b];
    for (int64_t j = 0; j < n; ++j) {
        const float* at = in + j * Stride;
        float s = w[0] * at[0];
        if constexpr (K > 1) s = madd(w[1], at[1], s);
        if constexpr (K > 2) s = madd(w[2], at[2], s);
        if constexpr (K > 3) s = madd(w[3], at[3], s);
        if constexpr (K > 4) s = madd(w[4], at[4], s);
        if constexpr (K > 5) s = madd(w[5], at[5], s);
        if constexpr (K > 6) s = madd(w[6], at[6], s);
        out[j] = from_float<T>(s);
    }
}

template <class T> void blur_along_any(const float* in, const float* weight, int64_t taps, int64_t stride, int64_t step,
                                       T* out, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
        float s = weight[0] * in[j * stride];
        for (int64_t b = 1; b < taps; ++b) s = madd(weight[b], in[j * stride + b * step], s);
        out[j] = from_float<T>(s);
    }
}

template <int Stride, class T> void blur_along(const float* in, const float* weight, int64_t taps, T* out, int64_t n) {
    switch (taps) {
        case 1: return blur_along_fixed<1, Stride>(in, weight, out, n);
        case 2: return blur_along_fixed<2, Stride>(in, weight, out, n);
        case 3: return blur_along_fixed<3, Stride>(in, weight, out, n);
        case 4: return blur_along_fixed<4, Stride>(in, weight, out, n);
        case 5: return blur_along_fixed<5, Stride>(in, weight, out, n);
        case 6: return blur_along_fixed<6, Stride>(in, weight, out, n);
        case 7: return blur_along_fixed<7, Stride>(in, weight, out, n);
        default: return blur_along_any(in, weight, taps, Stride, 1, out, n);
    }
}

// One output column of a channels-last map: out[c] = sum of weight[b] * in[b * channels + c]
template <int K, class T> void blur_column_fixed(const float* RESTRICT in, const float* weight, int64_t channels,
                                                 T* RESTRICT out) {
    float w[7] = {};
    for (int b = 0; b < K; ++b) w[b] = weight[b];
    for (int64_t c = 0; c < channels; ++c) {
        float s = w[0] * in[c];
        if constexpr (K > 1) s = madd(w[1], in[c + channels], s);
        if constexpr (K > 2) s = madd(w[2], in[c + 2 * channels], s);
        if constexpr (K > 3) s = madd(w[3], in[c + 3 * channels], s);
        if constexpr (K > 4) s = madd(w[4], in[c + 4 * channels], s);
        if constexpr (K > 5) s = madd(w[5], in[c + 5 * channels], s);
        if constexpr (K > 6) s = madd(w[6], in[c + 6 * channels], s);
        out[c] = from_float<T>(s);
    }
}

template <class T> void blur_column(const float* in, const float* weight, int64_t taps, int64_t channels, T* out) {
    switch (taps) {
        case 1: return blur_column_fixed<1>(in, weight, channels, out);
        case 2: return blur_column_fixed<2>(in, weight, channels, out);
        case 3: return blur_column_fixed<3>(in, weight, channels, out);
        case 4: return blur_column_fixed<4>(in, weight, channels, out);
        case 5: return blur_column_fixed<5>(in, weight, channels, out);
        case 6: return blur_column_fixed<6>(in, weight, channels, out);
        case 7: return blur_column_fixed<7>(in, weight, channels, out);
        default: return blur_along_any(in, weight, taps, 1, channels, out, channels);
    }
}

template <class T> void blur_outputs(const Job& job, const float* in, T* out, int64_t columns) {
    const int64_t cs = job.channels, stride = job.col.stride;
    if (cs > 1)
        for (int64_t j = 0; j < columns; ++j) blur_column(in + j * stride * cs, job.filter, job.taps, cs, out + j * cs);
    else if (stride == 1)
        blur_along<1>(in, job.filter, job.taps, out, columns);
    else if (stride == 2)
        blur_along<2>(in, job.filter, job.taps, out, columns);
    else
        blur_along_any(in, job.filter, job.taps, stride, 1, out, columns);
}

template <class T> void forward(const Job& job, const Unit& unit, Arena& arena) {
    arena.reset();
    const Axis &row = job.row, &col = job.col;
    const int64_t cs = job.channels, dense = col.dense;
    // The padded columns [t0, t1), and the dense columns that these stand for.
    const int64_t t0 = unit.col0 * col.stride - job.lead, t1 = (unit.col1 - 1) * col.stride - job.lead + job.taps;
    Range need = {dense, 0};
    auto look_at = [&](int64_t t) {
        const int64_t d = border(t, dense, job.padding_mode);
        if (d < 0) return;
        need.lo = d < need.lo ? d : need.lo;
        need.hi = d + 1 > need.hi ? d + 1 : need.hi;
    };
    for (int64_t t = t0; t < t1 && t < 1; ++t) look_at(t);
    for (int64_t t = t1 - 1; t >= t0 && t >= dense - 1; --t) look_at(t);
    look_at(t0 < 0 ? 0 : t0 < dense ? t0 : dense - 1);
    look_at(t1 - 1 < dense ? (t1 < 1 ? 0 : t1 - 1) : dense - 1);

    DenseRows<T> rows(job, unit.image, need, arena);
    const int64_t base = t0 < need.lo ? t0 : need.lo, stop = t1 > need.hi ? t1 : need.hi;
    float* line = arena.take((stop - base) * cs + 4 * kSlack);
    auto column = [&](int64_t t) { return line + (t - base) * cs; };
    auto fill = [&](int64_t t) {
        const int64_t d = border(t, dense, job.padding_mode);
        if (d < 0)
            for (int64_t c = 0; c < cs; ++c) column(t)[c] = 0.0f;
        else
            memcpy(column(t), column(d), static_cast<size_t>(cs) * sizeof(float));
    };
    const float** taps = take_array<const float*>(arena, job.taps);
    T* out = static_cast<T*>(job.result) + ((unit.image * row.out + unit.row0) * col.out + unit.col0) * cs;
    for (int64_t i = unit.row0; i < unit.row1; ++i, out += col.out * cs) {
        for (int64_t a = 0; a < job.taps; ++a) taps[a] = rows(i * row.stride - job.lead + a);
        if (job.op == DEALIAS_RELU_BLUR)
            weigh_rows<true>(taps, job.filter, job.taps, column(need.lo), rows.n());
        else
            weigh_rows<false>(taps, job.filter, job.taps, column(need.lo), rows.n());
        for (int64_t t = t0; t < t1 && t < 0; ++t) fill(t);
        for (int64_t t = t0 > dense ? t0 : dense; t < t1; ++t) fill(t);
        blur_outputs(job, column(t0), out, unit.col1 - unit.col0);
    }
}

}  // namespace dealias::DEALIAS_ISA
