// Border rules, and the rows of the input and of its maximum, kept for as long as the walk down a map needs them.
#pragma once

#include <initializer_list>

#include "job.h"
#include "passes.h"

namespace dealias::DEALIAS_ISA {

constexpr int64_t kSlack = 2 * kBlock;  // floats that a pass may touch behind its row

inline int64_t modulo(int64_t a, int64_t n) {
    int64_t r = a % n;
    return r < 0 ? r + n : r;
}

// As modulo, quick where `a` lies inside already.
inline int64_t wrapped(int64_t a, int64_t n) { return a >= 0 && a < n ? a : modulo(a, n); }

inline int64_t border(int64_t t, int64_t size, int mode) {
    if (t >= 0 && t < size) return t;
    switch (mode) {
        case DEALIAS_REPLICATE: return t < 0 ? 0 : size - 1;
        case DEALIAS_CIRCULAR: return modulo(t, size);
        case DEALIAS_REFLECT: {
            const int64_t last = size - 1, once = t < 0 ? -t : 2 * last - t;
            if (once >= 0 && once <= last) return once;
            const int64_t bounced = modulo(t, last > 0 ? 2 * last : 1) - last;
            return last - (bounced < 0 ? -bounced : bounced);
        }
        default: return -1;
    }
}

// Rings have a power of two of slots: a row finds its own without a division.
inline int64_t ring_size(int64_t least) {
    int64_t size = 1;
    while (size < least) size *= 2;
    return size;
}

struct Range {
    int64_t lo, hi;
};

// What the loops over windows are compiled for: their side, whether a ReLU comes first, and the taps of the filter.
template <int KernelOf, bool ReluOf, int KOf> struct Form {
    static constexpr int Kernel = KernelOf, K = KOf;
    static constexpr bool Relu = ReluOf;
};

// f of the form of a job whose filters have Least to Most taps.
template <int Least, int Most, class F> auto with_form(const Job& job, F f) {
    auto with_taps = [&](auto kernel, auto relu) {
        return with_constant<Least, Most>(job.row.taps, [&](auto taps) { return f(Form<kernel, relu, taps>()); });
    };
    if (job.op == DEALIAS_RELU_BLUR) return with_taps(Constant<1>(), std::true_type());
    if (job.col.kernel == 2) return with_taps(Constant<2>(), std::false_type());
    if (job.col.kernel == 3) return with_taps(Constant<3>(), std::false_type());
    return with_taps(Constant<1>(), std::false_type());
}

inline Range common(Range a, Range b) { return {a.lo > b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi}; }

// The samples of the dense map that the samples [t0, t1) of the padded map stand for.
inline Range needed(const Axis& axis, int mode, int64_t t0, int64_t t1) {
    Range need = {axis.dense, 0};
    for (int64_t t = t0; t < t1; ++t) {
        const int64_t d = border(t, axis.dense, mode);
        if (d >= 0) need = {d < need.lo ? d : need.lo, d + 1 > need.hi ? d + 1 : need.hi};
    }
    return need;
}

// The pixel that stands at position `e` (may be negative) of the axis under the maximum's padding; -1 for -inf.
// Leading padding repeats the first pixel of the windows that start there: it cannot change their maximum, and with the
// pixel's share of a tie added back (see `fold_leading`) the gradient is that of a window that leaves the padding out.
inline int64_t pooled_source(int64_t e, const Axis& axis, bool wrap) {
    if (wrap) return modulo(e, axis.size);
    if (e < 0) e += axis.dilation * ((-e + axis.dilation - 1) / axis.dilation);
    return e < axis.size ? e : -1;
}

template <class U> U* take_array(Arena& arena, int64_t count) {
    constexpr size_t floats = (sizeof(U) + sizeof(float) - 1) / sizeof(float);
    return reinterpret_cast<U*>(arena.take(count * static_cast<int64_t>(floats)));
}

// `count` elements from `from` on, the part behind the end of the tensor unspecified.
template <class T> const T* tail_copy(const T* from, const T* end, T* buffer, int64_t count) {
    memcpy(buffer, from, static_cast<size_t>(end - from < count ? end - from : count) * sizeof(T));
    return buffer;
}

template <class T> class RowSource {
public:
    // Rows for the dense columns [need.lo, need.hi) of the image that `start` names.
    RowSource(const Job& job, Range need, Arena& arena) : job_(job), need_(need), cs_(job.channels) {
        const Axis &row = job.row, &col = job.col;
        pitch = col.size * cs_;
        end_ = static_cast<const T*>(job.x) + job.images * row.size * pitch;
        n = (need.hi - need.lo) * cs_;
        extended_ = n + col.reach * cs_;
        inside_ = need.lo - col.before >= 0 && need.hi + col.reach - col.before <= col.size;
        slots_ = ring_size(row.reach + 1);
        slot_ = take_array<Slot>(arena, slots_);
        for (int64_t s = 0; s < slots_; ++s)
            slot_[s] = {-1, nullptr, nullptr, arena.take(extended_ + kSlack), arena.take(n + kSlack)};
    }

    void start(int64_t image) {
        base_ = static_cast<const T*>(job_.x) + image * job_.row.size * pitch;
        for (int64_t s = 0; s < slots_; ++s) slot_[s].best = nullptr;
    }

    // Rows `r` .. `r + rows - 1` of x for all columns of the windows, and a vector more, can be read in place: where, or
    // null if they cannot.
    const T* readable(int64_t r, int64_t rows) const {
        if (!inside_ || r < 0 || r + rows > job_.row.size) return nullptr;
        const T* from = base_ + r * pitch + (need_.lo - job_.col.before) * cs_;
        return end_ - from >= (rows - 1) * pitch + extended_ + kSlack ? from : nullptr;
    }

    // Row `r` of x with the maximum's padding left and right, not rectified; `buffer` serves where x itself cannot.
    const float* extended(int64_t r, float* buffer) const {
        const T* line = base_ + r * pitch;
        const int64_t first = need_.lo - job_.col.before;
        if constexpr (sizeof(T) == sizeof(float))
            if (const T* from = readable(r, 1)) return from;
        int64_t lo = first, hi = first + extended_ / cs_;
        for (; lo < 0; ++lo) fill(line, lo, buffer + (lo - first) * cs_);
        const int64_t stop = hi < job_.col.size ? hi : job_.col.size;
        if (stop > lo) {
            convert_row(line + lo * cs_, buffer + (lo - first) * cs_, (stop - lo) * cs_);
            lo = stop;
        }
        for (; lo < hi; ++lo) fill(line, lo, buffer + (lo - first) * cs_);
        return buffer;
    }

    const T* end() const { return end_; }

    struct Slot {
        int64_t row;
        const float* extended;
        const float* best;  // the maximum along the row
        float* extended_buffer;
        float* best_buffer;
    };

    // Row `v` of x with its maximum along the row; `v` may run past the map where the maximum wraps.
    const Slot& pooled(int64_t v) {
        Slot& slot = slot_[v & (slots_ - 1)];
        if (slot.best && slot.row == v) return slot;
        slot.row = v;
        slot.extended = extended(job_.wrap ? wrapped(v, job_.row.size) : v, slot.extended_buffer);
        const Axis& col = job_.col;
        if (col.kernel == 1) {
            slot.best = slot.extended;
        } else {
            const float* candidate[kMaxKernel] = {};
            for (int64_t k = 0; k < col.kernel; ++k) candidate[k] = slot.extended + k * col.dilation * cs_;
            max_rows(candidate, col.kernel, slot.best_buffer, n);
            slot.best = slot.best_buffer;
        }
        return slot;
    }

    // The rows of x that row `v` of the maximum looks at: their virtual numbers, in window order.
    int64_t window(int64_t v, int64_t* rows) const {
        const Axis& row = job_.row;
        int64_t count = 0;
        for (int64_t k = 0; k < row.kernel; ++k) {
            const int64_t r = v - row.before + k * row.dilation;
            if (job_.wrap || (r >= 0 && r < row.size)) rows[count++] = r;
        }
        return count;
    }

    int64_t n;      // floats of a dense row
    int64_t pitch;  // from one row of x to the next

private:
    void fill(const T* line, int64_t e, float* out) const {
        const int64_t source = pooled_source(e, job_.col, job_.wrap);
        for (int64_t c = 0; c < cs_; ++c) out[c] = source < 0 ? kLowest : to_float(line[source * cs_ + c]);
    }

    const Job& job_;
    Range need_;
    int64_t cs_, extended_, slots_;
    const T *base_, *end_;
    bool inside_;  // no padding is needed left or right
    Slot* slot_;
};

}  // namespace dealias::DEALIAS_ISA
