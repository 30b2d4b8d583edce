// The gradient of the map that was blurred: up from the outputs, first over the rows, then along them.
#pragma once

#include "rows.h"

namespace dealias::DEALIAS_ISA {

template <class T> class DenseGradient {
public:
    // For the columns [need.lo, need.hi) of the image that `start` names, up to `height` rows at a time.
    DenseGradient(const Job& job, Range need, int64_t height, Arena& arena)
        : job_(job), need_(need), cs_(job.channels) {
        const Axis& col = job.col;
        pitch_in_ = col.out * cs_;
        end_ = static_cast<const T*>(job.grad) + job.images * job.row.out * pitch_in_;
        outputs_ = {col.out, 0};
        auto take_part = [&](int64_t c) {
            for (int64_t e = col.adjoint.start[c]; e < col.adjoint.start[c + 1]; ++e) {
                const int64_t j = col.adjoint.output[e];
                outputs_.lo = j < outputs_.lo ? j : outputs_.lo;
                outputs_.hi = j + 1 > outputs_.hi ? j + 1 : outputs_.hi;
            }
        };
        // In order inside the map; the border, at either end, may look anywhere.
        const int64_t edge = col.taps + col.stride;
        for (int64_t c = need.lo; c < need.hi; ++c) {
            if (c == need.lo + edge && need.hi - edge > c) c = need.hi - edge;
            take_part(c);
        }
        if (outputs_.hi < outputs_.lo) outputs_ = {0, 0};
        n_ = (outputs_.hi - outputs_.lo) * cs_;
        // Where the taps run off the outputs, the gradient is zero.
        const int64_t first = (need.lo + col.lead - col.taps + 1) / col.stride - 2;
        const int64_t last = (need.hi + col.lead) / col.stride + 2;
        base_ = outputs_.lo < first ? outputs_.lo : first;
        const int64_t stop = outputs_.hi > last ? outputs_.hi : last;
        pitch_ = whole_blocks((stop - base_) * cs_) + 3 * kBlock;
        tile_ = arena.take(height * pitch_ + kSlack);
        for (int64_t r = 0; r < height; ++r) {
            set_row(tile_ + r * pitch_, 0.0f, (outputs_.lo - base_) * cs_ + kBlock);
            set_row(at(r, outputs_.hi), 0.0f, pitch_ - (outputs_.hi - base_) * cs_ - kBlock);
        }
    }

    void start(int64_t image) { grad_ = static_cast<const T*>(job_.grad) + image * job_.row.out * pitch_in_; }

    // Writes rows d0 .. d1 - 1, `pitch` floats apart.
    void rows(int64_t d0, int64_t d1, float* out, int64_t pitch) {
        for (int64_t d = d0; d < d1;) d += blur_down_two(d, d1, at(d - d0, outputs_.lo));
        const int64_t phases = (job_.col.taps + job_.col.stride - 1) / job_.col.stride;
        if (cs_ == 1 && job_.col.stride == 2 && phases <= 4) {
            switch (phases) {
                case 1: spread_pairs<1>(d1 - d0, out, pitch); break;
                case 2: spread_pairs<2>(d1 - d0, out, pitch); break;
                case 3: spread_pairs<3>(d1 - d0, out, pitch); break;
                default: spread_pairs<4>(d1 - d0, out, pitch);
            }
        } else if (cs_ == 1 && job_.col.stride == 1) {
            spread_dense(d1 - d0, out, pitch);
        } else {
            for (int64_t r = 0; r < d1 - d0; ++r) spread_columns(r, out + r * pitch);
        }
        add_border(d1 - d0, out, pitch);
    }

private:
    float* at(int64_t r, int64_t j) const { return tile_ + r * pitch_ + (j - base_) * cs_; }

    // Rows d and d + 1 if they take part in the same two outputs, else row d alone; how many it did.
    int64_t blur_down_two(int64_t d, int64_t d1, float* out) {
        const Adjoint& adjoint = job_.row.adjoint;
        const int64_t* start = adjoint.start + d;
        const int64_t* output = adjoint.output + start[0];
        const bool same = d + 1 < d1 && start[1] == start[0] + 2 && start[2] == start[0] + 4 && output[0] == output[2] &&
                          output[1] == output[3];
        const T *a = grad_ + outputs_.lo * cs_, *b = a;
        if (same) a += output[0] * pitch_in_, b += output[1] * pitch_in_;
        if (!same || end_ - a < n_ + kBlock || end_ - b < n_ + kBlock) {
            blur_down(d, out);
            return 1;
        }
        const float* weight = adjoint.weight + start[0];
        const Vec a0 = splat(weight[0]), b0 = splat(weight[1]), a1 = splat(weight[2]), b1 = splat(weight[3]);
        const Vec zero = splat(0.0f);
        for (int64_t p = 0; p < n_; p += kWidth) {
            const Vec va = load(a + p), vb = load(b + p);
            store(out + p, madd(b0, vb, madd(a0, va, zero)));
            store(out + pitch_ + p, madd(b1, vb, madd(a1, va, zero)));
        }
        for (int64_t p = n_; p < n_ + kBlock; p += kWidth) {
            store(out + p, zero);
            store(out + pitch_ + p, zero);
        }
        return 2;
    }

    void blur_down(int64_t d, float* out) {
        const Adjoint& adjoint = job_.row.adjoint;
        const int64_t begin = adjoint.start[d], count = adjoint.start[d + 1] - begin;
        const float* weight = adjoint.weight + begin;
        const T* lines[4];
        bool room = count >= 1 && count <= 4;
        for (int64_t e = 0; e < count && room; ++e) {
            lines[e] = grad_ + adjoint.output[begin + e] * pitch_in_ + outputs_.lo * cs_;
            room = end_ - lines[e] >= n_ + kBlock;
        }
        if (room) {
            switch (count) {
                case 1: weigh<1>(lines, weight, out, n_); break;
                case 2: weigh<2>(lines, weight, out, n_); break;
                case 3: weigh<3>(lines, weight, out, n_); break;
                default: weigh<4>(lines, weight, out, n_);
            }
            for (int64_t p = 0; p < kBlock; p += kWidth) store(out + n_ + p, splat(0.0f));
            return;
        }
        for (int64_t p = 0; p < n_; ++p) out[p] = 0.0f;
        for (int64_t e = 0; e < count; ++e) {
            const T* line = grad_ + adjoint.output[begin + e] * pitch_in_ + outputs_.lo * cs_;
            for (int64_t p = 0; p < n_; ++p) out[p] = madd(weight[e], to_float(line[p]), out[p]);
        }
    }

    template <int K, class In> static void weigh(const In* const* row, const float* weight, float* out, int64_t n) {
        Vec w[K];
        for (int a = 0; a < K; ++a) w[a] = splat(weight[a]);
        for (int64_t p = 0; p < n; p += kWidth) {
            // From zero, as the plain loop does: both round alike.
            Vec s = madd(w[0], load(row[0] + p), splat(0.0f));
#pragma GCC unroll 4
            for (int a = 1; a < K; ++a) s = madd(w[a], load(row[a] + p), s);
            store(out + p, s);
        }
    }

    // Stride 2: the even and the odd columns each take every other tap.
    template <int M> void spread_pairs(int64_t count, float* out, int64_t pitch) {
        const Axis& col = job_.col;
        const int64_t u = need_.lo + col.lead, pairs = (need_.hi - need_.lo + 1) / 2;
        const int64_t odd = u & 1;
        Vec w0[M], w1[M];
        for (int64_t m = 0; m < M; ++m) {
            w0[m] = splat(2 * m + odd < col.taps ? col.filter[2 * m + odd] : 0.0f);
            w1[m] = splat(2 * m + 1 - odd < col.taps ? col.filter[2 * m + 1 - odd] : 0.0f);
        }
        for (int64_t r = 0; r < count; ++r, out += pitch) {
            const float *in0 = at(r, u / 2), *in1 = at(r, (u + 1) / 2);
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
    }

    void spread_dense(int64_t count, float* out, int64_t pitch) {
        const Axis& col = job_.col;
        for (int64_t r = 0; r < count; ++r, out += pitch) {
            const float* in = at(r, need_.lo + col.lead);
            for (int64_t p = 0; p < need_.hi - need_.lo; p += kWidth) {
                Vec s = mul(splat(col.filter[0]), load(in + p));
                for (int64_t b = 1; b < col.taps; ++b) s = madd(splat(col.filter[b]), load(in + p - b), s);
                store(out + p, s);
            }
        }
    }

    // Any stride, any layout: each column from the outputs that lie a stride apart.
    void spread_columns(int64_t r, float* out) {
        const Axis& col = job_.col;
        const int64_t stride = col.stride;
        for (int64_t c = need_.lo; c < need_.hi; ++c, out += cs_) {
            const int64_t u = c + col.lead;
            const float* from = at(r, u / stride);
            const float* weight = col.filter + u % stride;
            const int64_t taps = (col.taps - u % stride + stride - 1) / stride;
            if (cs_ == 1) {
                float s = 0.0f;
                for (int64_t m = 0; m < taps; ++m) s = madd(weight[m * stride], from[-m], s);
                *out = s;
            } else if (taps == 2) {
                const Vec w0 = splat(weight[0]), w1 = splat(weight[stride]);
                for (int64_t p = 0; p < cs_; p += kWidth)
                    store(out + p, madd(w1, load(from - cs_ + p), mul(w0, load(from + p))));
            } else {
                for (int64_t p = 0; p < cs_; p += kWidth) {
                    Vec s = splat(0.0f);
                    for (int64_t m = 0; m < taps; ++m) s = madd(splat(weight[m * stride]), load(from - m * cs_ + p), s);
                    store(out + p, s);
                }
            }
        }
    }

    // The samples of the border stand in for columns inside.
    void add_border(int64_t count, float* out, int64_t pitch) {
        const Adjoint& adjoint = job_.col.adjoint;
        for (int64_t f = 0; f < adjoint.extra_count; ++f) {
            const int64_t c = adjoint.extra_position[f];
            if (c < need_.lo || c >= need_.hi) continue;
            const float w = adjoint.extra_weight[f];
            if (cs_ == 1) {
                float* to = out + (c - need_.lo);
                const float* from = at(0, adjoint.extra_output[f]);
                for (int64_t r = 0; r < count; ++r) to[r * pitch] = madd(w, from[r * pitch_], to[r * pitch]);
                continue;
            }
            for (int64_t r = 0; r < count; ++r) {
                float* RESTRICT to = out + r * pitch + (c - need_.lo) * cs_;
                const float* RESTRICT from = at(r, adjoint.extra_output[f]);
                for (int64_t p = 0; p < cs_; ++p) to[p] = madd(w, from[p], to[p]);
            }
        }
    }

    const Job& job_;
    Range need_, outputs_;
    int64_t cs_, n_, pitch_in_, base_, pitch_;
    const T *grad_, *end_;
    float* tile_;
};

}  // namespace dealias::DEALIAS_ISA
