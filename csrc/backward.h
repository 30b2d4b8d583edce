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
        const T* lines[4];
        const int64_t count = end - begin;
        if (count > 4 || count == 0) return blur_down_any(begin, end, first, out, n);
        for (int64_t e = 0; e < count; ++e) lines[e] = line(begin + e);
        const float* weight = adjoint.weight + begin;
        switch (count) {
            case 1: return weigh_outputs<1>(lines, weight, out, n);
            case 2: return weigh_outputs<2>(lines, weight, out, n);
            case 3: return weigh_outputs<3>(lines, weight, out, n);
            default: return weigh_outputs<4>(lines, weight, out, n);
        }
    }

    template <int K, class In> static void weigh_outputs(const In* const* row, const float* weight, float* out, int64_t n) {
        Vec w[K];
        for (int a = 0; a < K; ++a) w[a] = splat(weight[a]);
        auto at = [&](int64_t p) {
            Vec s = mul(w[0], load(row[0] + p));
#pragma GCC unroll 4
            for (int a = 1; a < K; ++a) s = madd(w[a], load(row[a] + p), s);
            return s;
        };
        if (n >= kWidth) return fill_exactly(out, n, at);
        for (int64_t p = 0; p < n; ++p) {
            float s = weight[0] * to_float(row[0][p]);
            for (int a = 1; a < K; ++a) s = madd(weight[a], to_float(row[a][p]), s);
            out[p] = s;
        }
    }

    void blur_down_any(int64_t begin, int64_t end, const T* first, float* RESTRICT out, int64_t n) {
        const Adjoint& adjoint = job_.row.adjoint;
        for (int64_t p = 0; p < n; ++p) out[p] = 0.0f;
        for (int64_t e = begin; e < end; ++e) {
            const T* RESTRICT a = first + adjoint.output[e] * job_.col.out * job_.channels;
            const float w = adjoint.weight[e];
            for (int64_t p = 0; p < n; ++p) out[p] = madd(w, to_float(a[p]), out[p]);
        }
    }

    // One column from its list of outputs.
    void gather(int64_t c, float* RESTRICT out) {
        const Adjoint& adjoint = job_.col.adjoint;
        const int64_t n = job_.channels, begin = adjoint.start[c], end = adjoint.start[c + 1];
        if (n > 1 && end > begin && end - begin <= 4) {
            const float* columns[4];
            for (int64_t e = begin; e < end; ++e) columns[e - begin] = at(adjoint.output[e]);
            const float* weight = adjoint.weight + begin;
            switch (end - begin) {
                case 1: return weigh_outputs<1>(columns, weight, out, n);
                case 2: return weigh_outputs<2>(columns, weight, out, n);
                case 3: return weigh_outputs<3>(columns, weight, out, n);
                default: return weigh_outputs<4>(columns, weight, out, n);
            }
        }
        for (int64_t p = 0; p < n; ++p) out[p] = 0.0f;
        for (int64_t e = begin; e < end; ++e) {
            const float* RESTRICT a = at(adjoint.output[e]);
            const float wa = adjoint.weight[e];
            for (int64_t p = 0; p < n; ++p) out[p] = madd(wa, a[p], out[p]);
        }
    }

    void spread_dense(float* RESTRICT out) {
        const float* in = at(need_.lo + job_.lead);
        for (int64_t p = 0; p < need_.hi - need_.lo; p += kWidth) {
            Vec s = mul(splat(job_.filter[0]), load(in + p));
            for (int64_t b = 1; b < job_.taps; ++b) s = madd(splat(job_.filter[b]), load(in + p - b), s);
            store(out + p, s);
        }
        patch(out);
    }

    // Stride 2: the even and the odd columns each take every other tap.
    template <int M> void spread_pairs_fixed(float* RESTRICT out) {
        const int64_t u = need_.lo + job_.lead, pairs = (need_.hi - need_.lo + 1) / 2;
        const int64_t odd = u & 1;
        const float *RESTRICT in0 = at(u / 2), *RESTRICT in1 = at((u + 1) / 2);
        Vec w0[M], w1[M];
        for (int64_t m = 0; m < M; ++m) {
            w0[m] = splat(2 * m + odd < job_.taps ? job_.filter[2 * m + odd] : 0.0f);
            w1[m] = splat(2 * m + 1 - odd < job_.taps ? job_.filter[2 * m + 1 - odd] : 0.0f);
        }
        for (int64_t q = 0; q < pairs; q += kWidth) {
            Vec s0 = mul(w0[0], load(in0 + q)), s1 = mul(w1[0], load(in1 + q));
#pragma GCC unroll 4
            for (int m = 1; m < M; ++m) {
                s0 = madd(w0[m], load(in0 + q - m), s0);
                s1 = madd(w1[m], load(in1 + q - m), s1);
            }
            store_interleaved(out + 2 * q, s0, s1);
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

// The gradient where x is not at most zero: a NaN lets it pass, as in torch.relu.
template <class T> void relu_backward(const T* x, const float* gradient, T* out, int64_t n) {
    if (n >= kWidth) return fill_exactly(out, n, [&](int64_t p) { return drop(not_above_zero(load(x + p)), load(gradient + p)); });
    for (int64_t p = 0; p < n; ++p) out[p] = from_float<T>(to_float(x[p]) <= 0.0f ? 0.0f : gradient[p]);
}

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
            relu_backward(x, line, out, n);
            x += pitch;
        } else {
            fill_exactly(out, n, [&](int64_t p) { return load(line + p); });
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
        slots_ = ring_size(job.row.reach + 1);
        best_ = take_array<float*>(arena, slots_);
        for (int64_t s = 0; s < slots_; ++s) best_[s] = arena.take(source_.n + kSlack);
        // Columns that no window starts at stay zero: in front of the map, and behind it.
        span_ = {unit.col0 + job.col.before - job.col.reach, unit.col1 + job.col.before};
        if (span_.hi < need_.hi) span_.hi = need_.hi;
        for (int64_t k = 0; k < job.col.kernel; ++k) {
            part_[k] = arena.take((span_.hi - span_.lo) * cs_ + kSlack);
            set_row(part_[k], 0.0f, (span_.hi - span_.lo) * cs_);
        }
    }

    void run() {
        const Axis& row = job_.row;
        for (int64_t v = unit_.row0 + row.before - row.reach; v < unit_.row1 + row.before; ++v) {
            const int64_t opened = v - row.before + row.reach;
            if (owned(opened)) set_row(best_[opened & (slots_ - 1)], 0.0f, source_.n);
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
        gradient_.row(job_.wrap ? wrapped(v, job_.row.dense) : v, dense_);
        int64_t rows[kMaxKernel];
        const int64_t count = source_.window(v, rows);
        const float* candidate[kMaxKernel] = {};
        float* part[kMaxKernel] = {};
        for (int64_t k = 0; k < count; ++k) {
            candidate[k] = source_.pooled(rows[k]).best;
            part[k] = owned(rows[k]) ? best_[rows[k] & (slots_ - 1)] : unused_[k];
        }
        if (count) split<true>(candidate, count, dense_, part, source_.n);
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
        split<false>(candidate, col.kernel, best_[r & (slots_ - 1)], parts, n);
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
            fill_exactly(out, width, [&](int64_t p) { return load(a + p); });
        else if (col.kernel == 2)
            fill_exactly(out, width, [&](int64_t p) { return add(load(a + p), load(b + p)); });
        else
            fill_exactly(out, width, [&](int64_t p) { return add(add(load(a + p), load(b + p)), load(c + p)); });
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
