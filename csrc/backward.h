// Backward: each row of the input's gradient gathers from the output rows that it took part in. The gradient of the blur
// goes up into one row that stays in cache; the maximum then sends it first to a row, then to a column of its window.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

// The gradient of the dense map, row by row.
template <class T> class DenseGradient {
public:
    DenseGradient(const Job& job, int64_t image, Range need, Arena& arena) : job_(job), need_(need) {
        const Axis& col = job.col;
        grad_ = static_cast<const T*>(job.grad) + image * job.row.out * col.out * job.channels;
        outputs_ = {col.out, 0};
        for (int64_t e = col.adjoint.start[need.lo]; e < col.adjoint.start[need.hi]; ++e) {
            const int64_t j = col.adjoint.output[e];
            outputs_.lo = j < outputs_.lo ? j : outputs_.lo;
            outputs_.hi = j + 1 > outputs_.hi ? j + 1 : outputs_.hi;
        }
        if (outputs_.hi < outputs_.lo) outputs_ = {0, 0};
        // The interleaved upsampling reads past the outputs, where the gradient is zero.
        const int64_t phases = (job.taps + 1) / 2 + kSlack;
        const int64_t regular_lo = (need.lo + job.lead) / col.stride, regular_hi = (need.hi + job.lead) / col.stride + 1;
        base_ = (outputs_.lo < regular_lo ? outputs_.lo : regular_lo) - phases - job.taps;
        const int64_t stop = (outputs_.hi > regular_hi ? outputs_.hi : regular_hi) + phases;
        const int64_t floats = (stop - base_) * job.channels + kSlack;
        line_ = arena.take(floats);
        set_row(line_, 0.0f, floats - kBlock);
    }

    // Writes the gradient of row `d`, columns need.lo .. need.hi - 1.
    void row(int64_t d, float* out) {
        blur_down(d);
        if (job_.channels > 1)
            for (int64_t c = need_.lo; c < need_.hi; ++c) gather(c, out + (c - need_.lo) * job_.channels);
        else if (job_.col.stride == 1)
            spread_dense(out);
        else if (job_.col.stride == 2)
            spread_pairs(out);
        else
            for (int64_t c = need_.lo; c < need_.hi; ++c) gather(c, out + (c - need_.lo));
    }

private:
    float* at(int64_t j) { return line_ + (j - base_) * job_.channels; }

    void blur_down(int64_t d) {
        const Adjoint& adjoint = job_.row.adjoint;
        const int64_t n = (outputs_.hi - outputs_.lo) * job_.channels;
        float* RESTRICT out = at(outputs_.lo);
        const int64_t begin = adjoint.start[d], end = adjoint.start[d + 1];
        const int64_t pitch = job_.col.out * job_.channels;
        const T* first = grad_ + outputs_.lo * job_.channels;
        auto line = [&](int64_t e) { return first + adjoint.output[e] * pitch; };
        int64_t e = begin;
        if (end - e >= 2) {
            const T *RESTRICT a = line(e), *RESTRICT b = line(e + 1);
            const float wa = adjoint.weight[e], wb = adjoint.weight[e + 1];
            for (int64_t p = 0; p < n; ++p) out[p] = madd(wb, to_float(b[p]), wa * to_float(a[p]));
            e += 2;
        } else if (end - e == 1) {
            const T* RESTRICT a = line(e);
            const float wa = adjoint.weight[e];
            for (int64_t p = 0; p < n; ++p) out[p] = wa * to_float(a[p]);
            e += 1;
        } else {
            for (int64_t p = 0; p < n; ++p) out[p] = 0.0f;
        }
        for (; e < end; ++e) {
            const T* RESTRICT a = line(e);
            const float wa = adjoint.weight[e];
            for (int64_t p = 0; p < n; ++p) out[p] = madd(wa, to_float(a[p]), out[p]);
        }
    }

    // One column from its list of outputs.
    void gather(int64_t c, float* RESTRICT out) {
        const Adjoint& adjoint = job_.col.adjoint;
        const int64_t n = job_.channels, begin = adjoint.start[c], end = adjoint.start[c + 1];
        int64_t e = begin;
        if (end - e >= 2) {
            const float *RESTRICT a = at(adjoint.output[e]), *RESTRICT b = at(adjoint.output[e + 1]);
            const float wa = adjoint.weight[e], wb = adjoint.weight[e + 1];
            for (int64_t p = 0; p < n; ++p) out[p] = madd(wb, b[p], wa * a[p]);
            e += 2;
        } else {
            for (int64_t p = 0; p < n; ++p) out[p] = 0.0f;
        }
        for (; e < end; ++e) {
            const float* RESTRICT a = at(adjoint.output[e]);
            const float wa = adjoint.weight[e];
            for (int64_t p = 0; p < n; ++p) out[p] = madd(wa, a[p], out[p]);
        }
    }

    void spread_dense(float* RESTRICT out) {
        const int64_t n = whole_blocks(need_.hi - need_.lo);
        const float* in = at(need_.lo + job_.lead);
        for (int64_t b = 0; b < job_.taps; ++b) {
            const float* RESTRICT from = in - b;
            const float w = job_.filter[b];
            if (b == 0)
                for (int64_t p = 0; p < n; ++p) out[p] = w * from[p];
            else
                for (int64_t p = 0; p < n; ++p) out[p] = madd(w, from[p], out[p]);
        }
        patch(out);
    }

    // Stride 2: the even and the odd columns each take every other tap.
    template <int M> void spread_pairs_fixed(float* RESTRICT out) {
        const int64_t u = need_.lo + job_.lead, pairs = whole_blocks((need_.hi - need_.lo + 1) / 2);
        const int64_t odd = u & 1;
        const float *RESTRICT in0 = at(u / 2), *RESTRICT in1 = at((u + 1) / 2);
        float w0[M], w1[M];
        for (int64_t m = 0; m < M; ++m) {
            w0[m] = 2 * m + odd < job_.taps ? job_.filter[2 * m + odd] : 0.0f;
            w1[m] = 2 * m + 1 - odd < job_.taps ? job_.filter[2 * m + 1 - odd] : 0.0f;
        }
        for (int64_t q = 0; q < pairs; ++q) {
            float s0 = w0[0] * in0[q], s1 = w1[0] * in1[q];
            if constexpr (M > 1) s0 = madd(w0[1], in0[q - 1], s0), s1 = madd(w1[1], in1[q - 1], s1);
            if constexpr (M > 2) s0 = madd(w0[2], in0[q - 2], s0), s1 = madd(w1[2], in1[q - 2], s1);
            if constexpr (M > 3) s0 = madd(w0[3], in0[q - 3], s0), s1 = madd(w1[3], in1[q - 3], s1);
            out[2 * q] = s0;
            out[2 * q + 1] = s1;
        }
    }

    void spread_pairs(float* out) {
        switch ((job_.taps + 1) / 2) {
            case 1: spread_pairs_fixed<1>(out); break;
            case 2: spread_pairs_fixed<2>(out); break;
            case 3: spread_pairs_fixed<3>(out); break;
            case 4: spread_pairs_fixed<4>(out); break;
            default:
                for (int64_t c = need_.lo; c < need_.hi; ++c) gather(c, out + (c - need_.lo));
                return;
        }
        patch(out);
    }

    // The columns that also stand in for the border.
    void patch(float* out) {
        const Adjoint& adjoint = job_.col.adjoint;
        for (int64_t f = 0; f < adjoint.folded_count; ++f) {
            const int64_t c = adjoint.folded[f];
            if (c >= need_.lo && c < need_.hi) gather(c, out + (c - need_.lo));
        }
    }

    const Job& job_;
    Range need_, outputs_;
    const T* grad_;
    int64_t base_;
    float* line_;
};

