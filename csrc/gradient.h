// The gradient of the map that was blurred. Each row of the output's gradient is spread over the columns once, then each row
// of the map is a sum of few such rows. All paths add up in the order of the adjoint's table, along columns as down rows.
#pragma once

#include <array>

#include "rows.h"

namespace dealias::DEALIAS_ISA {

constexpr int kMostShares = 4;

// A row of the gradient: the sum of weight[e] * line[e], e ascending.
struct Shares {
    int64_t count;
    const float* line[kMostShares];
    float weight[kMostShares];
};

// put(position, vector) for all vectors of rows that are sums of the same lines, each with a `put` of its own; the last vector
// may overlap the one before.
template <int Rows, class Put> void put_sums(const Shares* shares, int64_t n, std::array<Put, Rows> put) {
    with_constant<1, kMostShares>(shares[0].count, [=](auto count) {
        const float* line[count];
        Vec weight[Rows][count];
        for (int e = 0; e < count; ++e) {
            line[e] = shares[0].line[e];
            for (int r = 0; r < Rows; ++r) weight[r][e] = splat(shares[r].weight[e]);
        }
        for (int64_t p = 0; p < n; p += kWidth) {
            const int64_t at = p + kWidth > n && n >= kWidth ? n - kWidth : p;
            Vec sum[Rows];
            for (int e = 0; e < count; ++e) {
                const Vec here = load(line[e] + at);
                for (int r = 0; r < Rows; ++r) sum[r] = e == 0 ? mul(weight[r][e], here) : madd(weight[r][e], here, sum[r]);
            }
            for (int r = 0; r < Rows; ++r) put[r](at, sum[r]);
        }
    });
}

// The samples of the dense map that take from each output that reaches them, and nothing by way of the border: that repeats
// no deeper than the filter is long, but not each sample up to there.
inline Range find_plain(const Axis& axis) {
    const Adjoint& adjoint = axis.adjoint;
    auto plain = [&](int64_t d) {
        const int64_t top = d + axis.lead;
        int64_t e = adjoint.start[d];
        for (int64_t a = top % axis.stride + (axis.taps - 1) / axis.stride * axis.stride; a >= 0; a -= axis.stride) {
            if (a >= axis.taps) continue;
            if (e == adjoint.start[d + 1] || adjoint.output[e] != (top - a) / axis.stride || top < a) return false;
            if (adjoint.weight[e] != axis.filter[a]) return false;
            ++e;
        }
        return e == adjoint.start[d + 1];
    };
    Range range = {0, axis.dense};
    for (int64_t d = 0; d < axis.dense && d < axis.taps; ++d)
        if (!plain(d)) range.lo = d + 1;
    for (int64_t d = axis.dense - 1; d >= range.lo && d >= axis.dense - axis.taps; --d)
        if (!plain(d)) range.hi = d;
    return range;
}

template <class T> class DenseGradient {
public:
    // For the columns [need.lo, need.hi) of the image that `start` names, up to `height` rows at a time.
    DenseGradient(const Job& job, Range need, int64_t height, Arena& arena)
        : job_(job), need_(need), cs_(job.channels) {
        const Axis &row = job.row, &col = job.col;
        n_ = (need.hi - need.lo) * cs_;
        pitch_ = col.out * cs_;
        ahead_ = (height / row.stride + 1) * pitch_ + need.lo / col.stride * cs_;
        end_ = static_cast<const T*>(job.grad) + job.images * row.out * pitch_;
        copy_ = reinterpret_cast<T*>(arena.take(pitch_ + kSlack));
        sum_ = arena.take(n_ + 2 * kSlack);
        line_ = arena.take(n_ + 2 * kSlack);
        slots_ = ring_size((height + row.taps + row.stride - 2) / row.stride + 1);
        slot_ = take_array<Slot>(arena, slots_);
        for (int64_t s = 0; s < slots_; ++s) slot_[s] = {-1, arena.take(n_ + 2 * kSlack)};
        shares_ = take_array<Shares>(arena, height);
        find_inside();
        const int64_t left = (inside_.lo - need.lo + kWidth - 1) / kWidth;
        left_edges_ = cs_ > 1 ? 0 : left;
        edges_ = cs_ > 1 ? 0 : left + (need.hi - inside_.hi + kWidth - 1) / kWidth;
        edge_ = take_array<Edge>(arena, edges_);
        for (int64_t e = 0; e < edges_; ++e)
            edge_[e] = e < left ? make_edge(need.lo + e * kWidth, inside_.lo, arena)
                                : make_edge(inside_.hi + (e - left) * kWidth, need.hi, arena);
    }

    void start(int64_t image) {
        grad_ = static_cast<const T*>(job_.grad) + image * job_.row.out * pitch_;
        for (int64_t s = 0; s < slots_; ++s) slot_[s].output = -1;
    }

    // put_in(d)(position, vector) for all vectors of the rows d0 .. d1 - 1.
    template <class PutIn> void rows(int64_t d0, int64_t d1, PutIn put_in) {
        prepare(d0, d1);
        for (int64_t d = d0; d < d1;) {
            const Shares* shares = shares_ + d - d0;
            if (d + 1 < d1 && alike(shares[0], shares[1])) {
                put_sums<2>(shares, n_, std::array{put_in(d), put_in(d + 1)});
                d += 2;
            } else {
                const Shares sum = shares[0].count > 0 ? shares[0] : add_up(d);
                put_sums<1>(&sum, n_, std::array{put_in(d)});
                d += 1;
            }
        }
    }

private:
    struct Slot {
        int64_t output;
        float* line;
    };

    static bool alike(const Shares& a, const Shares& b) {
        bool same = a.count > 0 && a.count == b.count;
        for (int64_t e = 0; e < a.count; ++e) same = same && a.line[e] == b.line[e];
        return same;
    }

    // Of which rows the rows d0 .. d1 - 1 are sums, and these; none where they are many, or lie too far apart. All before the
    // first sum: a load too soon after the stores that it spans waits for them.
    void prepare(int64_t d0, int64_t d1) {
        const Adjoint& adjoint = job_.row.adjoint;
        for (int64_t d = d0; d < d1; ++d) {
            const int64_t begin = adjoint.start[d], count = adjoint.start[d + 1] - begin;
            Shares& shares = shares_[d - d0];
            shares.count = count <= kMostShares ? count : 0;
            for (int64_t e = 1; e < shares.count; ++e)
                if (adjoint.output[begin + e] - adjoint.output[begin] >= slots_) shares.count = 0;
            for (int64_t e = 0; e < shares.count; ++e) {
                Slot& slot = slot_[adjoint.output[begin + e] & (slots_ - 1)];
                if (slot.output != adjoint.output[begin + e]) spread(slot.output = adjoint.output[begin + e], slot.line);
                shares.line[e] = slot.line;
                shares.weight[e] = adjoint.weight[begin + e];
            }
        }
    }

    Shares add_up(int64_t d) {
        const Adjoint& adjoint = job_.row.adjoint;
        set_row(sum_, 0.0f, n_);
        for (int64_t e = adjoint.start[d]; e < adjoint.start[d + 1]; ++e) {
            spread(adjoint.output[e], line_);
            const Vec w = splat(adjoint.weight[e]);
            for (int64_t p = 0; p < n_; p += kWidth)
                store(sum_ + p, e == adjoint.start[d] ? mul(w, load(line_ + p)) : madd(w, load(line_ + p), load(sum_ + p)));
        }
        return {1, {sum_}, {1.0f}};
    }

    // The columns away from the border, if there are loops for the stride and the filter: in units of the stride from `base_` on.
    void find_inside() {
        const Axis& col = job_.col;
        const Range plain = common(find_plain(col), need_);
        const int64_t stride = col.stride, hi = (plain.hi + col.lead) / stride;
        base_ = (plain.lo + col.lead + stride - 1) / stride;
        const bool some = hi > base_ && stride <= 2 && col.taps <= kFixedTaps && cs_ == 1;
        inside_ = some ? Range{base_ * stride - col.lead, hi * stride - col.lead} : Range{need_.hi, need_.hi};
    }

    // Row `i` of the output's gradient over the columns of the map. In the meantime a row that is spread later comes into cache.
    void spread(int64_t i, float* out) {
        const T *line = grad_ + i * pitch_, *next = line + ahead_;
        if (end_ - line < pitch_ + kSlack) line = tail_copy(line, end_, copy_, pitch_ + kSlack);
        if (cs_ > 1) {
            for (int64_t c = need_.lo; c < need_.hi; ++c) {
                for (int64_t p = 0; p < cs_ / job_.col.stride; p += kLine<T>, next += kLine<T>) __builtin_prefetch(next);
                spread_channels(line, c, out + (c - need_.lo) * cs_);
            }
        } else {
            prefetch_row<0>(next, (need_.hi - need_.lo) / job_.col.stride);
            spread_edges(line, 0, left_edges_, out);
            if (inside_.lo < inside_.hi) spread_inside(line + base_, out + inside_.lo - need_.lo);
            spread_edges(line, left_edges_, edges_, out);
        }
    }

    void spread_inside(const T* line, float* out) {
        const int64_t width = inside_.hi - inside_.lo, n = job_.col.stride == 2 ? width / 2 : width;
        with_constant<1, kFixedTaps>(job_.col.taps, [&](auto k) { spread_taps<k>(line, out, n); });
    }

    template <int K> void spread_taps(const T* line, float* out, int64_t n) {
        Vec w[K];
        for (int a = 0; a < K; ++a) w[a] = splat(job_.col.filter[a]);
        if (job_.col.stride == 1) {
            for (int64_t q = 0; q < n; q += kWidth) {
                Vec s = mul(w[K - 1], load(line + q - (K - 1)));
#pragma GCC unroll 7
                for (int a = K - 2; a >= 0; --a) s = madd(w[a], load(line + q - a), s);
                store(out + q, s);
            }
            return;
        }
        constexpr int M = (K + 1) / 2;
        for (int64_t q = 0; q < n; q += kWidth) {
            Vec even = splat(0.0f), odd = even;
#pragma GCC unroll 4
            for (int m = M - 1; m >= 0; --m) {
                const Vec here = load(line + q - m);
                even = m == M - 1 ? mul(w[2 * m], here) : madd(w[2 * m], here, even);
                if (2 * m + 1 < K) odd = m == K / 2 - 1 ? mul(w[2 * m + 1], here) : madd(w[2 * m + 1], here, odd);
            }
            store_interleaved(out + 2 * q, even, odd);
        }
    }

    // A vector of columns from `column` on as a sum over outputs: for each kWidth weights, and whether lanes take part.
    struct Edge {
        int64_t column, terms;
        int64_t* output;
        float *start, *weight, *takes;
    };

    Edge make_edge(int64_t column, int64_t end, Arena& arena) const {
        const Adjoint& adjoint = job_.col.adjoint;
        const int64_t lanes = column + kWidth < end ? kWidth : end - column;
        const int64_t most = adjoint.start[column + lanes] - adjoint.start[column];
        Edge edge = {column, 0, take_array<int64_t>(arena, most), arena.take(kWidth), arena.take(most * kWidth),
                     arena.take(most * kWidth)};
        int64_t next[kWidth];
        for (int64_t lane = 0; lane < kWidth; ++lane) edge.start[lane] = 0.0f;
        // The product of zero and -0 changes no sum, not even the sign of a zero.
        for (int64_t p = 0; p < most * kWidth; ++p) edge.weight[p] = -0.0f, edge.takes[p] = 0.0f;
        for (int64_t lane = 0; lane < lanes; ++lane) {
            next[lane] = adjoint.start[column + lane];
            // A product added to -0 is the product.
            edge.start[lane] = next[lane] < adjoint.start[column + lane + 1] ? -0.0f : 0.0f;
        }
        for (;; ++edge.terms) {
            int64_t output = INT64_MAX;
            for (int64_t lane = 0; lane < lanes; ++lane)
                if (next[lane] < adjoint.start[column + lane + 1] && adjoint.output[next[lane]] < output)
                    output = adjoint.output[next[lane]];
            if (output == INT64_MAX) return edge;
            edge.output[edge.terms] = output;
            for (int64_t lane = 0; lane < lanes; ++lane)
                if (next[lane] < adjoint.start[column + lane + 1] && adjoint.output[next[lane]] == output) {
                    edge.weight[edge.terms * kWidth + lane] = adjoint.weight[next[lane]++];
                    edge.takes[edge.terms * kWidth + lane] = 1.0f;
                }
        }
    }

    void spread_edges(const T* line, int64_t begin, int64_t end, float* out) const {
        for (const Edge* edge = edge_ + begin; edge < edge_ + end; ++edge) {
            Vec s = load(edge->start);
            for (int64_t t = 0; t < edge->terms; ++t) {
                const Mask takes = above(load(edge->takes + t * kWidth), splat(0.0f));
                s = madd(load(edge->weight + t * kWidth), keep(takes, splat(to_float(line[edge->output[t]]))), s);
            }
            store(out + edge->column - need_.lo, s);
        }
    }

    void spread_channels(const T* line, int64_t c, float* out) const {
        const Adjoint& adjoint = job_.col.adjoint;
        const int64_t begin = adjoint.start[c], count = adjoint.start[c + 1] - begin;
        if (count == 2) {  // most columns of most filters
            const T *a = line + adjoint.output[begin] * cs_, *b = line + adjoint.output[begin + 1] * cs_;
            const Vec wa = splat(adjoint.weight[begin]), wb = splat(adjoint.weight[begin + 1]);
            for (int64_t p = 0; p < cs_; p += kWidth) store(out + p, madd(wb, load(b + p), mul(wa, load(a + p))));
            return;
        }
        for (int64_t p = 0; p < cs_; p += kWidth) {
            Vec s = splat(0.0f);
            for (int64_t e = begin; e < begin + count; ++e) {
                const Vec w = splat(adjoint.weight[e]), g = load(line + adjoint.output[e] * cs_ + p);
                s = e == begin ? mul(w, g) : madd(w, g, s);
            }
            store(out + p, s);
        }
    }

    const Job& job_;
    Range need_, inside_;
    int64_t cs_, n_, pitch_, ahead_, slots_, base_, left_edges_, edges_;
    const T *grad_, *end_;
    T* copy_;
    float *sum_, *line_;
    Shares* shares_;
    Edge* edge_;
    Slot* slot_;
};

}  // namespace dealias::DEALIAS_ISA
