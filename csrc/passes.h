// Loops over one row. They run on scratch rows with room behind: lengths are rounded up to a whole number of vectors, so
// that there are no tails. What is written to memory that others own goes through `fill_exactly`.
#pragma once

#include <type_traits>

#include "vec.h"

namespace dealias::DEALIAS_ISA {

constexpr int64_t kBlock = 16;  // floats in the longest vector
template <class T> constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));  // elements in a cache line
constexpr float kLowest = -__builtin_inff();

constexpr int kMaxKernel = 3;
constexpr int kFixedTaps = 7;  // filters with loops of their own

template <int N> using Constant = std::integral_constant<int, N>;

// f(Constant<n>()) for n from Least to Most, f(Constant<Most>()) for any other n.
template <int Least, int Most, class F> [[gnu::always_inline]] inline auto with_constant(int64_t n, F f) {
    if constexpr (Least < Most)
        if (n != Least) return with_constant<Least + 1, Most>(n, f);
    return f(Constant<Least>());
}

inline int64_t whole_blocks(int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; }

template <class T> void convert_row(const T* __restrict in, float* __restrict out, int64_t n) {
    for (int64_t p = 0; p < n; ++p) out[p] = to_float(in[p]);
}

inline void set_row(float* out, float value, int64_t n) {
    for (int64_t p = 0; p < n; p += kWidth) store(out + p, splat(value));
}

template <int ForWriting, class T> void prefetch_row(const T* row, int64_t n) {
    for (int64_t p = 0; p < n; p += kLine<T>) __builtin_prefetch(row + p, ForWriting);
}

template <bool Relu> void weigh_rows_any(const float* const* row, const float* weight, int64_t count,
                                         float* __restrict out, int64_t n) {
    for (int64_t p = 0; p < n; p += kWidth) {
        Vec s = splat(0.0f);
        for (int64_t a = 0; a < count; ++a) {
            const Vec v = load(row[a] + p), w = splat(weight[a]);
            s = a == 0 ? mul(w, Relu ? rectified(v) : v) : madd(w, Relu ? rectified(v) : v, s);
        }
        store(out + p, s);
    }
}

// out[p] = sum of weight[a] * row[a][p], a ascending.
template <bool Relu> void weigh_rows(const float* const* row, const float* weight, int64_t count, float* out, int64_t n) {
    if (count > kFixedTaps) return weigh_rows_any<Relu>(row, weight, count, out, n);
    with_constant<1, kFixedTaps>(count, [=](auto taps) {
        const float* r[taps];
        Vec w[taps];
        for (int a = 0; a < taps; ++a) r[a] = row[a], w[a] = splat(weight[a]);
        for (int64_t p = 0; p < n; p += kWidth) {
            auto value = [&](int a) { return Relu ? rectified(load(r[a] + p)) : load(r[a] + p); };
            Vec s = mul(w[0], value(0));
            for (int a = 1; a < taps; ++a) s = madd(w[a], value(a), s);
            store(out + p, s);
        }
    });
}

// Whether a NaN lies in the rows, or in the vector behind them; reading them in order also brings them into cache.
template <class T> bool has_nan(const T* from, int64_t pitch, int64_t rows, int64_t n) {
    Mask found = unordered(splat(0.0f), splat(0.0f));
    for (int64_t r = 0; r < rows; ++r, from += pitch)
        for (int64_t p = 0; p < n; p += 2 * kWidth) found = either(found, unordered(load(from + p), load(from + p + kWidth)));
    return any(found);
}

// out[p] = the largest of row[..][p]
inline void max_rows(const float* const* row, int64_t count, float* out, int64_t n) {
    const float* from[kMaxKernel] = {row[0], row[count > 1], row[count > 2 ? 2 : 0]};
    with_constant<1, kMaxKernel>(count, [=](auto rows) {
        for (int64_t p = 0; p < n; p += kWidth) {
            Vec best = load(from[0] + p);
            for (int k = 1; k < rows; ++k) best = larger(best, load(from[k] + p));
            store(out + p, best);
        }
    });
}

// Gives gradient g[p] to the first of the largest of row[..][p], to the last NaN if there is one, as in nn.MaxPool2d.
// `Add`: on top of what the parts hold.
template <bool Add> void split(const float* const* row, int64_t count, const float* g, float* const* part, int64_t n) {
    const float* from[kMaxKernel] = {row[0], row[count > 1], row[count > 2 ? 2 : 0]};
    float* to[kMaxKernel] = {part[0], part[count > 1], part[count > 2 ? 2 : 0]};
    with_constant<1, kMaxKernel>(count, [=](auto rows) {
        auto put = [](float* p, Vec v) { store(p, Add ? add(load(p), v) : v); };
        for (int64_t p = 0; p < n; p += kWidth) {
            Vec best = load(from[0] + p), rest = load(g + p);
            Mask won[rows];
            for (int k = 1; k < rows; ++k) {
                const Vec next = load(from[k] + p);
                won[k] = wins(next, best);
                best = larger(best, next);
            }
            for (int k = rows - 1; k > 0; --k) {
                put(to[k] + p, keep(won[k], rest));
                rest = drop(won[k], rest);
            }
            put(to[0] + p, rest);
        }
    });
}

}  // namespace dealias::DEALIAS_ISA