template <class T> void backward_blur(const Job& job, const Unit& unit, Arena& arena) {
    const Range need = {unit.col0, unit.col1};
    const int64_t cs = job.channels, n = (need.hi - need.lo) * cs;
    DenseGradient<T> gradient(job, unit.image, need, arena);
    float* line = arena.take(n + 4 * kSlack);
    const int64_t offset = ((unit.image * job.row.size + unit.row0) * job.col.size + unit.col0) * cs;
    T* RESTRICT out = static_cast<T*>(job.result) + offset;
    const T* RESTRICT x = static_cast<const T*>(job.x) + (job.op == DEALIAS_RELU_BLUR ? offset : 0);
    const int64_t pitch = job.col.size * cs;
    for (int64_t r = unit.row0; r < unit.row1; ++r, out += pitch) {
        gradient.row(r, line);
        if (job.op == DEALIAS_RELU_BLUR) {
            for (int64_t p = 0; p < n; ++p) out[p] = from_float<T>(to_float(x[p]) <= 0.0f ? 0.0f : line[p]);
            x += pitch;
        } else {
            for (int64_t p = 0; p < n; ++p) out[p] = from_float<T>(line[p]);
        }
    }
}

template <class T> class MaxBackward {
public:
    MaxBackward(const Job& job, const Unit& unit, Arena& arena)
        : job_(job), unit_(unit), cs_(job.channels), need_(needed(job, unit)), source_(job, unit.image, need_, arena),
          gradient_(job, unit.image, need_, arena) {
        dense_ = arena.take(source_.n + 4 * kSlack);
        for (float*& row : unused_) row = arena.take(source_.n + kSlack);
        slots_ = job.row.reach + 1;
        best_ = take_array<float*>(arena, slots_);
        for (int64_t s = 0; s < slots_; ++s) best_[s] = arena.take(source_.n + kSlack);
        // Columns that no window starts at stay zero: in front of the map, and behind it.
        span_ = {unit.col0 + job.col.before - job.col.reach, unit.col1 + job.col.before};
        if (span_.hi < need_.hi) span_.hi = need_.hi;
        for (int64_t k = 0; k < job.col.kernel; ++k) {
            part_[k] = arena.take((span_.hi - span_.lo) * cs_ + kSlack);
            set_row(part_[k], 0.0f, (span_.hi - span_.lo) * cs_ + kBlock);
        }
    }

    void run() {
        const Axis& row = job_.row;
        for (int64_t v = unit_.row0 + row.before - row.reach; v < unit_.row1 + row.before; ++v) {
            const int64_t opened = v - row.before + row.reach;
            if (owned(opened)) set_row(best_[modulo(opened, slots_)], 0.0f, source_.n);
            if (job_.wrap || (v >= 0 && v < row.dense)) route(v);
            if (owned(v - row.before)) finish(v - row.before);
        }
    }

private:
    static Range needed(const Job& job, const Unit& unit) {
        if (job.wrap) return {0, job.col.dense};
        const int64_t lo = unit.col0 + job.col.before - job.col.reach, hi = unit.col1 + job.col.before;
        return {lo < 0 ? 0 : lo, hi < job.col.dense ? hi : job.col.dense};
    }

    bool owned(int64_t r) const { return r >= unit_.row0 && r < unit_.row1; }

    // Sends the gradient of row `v` of the maximum to the rows of its window.
    void route(int64_t v) {
        gradient_.row(job_.wrap ? modulo(v, job_.row.dense) : v, dense_);
        int64_t rows[kMaxKernel];
        const int64_t count = source_.window(v, rows);
        const float* candidate[kMaxKernel] = {};
        float* part[kMaxKernel] = {};
        for (int64_t k = 0; k < count; ++k) {
            candidate[k] = source_.pooled(rows[k]).best;
            part[k] = owned(rows[k]) ? best_[modulo(rows[k], slots_)] : unused_[k];
        }
        if (count) split_add(candidate, count, dense_, part, source_.n);
    }

    float* part(int64_t k, int64_t q) { return part_[k] + (q - span_.lo) * cs_; }

    // Row `r` has all its gradient: sends it to the columns, and writes.
    void finish(int64_t r) {
        const Axis& col = job_.col;
        const auto& slot = source_.pooled(r);
        const int64_t n = source_.n;
        const float* candidate[kMaxKernel] = {};
        float* parts[kMaxKernel] = {};
        for (int64_t k = 0; k < col.kernel; ++k) {
            candidate[k] = slot.extended + k * col.dilation * cs_;
            parts[k] = part(k, need_.lo);
        }
        split(candidate, col.kernel, best_[modulo(r, slots_)], parts, n);
        for (int64_t k = 0; k < col.kernel; ++k)
            for (int64_t p = n; p < whole_blocks(n); ++p) parts[k][p] = 0.0f;
        if (job_.wrap) {
            for (int64_t k = 1; k < col.kernel; ++k)
                for (int64_t q = span_.lo; q < 0; ++q)
                    memcpy(part(k, q), part(k, modulo(q, col.dense)), static_cast<size_t>(cs_) * sizeof(float));
        } else {
            fold_leading();
        }
        const float* from[kMaxKernel] = {};
        for (int64_t k = 0; k < col.kernel; ++k) from[k] = part(k, unit_.col0 + col.before - k * col.dilation);
        T* RESTRICT out =
            static_cast<T*>(job_.result) + ((unit_.image * job_.row.size + r) * col.size + unit_.col0) * cs_;
        const int64_t width = (unit_.col1 - unit_.col0) * cs_;
        const float *RESTRICT a = from[0], *RESTRICT b = from[col.kernel > 1], *RESTRICT c = from[col.kernel > 2 ? 2 : 0];
        if (col.kernel == 1)
            for (int64_t p = 0; p < width; ++p) out[p] = from_float<T>(a[p]);
        else if (col.kernel == 2)
            for (int64_t p = 0; p < width; ++p) out[p] = from_float<T>(a[p] + b[p]);
        else
            for (int64_t p = 0; p < width; ++p) out[p] = from_float<T>(a[p] + b[p] + c[p]);
    }

    // What went to leading padding belongs to the pixel that it repeats, the first of the window (see pooled_source).
    void fold_leading() {
        const Axis& col = job_.col;
        for (int64_t q = need_.lo; q < need_.hi && q < col.before; ++q) {
            const int64_t first = (col.before - q + col.dilation - 1) / col.dilation;
            for (int64_t k = 0; k < first && first < col.kernel; ++k)
                for (int64_t c = 0; c < cs_; ++c) {
                    part(first, q)[c] += part(k, q)[c];
                    part(k, q)[c] = 0.0f;
                }
        }
    }

    const Job& job_;
    const Unit& unit_;
    int64_t cs_;
    Range need_, span_;
    RowSource<T> source_;
    DenseGradient<T> gradient_;
    int64_t slots_;
    float *dense_, **best_, *unused_[kMaxKernel], *part_[kMaxKernel];
};

template <class T> void backward(const Job& job, const Unit& unit, Arena& arena) {
    arena.reset();
    if (job.op == DEALIAS_MAX_BLUR)
        MaxBackward<T>(job, unit, arena).run();
    else
        backward_blur<T>(job, unit, arena);
}

}  // namespace dealias::DEALIAS_ISA
