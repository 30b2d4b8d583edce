// Loops over one row, written so that the compiler vectorises them. They run on scratch rows with room behind, so most
// of them round their length up to a whole number of vectors and have no tail. Every product is an explicit fused
// multiply-add where the target has one: vectors and tails then round alike, and a shifted input gives the shifted output.
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(DEALIAS_ISA)
#error "DEALIAS_ISA names the namespace of this instruction set"
#endif

#define RESTRICT __restrict

namespace dealias::DEALIAS_ISA {

using bfloat16 = uint16_t;
constexpr int64_t kBlock = 16;  // floats in the longest vector
constexpr float kLowest = -__builtin_inff();

inline int64_t whole_blocks(int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; }

inline float madd(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

inline float to_float(float v) { return v; }
inline float to_float(bfloat16 v) {
    uint32_t bits = static_cast<uint32_t>(v) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

template <class T> T from_float(float v);
template <> inline float from_float<float>(float v) { return v; }
template <> inline bfloat16 from_float<bfloat16>(float v) {  // to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<bfloat16>(v != v ? 0x7fc0u : rounded);
}

// The larger; NaN if either is NaN. This form compiles to a vector maximum and one blend; the plain `||` form does not.
inline float larger(float l, float r) {
    float v = l >= r ? l : r;
    return l != l ? l : v;
}

inline float rectified(float v) { return v < 0.0f ? 0.0f : v; }

template <bool Relu, class T> void convert_row(const T* RESTRICT in, float* RESTRICT out, int64_t n) {
    for (int64_t p = 0; p < n; ++p) {
        float v = to_float(in[p]);
        out[p] = Relu ? rectified(v) : v;
    }
}

// out[p] = sum of weight[a] * row[a][p], a ascending.
template <int K, bool Relu> void weigh_rows_fixed(const float* const* row, const float* weight, float* RESTRICT out,
                                                  int64_t n) {
    const float *RESTRICT r0 = row[0], *RESTRICT r1 = row[K > 1], *RESTRICT r2 = row[K > 2 ? 2 : 0],
                *RESTRICT r3 = row[K > 3 ? 3 : 0], *RESTRICT r4 = row[K > 4 ? 4 : 0],
                *RESTRICT r5 = row[K > 5 ? 5 : 0], *RESTRICT r6 = row[K > 6 ? 6 : 0];
    float w[7] = {};
    for (int a = 0; a < K; ++a) w[a] = weight[a];
    auto value = [](float v) { return Relu ? rectified(v) : v; };
    const int64_t m = whole_blocks(n);
    for (int64_t p = 0; p < m; ++p) {
        float s = w[0] * value(r0[p]);
        if constexpr (K > 1) s = madd(w[1], value(r1[p]), s);
        if constexpr (K > 2) s = madd(w[2], value(r2[p]), s);
        if constexpr (K > 3) s = madd(w[3], value(r3[p]), s);
        if constexpr (K > 4) s = madd(w[4], value(r4[p]), s);
        if constexpr (K > 5) s = madd(w[5], value(r5[p]), s);
        if constexpr (K > 6) s = madd(w[6], value(r6[p]), s);
        out[p] = s;
    }
}

template <bool Relu> void weigh_rows_any(const float* const* row, const float* weight, int64_t count,
                                         float* RESTRICT out, int64_t n) {
    const int64_t m = whole_blocks(n);
    for (int64_t a = 0; a < count; ++a) {
        const float* RESTRICT r = row[a];
        const float w = weight[a];
        if (a == 0)
            for (int64_t p = 0; p < m; ++p) out[p] = w * (Relu ? rectified(r[p]) : r[p]);
        else
            for (int64_t p = 0; p < m; ++p) out[p] = madd(w, Relu ? rectified(r[p]) : r[p], out[p]);
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

// out[p] = larger of rows[..][p]; with one row and `shift` this is the maximum along the row.
inline void max_rows(const float* const* row, int64_t count, float* RESTRICT out, int64_t n) {
    const float *RESTRICT a = row[0], *RESTRICT b = row[count > 1], *RESTRICT c = row[count > 2 ? 2 : 0];
    const int64_t m = whole_blocks(n);
    if (count == 1)
        for (int64_t p = 0; p < m; ++p) out[p] = a[p];
    else if (count == 2)
        for (int64_t p = 0; p < m; ++p) out[p] = larger(a[p], b[p]);
    else
        for (int64_t p = 0; p < m; ++p) out[p] = larger(larger(a[p], b[p]), c[p]);
}

// `g` goes to the first of the largest of its candidates, the last NaN if there is one, as in nn.MaxPool2d.
struct Shares {
    float a, b, c;
};
inline Shares share2(float va, float vb, float g) {
    float b = vb > va ? g : 0.0f, a = vb > va ? 0.0f : g;
    return {vb != vb ? 0.0f : a, vb != vb ? g : b, 0.0f};
}
inline Shares share3(float va, float vb, float vc, float g) {
    float v = larger(va, vb);
    float c = vc > v ? g : 0.0f, rest = vc > v ? 0.0f : g;
    c = vc != vc ? g : c;
    rest = vc != vc ? 0.0f : rest;
    Shares s = share2(va, vb, rest);
    return {s.a, s.b, c};
}

// Splits gradient g over `count` rows of candidates.
inline void split(const float* const* row, int64_t count, const float* RESTRICT g, float* const* part, int64_t n) {
    const float *RESTRICT a = row[0], *RESTRICT b = row[count > 1], *RESTRICT c = row[count > 2 ? 2 : 0];
    float *RESTRICT pa = part[0], *RESTRICT pb = part[count > 1], *RESTRICT pc = part[count > 2 ? 2 : 0];
    const int64_t m = whole_blocks(n);
    if (count == 1)
        for (int64_t p = 0; p < m; ++p) pa[p] = g[p];
    else if (count == 2)
        for (int64_t p = 0; p < m; ++p) {
            Shares s = share2(a[p], b[p], g[p]);
            pa[p] = s.a;
            pb[p] = s.b;
        }
    else
        for (int64_t p = 0; p < m; ++p) {
            Shares s = share3(a[p], b[p], c[p], g[p]);
            pa[p] = s.a;
            pb[p] = s.b;
            pc[p] = s.c;
        }
}

// As `split`, adding to what the parts hold.
inline void split_add(const float* const* row, int64_t count, const float* RESTRICT g, float* const* part, int64_t n) {
    const float *RESTRICT a = row[0], *RESTRICT b = row[count > 1], *RESTRICT c = row[count > 2 ? 2 : 0];
    float *RESTRICT pa = part[0], *RESTRICT pb = part[count > 1], *RESTRICT pc = part[count > 2 ? 2 : 0];
    const int64_t m = whole_blocks(n);
    if (count == 1)
        for (int64_t p = 0; p < m; ++p) pa[p] += g[p];
    else if (count == 2)
        for (int64_t p = 0; p < m; ++p) {
            Shares s = share2(a[p], b[p], g[p]);
            pa[p] += s.a;
            pb[p] += s.b;
        }
    else
        for (int64_t p = 0; p < m; ++p) {
            Shares s = share3(a[p], b[p], c[p], g[p]);
            pa[p] += s.a;
            pb[p] += s.b;
            pc[p] += s.c;
        }
}

}  // namespace dealias::DEALIAS_ISA
