// Backward: each row of the input's gradient gathers from the output rows that it took part in. The gradient of the blur
// goes up into one row that stays in cache; the maximum then sends it first to a row, then to a column of its window.
#pragma once

#include "gradient.h"
#if defined(__AVX2__)
#include "strips_backward.h"
#else
#include "no_strips.h"
#endif

namespace dealias::DEALIAS_ISA {

constexpr int64_t kGradientFloats = 2048;  // of the dense gradient, before it goes on
constexpr int64_t kLeastRows = 2;  // at once, however wide: neighbours are sums of the same rows
constexpr int64_t kMostInStrips = 64;  // columns of a map whose maximum goes back in strips

inline int64_t rows_at_once(int64_t floats, int64_t rows) {
    const int64_t fitting = kGradientFloats / floats, height = fitting < kLeastRows ? kLeastRows : fitting;
    return height < rows ? height : rows;
}

// Of a ReLU the gradient where x is not at most zero: a NaN lets it pass, as in torch.relu.
template <bool Relu, class T> void backward_blur(const Job& job, const Unit& unit, Arena& arena) {
    const int64_t cs = job.channels, n = (unit.col1 - unit.col0) * cs, height = rows_at_once(n, unit.row1 - unit.row0);
    const int64_t ahead = height * job.col.size * cs;  // the lines of the next rows come into cache in the meantime
    DenseGradient<T> gradient(job, {unit.col0, unit.col1}, height, arena);
    for (int64_t image = unit.image0; image < unit.image1; ++image) {
        gradient.start(image);
        for (int64_t r0 = unit.row0; r0 < unit.row1; r0 += height) {
            const int64_t r1 = r0 + height < unit.row1 ? r0 + height : unit.row1;
            auto offset_of = [&](int64_t r) { return ((image * job.row.size + r) * job.col.size + unit.col0) * cs; };
            gradient.rows(r0, r1, [&](int64_t r) {
                const T* x = Relu ? static_cast<const T*>(job.x) + offset_of(r) : nullptr;
                T* out = static_cast<T*>(job.result) + offset_of(r);
                return [=](int64_t p, Vec v) __attribute__((always_inline)) {
                    if (p % kLine<T> == 0) __builtin_prefetch(out + ahead + p, 1);
                    if (Relu && p % kLine<T> == 0) __builtin_prefetch(x + ahead + p);
                    if (Relu) v = drop(not_above_zero(load_first(x + p, n)), v);
                    store_first(out + p, v, n);
                };
            });
        }
    }
}

// The maximum over 2 x 2 windows without padding, in one go: what falls to a pixel comes from the window at it, the one
// to its left, and the two above, whose shares wait in `down`.
template <bool Nan, bool Planes, class T>
void send_square(const T* x, const T* below, const float* gradient, float* down, int64_t pitch, float* right, int64_t cs,
                 int64_t begin, int64_t n, int64_t ahead, T* out) {
    Vec before = splat(0.0f);
    for (int64_t p = 0; p < n; p += kWidth) {
        if (p % kLine<T> == 0) __builtin_prefetch(below + ahead + p);
        if (p % kLine<T> == 0) __builtin_prefetch(out + ahead + p, 1);
        const Vec a = load(x + p), b = Planes ? load_beside<1>(x + p, a) : load(x + p + cs);
        const Vec c = load(below + p), d = Planes ? load_beside<1>(below + p, c) : load(below + p + cs);
        const Mask upper = wins_over<Nan>(b, a), lower = wins_over<Nan>(d, c);
        const Mask under = wins_over<Nan>(larger_of<Nan>(c, d), larger_of<Nan>(a, b));
        const Vec g = load(gradient + p), up = drop(under, g), low = keep(under, g);
        Vec here = add(load(down + p), drop(upper, up));
        const Vec beside = add(load(down + pitch + p), keep(upper, up));
        store(down + p, drop(lower, low));
        store(down + pitch + p, keep(lower, low));
        if (Planes) {
            here = add(here, shifted_in(before, beside));
            before = beside;
        } else {
            store(right + cs + p, beside);
            here = add(here, load(right + p));
        }
        if (p < begin) continue;
        store_first(out + p, here, n - p);
    }
}

template <class T> bool backward_square(const Job& job, const Unit& unit, Arena& arena) {
    const Axis &row = job.row, &col = job.col;
    if (row.kernel != 2 || col.kernel != 2 || row.dilation * col.dilation != 1 || job.wrap) return false;
    if (row.dense != row.size - 1 || col.dense != col.size - 1 || row.before || col.before) return false;
    const int64_t cs = job.channels, lo = unit.col0 > 0 ? unit.col0 - 1 : 0, begin = (unit.col0 - lo) * cs;
    if (begin % kWidth != 0) return false;  // the first columns, another unit's, end inside a vector
    const Range need = {lo, unit.col1 < col.dense ? unit.col1 : col.dense};
    const int64_t dense = (need.hi - need.lo) * cs, n = (unit.col1 - lo) * cs, pitch = whole_blocks(n) + kBlock;
    const int64_t v0 = unit.row0 > 0 ? unit.row0 - 1 : 0, height = rows_at_once(n, unit.row1 - v0);
    RowSource<T> source(job, need, arena);
    DenseGradient<T> gradient(job, need, height, arena);
    float* tile = arena.take(height * pitch + 4 * kSlack);
    float* down = arena.take(2 * pitch);
    float* right = arena.take(pitch + cs + kSlack);
    T* unused = reinterpret_cast<T*>(arena.take(pitch));
    T* copies = reinterpret_cast<T*>(arena.take(2 * (n + cs + kSlack)));
    for (int64_t image = unit.image0; image < unit.image1; ++image) {
        source.start(image);
        gradient.start(image);
        set_row(down, 0.0f, 2 * pitch);
        set_row(right, 0.0f, cs);
        bool nan = false;  // in a row of this image so far
        const T* base = static_cast<const T*>(job.x) + image * row.size * source.pitch + lo * cs;
        for (int64_t r0 = v0; r0 < unit.row1; r0 += height) {
            const int64_t r1 = r0 + height < unit.row1 ? r0 + height : unit.row1;
            const int64_t d1 = r1 < row.dense ? r1 : row.dense;
            gradient.rows(r0, d1, [=](int64_t r) {
                float* line = tile + (r - r0) * pitch;
                return [=](int64_t p, Vec v) __attribute__((always_inline)) { store(line + p, positive_zero(v)); };
            });
            // Nothing comes from behind the last window.
            for (int64_t r = r0; r < r1; ++r) {
                const int64_t filled = r < row.dense ? dense : 0;
                fill_exactly(tile + (r - r0) * pitch + filled, pitch - filled, [](int64_t) { return splat(0.0f); });
            }
            const T* last = base + (r1 < row.size ? r1 : r1 - 1) * source.pitch;
            const int64_t fresh = r0 > v0 ? r0 + 1 : r0;  // the rows before have been looked at, with the one below them
            nan = nan || source.end() - last < n + cs + kSlack ||
                  has_nan(base + fresh * source.pitch, source.pitch, r1 - fresh + (r1 < row.size), n + cs);
            for (int64_t r = r0; r < r1; ++r) {
                const T* x = base + r * source.pitch;
                const T* below = r + 1 < row.size ? x + source.pitch : x;
                if (source.end() - below < n + cs + kSlack) {
                    x = tail_copy(x, source.end(), copies, n + cs + kSlack);
                    below = tail_copy(below, source.end(), copies + n + cs + kSlack, n + cs + kSlack);
                }
                T* out = r < unit.row0 ? unused : static_cast<T*>(job.result) + ((image * row.size + r) * col.size + lo) * cs;
                const float* line = tile + (r - r0) * pitch;
                auto send = nan ? (cs == 1 ? send_square<true, true, T> : send_square<true, false, T>)
                                : (cs == 1 ? send_square<false, true, T> : send_square<false, false, T>);
                send(x, below, line, down, pitch, right, cs, begin, n, height * source.pitch, out);
            }
        }
    }
    return true;
}

template <class T> class MaxBackward {
public:
    MaxBackward(const Job& job, const Unit& unit, Arena& arena)
        : job_(job), unit_(unit), cs_(job.channels), need_(needed(job, unit)), source_(job, need_, arena),
          gradient_(job, need_, 1, arena) {
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

    void run(int64_t image) {
        const Axis& row = job_.row;
        image_ = image;
        source_.start(image);
        gradient_.start(image);
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
        const int64_t d = job_.wrap ? wrapped(v, job_.row.dense) : v;
        gradient_.rows(d, d + 1, [to = dense_](int64_t) {
            return [=](int64_t p, Vec v) __attribute__((always_inline)) { store(to + p, v); };
        });
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
        T* out = static_cast<T*>(job_.result) + ((image_ * job_.row.size + r) * col.size + unit_.col0) * cs_;
        const int64_t width = (unit_.col1 - unit_.col0) * cs_;
        with_constant<1, kMaxKernel>(col.kernel, [=](auto parts) {
            fill_exactly(out, width, [=](int64_t p) __attribute__((always_inline)) {
                Vec sum = load(from[0] + p);
                for (int k = 1; k < parts; ++k) sum = add(sum, load(from[k] + p));
                return sum;
            });
        });
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
    int64_t cs_, image_ = 0;
    Range need_, span_;
    RowSource<T> source_;
    DenseGradient<T> gradient_;
    int64_t slots_;
    float *dense_, **best_, *unused_[kMaxKernel], *part_[kMaxKernel];
};

template <class T> void backward(const Job& job, const Unit& unit, Arena& arena) {
    arena.reset();
    // Where masks cost, a maximum over wide maps takes its rows whole: two strips would share them.
    const bool wide = !kFreeMasks && job.op == DEALIAS_MAX_BLUR && job.channels == 1 && unit.col1 - unit.col0 > kMostInStrips;
    if (wide && backward_square<T>(job, unit, arena)) return;
    if (backward_in_strips<T>(job, unit, arena)) return;
    if (job.op == DEALIAS_BLUR) return backward_blur<false, T>(job, unit, arena);
    if (job.op == DEALIAS_RELU_BLUR) return backward_blur<true, T>(job, unit, arena);
    if (backward_square<T>(job, unit, arena)) return;
    MaxBackward<T> general(job, unit, arena);
    for (int64_t image = unit.image0; image < unit.image1; ++image) general.run(image);
}

}  // namespace dealias::DEALIAS_ISA
