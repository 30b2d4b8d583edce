// Loops over one row. They run on scratch rows with room behind: lengths are rounded up to a whole number of vectors, so
// that there are no tails. What is written to memory that others own goes through `fill_exactly`.
#pragma once

#include "vec.h"

#define RESTRICT __restrict

namespace dealias::DEALIAS_ISA {

constexpr int64_t kBlock = 16;  // floats in the longest vector
constexpr int64_t kCacheLine = 64;  // bytes
constexpr float kLowest = -__builtin_inff();

inline int64_t whole_blocks(int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; }

template <class T> void convert_row(const T* RESTRICT in, float* RESTRICT out, int64_t n) {
    for (int64_t p = 0; p < n; ++p) out[p] = to_float(in[p]);
}

inline void set_row(float* out, float value, int64_t n) {
    for (int64_t p = 0; p < n; p += kWidth) store(out + p, splat(value));
}

template <int ForWriting, class T> void prefetch_row(const T* row, int64_t n) {
    constexpr int64_t line = kCacheLine / static_cast<int64_t>(sizeof(T));
    for (int64_t p = 0; p < n; p += line) __builtin_prefetch(row + p, ForWriting);
}

// out[p] = sum of weight[a] * row[a][p], a ascending.
template <int K, bool Relu> void weigh_rows_fixed(const float* const* row, const float* weight, float* RESTRICT out,
                                                  int64_t n) {
    const float* r[K];
    Vec w[K];
    for (int a = 0; a < K; ++a) r[a] = row[a], w[a] = splat(weight[a]);
    for (int64_t p = 0; p < n; p += kWidth) {
        auto value = [&](int a) { return Relu ? rectified(load(r[a] + p)) : load(r[a] + p); };
        Vec s = mul(w[0], value(0));
#pragma GCC unroll 7
        for (int a = 1; a < K; ++a) s = madd(w[a], value(a), s);
        store(out + p, s);
    }
}

template <bool Relu> void weigh_rows_any(const float* const* row, const float* weight, int64_t count,
                                         float* RESTRICT out, int64_t n) {
    for (int64_t p = 0; p < n; p += kWidth) {
        Vec s = splat(0.0f);
        for (int64_t a = 0; a < count; ++a) {
            const Vec v = load(row[a] + p), w = splat(weight[a]);
            s = a == 0 ? mul(w, Relu ? rectified(v) : v) : madd(w, Relu ? rectified(v) : v, s);
        }
        store(out + p, s);
    }
}

template <bool Relu> void weigh_rows(const float* const* row, const float* weight, int64_t count, float* out, int64_t n) {
    switch (count) {
        case 1: return weigh_rows_fixed<1, Relu>(row, weight, out, n);
        case 2: return weigh_rows_fixed<2, Relu>(row, weight, out, n);
        case 3: return weigh_rows_fixed<3, Relu>(row, weight, out, n);
        case 4: return weigh_rows_fixed<4, Relu>(row, weight, out, n);
        case 5: return weigh_rows_fixed<5, Relu>(row, weight, out, n);
        case 6: return weigh_rows_fixed<6, Relu>(row, weight, out, n);
        case 7: return weigh_rows_fixed<7, Relu>(row, weight, out, n);
        default: return weigh_rows_any<Relu>(row, weight, count, out, n);
    }
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
    const float *a = row[0], *b = row[count > 1], *c = row[count > 2 ? 2 : 0];
    if (count == 1)
        for (int64_t p = 0; p < n; p += kWidth) store(out + p, load(a + p));
    else if (count == 2)
        for (int64_t p = 0; p < n; p += kWidth) store(out + p, larger(load(a + p), load(b + p)));
    else
        for (int64_t p = 0; p < n; p += kWidth)
            store(out + p, larger(larger(load(a + p), load(b + p)), load(c + p)));
}

// Gives gradient g[p] to the first of the largest of row[..][p], to the last NaN if there is one, as in nn.MaxPool2d.
// `Add`: on top of what the parts hold.
template <bool Add> void split(const float* const* row, int64_t count, const float* g, float* const* part, int64_t n) {
    const float *a = row[0], *b = row[count > 1], *c = row[count > 2 ? 2 : 0];
    float *pa = part[0], *pb = part[count > 1], *pc = part[count > 2 ? 2 : 0];
    auto put = [](float* p, Vec v) { store(p, Add ? add(load(p), v) : v); };
    if (count == 1) {
        for (int64_t p = 0; p < n; p += kWidth) put(pa + p, load(g + p));
    } else if (count == 2) {
        for (int64_t p = 0; p < n; p += kWidth) {
            const Vec whole = load(g + p);
            const Mask second = wins(load(b + p), load(a + p));
            put(pa + p, drop(second, whole));
            put(pb + p, keep(second, whole));
        }
    } else {
        for (int64_t p = 0; p < n; p += kWidth) {
            const Vec whole = load(g + p), first = load(a + p), second = load(b + p);
            const Mask two = wins(second, first), three = wins(load(c + p), larger(first, second));
            const Vec rest = drop(three, whole);
            put(pa + p, drop(two, rest));
            put(pb + p, keep(two, rest));
            put(pc + p, keep(three, whole));
        }
    }
}

}  // namespace dealias::DEALIAS_ISA
