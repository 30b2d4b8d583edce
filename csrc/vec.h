// One vector of floats per instruction set. Intrinsics where the compiler does not reliably find the instruction itself
// (it branches on NaN tests, it does not see de-interleaving), else plain operators.
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(DEALIAS_ISA)
#error "DEALIAS_ISA names the namespace of this instruction set"
#endif
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace dealias::DEALIAS_ISA {

using bfloat16 = uint16_t;
struct float16 {
    uint16_t bits;
};

// a * b + c, rounded once, for floats or vectors of them and the doubles and 64-bit integers to go with them. The product is
// exact, and what the sum loses goes into its last bit: that is far enough behind the last of a float to round right.
template <class F, class D, class I> inline F fused(F a, F b, F c) {
    const D product = __builtin_convertvector(a, D) * __builtin_convertvector(b, D), more = __builtin_convertvector(c, D);
    D sum = product + more;
    const D part = sum - product, lost = (product - (sum - part)) + (more - part);
    I bits, inexact = (lost > 0) | (lost < 0), inward = (sum > 0) ^ (lost > 0);
    memcpy(&bits, &sum, sizeof sum);
    bits += inexact & ~-(bits & 1) & (inward | 1);
    memcpy(&sum, &bits, sizeof sum);
    return __builtin_convertvector(sum, F);
}

// Every path fuses a product with its sum, so that all instruction sets round alike.
inline float madd(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    typedef float F __attribute__((vector_size(8)));
    typedef double D __attribute__((vector_size(16)));
    typedef int64_t I __attribute__((vector_size(16)));
    return fused<F, D, I>(F{a}, F{b}, F{c})[0];
#endif
}

inline float to_float(float v) { return v; }
inline float to_float(bfloat16 v) {
    const uint32_t bits = static_cast<uint32_t>(v) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

inline float to_float(float16 v) {
#if defined(__F16C__)
    return _cvtsh_ss(v.bits);
#elif defined(__ARM_NEON)
    __fp16 native;
    memcpy(&native, &v, sizeof v);
    return native;
#else
    const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000) << 16, rest = v.bits & 0x7fff;
    float f = static_cast<float>(rest) * 0x1p-24f;  // below the normal numbers
    uint32_t bits;
    memcpy(&bits, &f, sizeof f);
    if (rest >= 0x0400) bits = (rest << 13) + (rest >= 0x7c00 ? 0x70000000 : 0x38000000);
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
#endif
}

template <class T> T from_float(float v);
template <> inline float from_float<float>(float v) { return v; }
template <> inline bfloat16 from_float<bfloat16>(float v) {  // to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<bfloat16>(v != v ? 0x7fc0u : rounded);
}
template <> inline float16 from_float<float16>(float v) {
#if defined(__F16C__)
    return {static_cast<uint16_t>(_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT))};
#elif defined(__ARM_NEON)
    const __fp16 native = static_cast<__fp16>(v);
    float16 half;
    memcpy(&half, &native, sizeof half);
    return half;
#else
    uint32_t bits, sum;
    memcpy(&bits, &v, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
    if (rest >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};
    const float small = __builtin_fabsf(v) + 0.5f;  // the last bit of 0.5 is that of the numbers below the normal ones
    memcpy(&sum, &small, sizeof sum);
    const uint32_t normal = (rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13;
    return {static_cast<uint16_t>(sign | (rest < 0x38800000 ? sum - 0x3f000000 : normal))};
#endif
}

#if defined(__AVX512F__)

using Vec = __m512;
using Mask = __mmask16;
constexpr bool kFreeMasks = true;  // a masked load costs no more than a plain one
constexpr int64_t kWidth = 16;
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec load(const bfloat16* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline Vec load(const float16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec splat(float v) { return _mm512_set1_ps(v); }
inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec madd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec rectified(Vec v) { return _mm512_max_ps(_mm512_setzero_ps(), v); }
inline Mask unordered(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
inline Mask either(Mask a, Mask b) { return _kor_mask16(a, b); }
inline Mask both(Mask a, Mask b) { return _kand_mask16(a, b); }
inline Mask without(Mask a, Mask b) { return static_cast<Mask>(a & ~b); }
inline Mask lanes_below(int64_t n) { return static_cast<Mask>(n >= kWidth ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }
inline bool any(Mask m) { return m != 0; }
inline Vec larger_number(Vec l, Vec r) { return _mm512_max_ps(l, r); }
inline Mask above(Vec r, Vec l) { return _mm512_cmp_ps_mask(r, l, _CMP_GT_OQ); }
inline Vec choose(Mask m, Vec a, Vec b) { return _mm512_mask_mov_ps(b, m, a); }
inline Vec keep(Mask m, Vec v) { return _mm512_maskz_mov_ps(m, v); }
inline Vec drop(Mask m, Vec v) { return _mm512_mask_mov_ps(v, m, _mm512_setzero_ps()); }
inline Mask not_above_zero(Vec v) { return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LE_OQ); }
// The even, or the odd, of two vectors: in an order that is the same for both, until `in_order`.
inline Vec in_order(Vec v) { return v; }
inline Vec evens_apart(Vec a, Vec b) {
    const __m512i index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, index, b);
}
inline Vec odds_apart(Vec a, Vec b) {
    const __m512i index = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, index, b);
}
// Lanes K .. K + 15 of a followed by b.
template <int K> inline Vec joined(Vec a, Vec b) {
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b), _mm512_castps_si512(a), K));
}
inline Vec shifted_in(Vec a, Vec b) { return joined<15>(a, b); }
// `upper` first: it may be the same variable, where only `lower` is wanted.
inline void interleave(Vec a, Vec b, Vec& lower, Vec& upper) {
    const __m512i lo = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i hi = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    upper = _mm512_permutex2var_ps(a, hi, b);
    lower = _mm512_permutex2var_ps(a, lo, b);
}
inline __m256i to_bfloat16(Vec v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), unordered(v, v), _mm512_set1_epi32(0x7fc0));
    return _mm512_cvtepi32_epi16(rounded);
}
inline __m256i to_float16(Vec v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void store(bfloat16* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bfloat16(v)); }
inline void store(float16* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_float16(v)); }
// The lanes of `m` from memory, the others from `other`; what lies behind them is not touched.
inline Vec load_lanes(Mask m, const float* p, Vec other) { return _mm512_mask_loadu_ps(other, m, p); }
inline Vec load_lanes(Mask m, const bfloat16* p, Vec other) {
    if (m == 0xffff) return load(p);
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));
    return _mm512_mask_mov_ps(other, m, _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
}
inline Vec load_lanes(Mask m, const float16* p, Vec other) {
    return _mm512_mask_mov_ps(other, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)));
}
// As floats, the even and the odd of 32 neighbours: those of `lower` and `upper`, zero for the others.
inline void load_parities(Mask lower, Mask upper, const bfloat16* p, Vec& even, Vec& odd) {
    const uint32_t m = lower | static_cast<uint32_t>(upper) << kWidth;
    const __m512i both = m == ~0u ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(m, p);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
inline void store_lanes(Mask m, float* p, Vec v) { _mm512_mask_storeu_ps(p, m, v); }
inline void store_lanes(Mask m, bfloat16* p, Vec v) { _mm256_mask_storeu_epi16(p, m, to_bfloat16(v)); }
inline void store_lanes(Mask m, float16* p, Vec v) { _mm256_mask_storeu_epi16(p, m, to_float16(v)); }
using Index = __m512i;
inline Index index_of(const int32_t* lane) { return _mm512_loadu_si512(lane); }
// Lane i: number index[i] of `a` followed by `b`.
inline Vec permuted(Index index, Vec a, Vec b) { return _mm512_permutex2var_ps(a, index, b); }
inline Vec permuted(Index index, Vec a) { return _mm512_permutexvar_ps(index, a); }

#elif defined(__AVX2__)

using Vec = __m256;
using Mask = __m256;
constexpr bool kFreeMasks = false;
constexpr int64_t kWidth = 8;
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec load(const bfloat16* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline Vec load(const float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void store(float16* p, Vec v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline Vec splat(float v) { return _mm256_set1_ps(v); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec madd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec rectified(Vec v) { return _mm256_max_ps(_mm256_setzero_ps(), v); }
inline Mask unordered(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
inline Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
inline Mask both(Mask a, Mask b) { return _mm256_and_ps(a, b); }
inline Mask without(Mask a, Mask b) { return _mm256_andnot_ps(b, a); }
inline Mask lanes_below(int64_t n) {
    const int32_t count = n >= kWidth ? kWidth : n < 0 ? 0 : static_cast<int32_t>(n);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes));
}
inline int bits_of(Mask m) { return _mm256_movemask_ps(m); }
inline bool any(Mask m) { return bits_of(m) != 0; }
inline Vec larger_number(Vec l, Vec r) { return _mm256_max_ps(l, r); }
inline Mask above(Vec r, Vec l) { return _mm256_cmp_ps(r, l, _CMP_GT_OQ); }
inline Vec choose(Mask m, Vec a, Vec b) { return _mm256_blendv_ps(b, a, m); }
inline Vec keep(Mask m, Vec v) { return _mm256_and_ps(m, v); }
inline Vec drop(Mask m, Vec v) { return _mm256_andnot_ps(m, v); }
inline Mask not_above_zero(Vec v) { return _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LE_OQ); }
// The even, or the odd, of two vectors: in an order that is the same for both, until `in_order`.
inline Vec in_order(Vec v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), _MM_SHUFFLE(3, 1, 2, 0)));
}
inline Vec evens_apart(Vec a, Vec b) { return _mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)); }
inline Vec odds_apart(Vec a, Vec b) { return _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)); }
// Lanes K .. K + 7 of a followed by b.
template <int K> inline Vec joined(Vec a, Vec b) {
    const Vec between = _mm256_permute2f128_ps(a, b, 0x21);
    const __m256i lower = _mm256_castps_si256(K < 4 ? a : between), upper = _mm256_castps_si256(K < 4 ? between : b);
    return _mm256_castsi256_ps(_mm256_alignr_epi8(upper, lower, K % 4 * 4));
}
inline Vec shifted_in(Vec a, Vec b) { return joined<7>(a, b); }
inline void interleave(Vec a, Vec b, Vec& lower, Vec& upper) {
    const Vec lo = _mm256_unpacklo_ps(a, b), hi = _mm256_unpackhi_ps(a, b);
    upper = _mm256_permute2f128_ps(lo, hi, 0x31);
    lower = _mm256_permute2f128_ps(lo, hi, 0x20);
}
inline void store(bfloat16* p, Vec v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), _mm256_castps_si256(unordered(v, v)));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
// The lanes of `m` from memory, the others from `other`; what lies behind them is not touched.
inline Vec load_lanes(Mask m, const float* p, Vec other) {
    if (bits_of(m) == 0xff) return load(p);
    return choose(m, _mm256_maskload_ps(p, _mm256_castps_si256(m)), other);
}
template <class T> inline void copy_lanes(int bits, const T* from, T* to) {
    for (; bits; bits &= bits - 1) to[__builtin_ctz(bits)] = from[__builtin_ctz(bits)];
}
template <class T> inline Vec load_lanes(Mask m, const T* p, Vec other) {
    if (bits_of(m) == 0xff) return load(p);
    T all[kWidth] = {};
    copy_lanes(bits_of(m), p, all);
    return choose(m, load(all), other);
}
inline void store_lanes(Mask m, float* p, Vec v) {
    if (bits_of(m) == 0xff) return store(p, v);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m), v);
}
template <class T> inline void store_lanes(Mask m, T* p, Vec v) {
    if (bits_of(m) == 0xff) return store(p, v);
    T all[kWidth];
    store(all, v);
    copy_lanes(bits_of(m), all, p);
}
using Index = __m256i;
// The sign says which of two vectors: the permutation looks at three bits, the choice at the sign.
inline Index index_of(const int32_t* lane) {
    const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane));
    return _mm256_or_si256(index, _mm256_slli_epi32(index, 28));
}
// Lane i: number index[i] of `a` followed by `b`.
inline Vec permuted(Index index, Vec a) { return _mm256_permutevar8x32_ps(a, index); }
inline Vec permuted(Index index, Vec a, Vec b) {
    return _mm256_blendv_ps(permuted(index, a), permuted(index, b), _mm256_castsi256_ps(index));
}

#else

typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));
constexpr bool kFreeMasks = false;
constexpr int64_t kWidth = 4;
inline Vec load(const float* p) {
    Vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
inline Vec load(const bfloat16* p) { return Vec{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}; }
inline Vec load(const float16* p) { return Vec{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])}; }
inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }
inline Vec splat(float v) { return Vec{v, v, v, v}; }
inline Vec add(Vec a, Vec b) { return a + b; }
inline Vec mul(Vec a, Vec b) { return a * b; }
inline Vec madd(Vec a, Vec b, Vec c) {
#if defined(__ARM_NEON)
    return vfmaq_f32(c, a, b);
#else
    typedef double D __attribute__((vector_size(32)));
    typedef int64_t I __attribute__((vector_size(32)));
    return fused<Vec, D, I>(a, b, c);
#endif
}
inline Vec choose(Mask m, Vec a, Vec b) { return (Vec)((m & (Mask)a) | (~m & (Mask)b)); }
inline Vec keep(Mask m, Vec v) { return (Vec)(m & (Mask)v); }
inline Vec drop(Mask m, Vec v) { return (Vec)(~m & (Mask)v); }
inline Vec rectified(Vec v) { return drop(v < splat(0.0f), v); }
inline Mask unordered(Vec a, Vec b) { return (a != a) | (b != b); }
inline Mask either(Mask a, Mask b) { return a | b; }
inline bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
inline Vec larger_number(Vec l, Vec r) { return choose(l > r, l, r); }
inline Mask above(Vec r, Vec l) { return r > l; }
inline Mask not_above_zero(Vec v) { return v <= splat(0.0f); }
inline Vec in_order(Vec v) { return v; }
inline Vec evens_apart(Vec a, Vec b) { return Vec{a[0], a[2], b[0], b[2]}; }
inline Vec odds_apart(Vec a, Vec b) { return Vec{a[1], a[3], b[1], b[3]}; }
inline Vec shifted_in(Vec a, Vec b) { return Vec{a[3], b[0], b[1], b[2]}; }
inline void interleave(Vec a, Vec b, Vec& lower, Vec& upper) {
    upper = Vec{a[2], b[2], a[3], b[3]};
    lower = Vec{a[0], b[0], a[1], b[1]};
}
template <class T> inline void store(T* p, Vec v) {
    for (int i = 0; i < 4; ++i) p[i] = from_float<T>(v[i]);
}

#endif

inline Mask unordered(Vec v) { return unordered(v, v); }
// A NaN is larger than any number, and wins over what came before.
inline Vec larger(Vec l, Vec r) { return choose(unordered(l), l, larger_number(l, r)); }
inline Mask wins(Vec r, Vec l) { return either(above(r, l), unordered(r)); }

inline void store_interleaved(float* p, Vec a, Vec b) {
    Vec lower, upper;
    interleave(a, b, lower, upper);
    store(p, lower);
    store(p + kWidth, upper);
}

// -0 becomes 0: a path that adds to zero and one that does not then agree.
inline Vec positive_zero(Vec v) { return add(v, splat(0.0f)); }

// The tests for NaN cost more than the maximum; where a scan found none the passes go without.
template <bool Nan> inline Vec larger_of(Vec l, Vec r) { return Nan ? larger(l, r) : larger_number(l, r); }
template <bool Nan> inline Mask wins_over(Vec r, Vec l) { return Nan ? wins(r, l) : above(r, l); }

// The vector at `p + K`; `here` is the one at `p`. Two aligned loads of 64 bytes cost less than one across cache lines.
template <int K, class T> inline Vec load_beside(const T* p, Vec here) {
#if defined(__AVX512F__)
    return joined<K>(here, load(p + kWidth));
#else
    (void)here;
    return load(p + K);
#endif
}

// Stores the vector, or its first n elements if that is less; writes no other.
template <class T> [[gnu::always_inline]] inline void store_first(T* p, Vec v, int64_t n) {
    if (n >= kWidth) return store(p, v);
#if defined(__AVX512F__)
    return store_lanes(lanes_below(n), p, v);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == sizeof(float)) {
        __m128 part = _mm256_castps256_ps128(v);
        if (n & 4) _mm_storeu_ps(p, part), part = _mm256_extractf128_ps(v, 1), p += 4;
        if (n & 2) _mm_storel_pi(reinterpret_cast<__m64*>(p), part), part = _mm_movehl_ps(part, part), p += 2;
        return n & 1 ? _mm_store_ss(p, part) : void();
    }
#endif
    T all[kWidth];
    store(all, v);
    for (int64_t i = 0; i < n; ++i) p[i] = all[i];
}

// The vector at `p`, or its first n elements if that is less, then zeros.
template <class T> [[gnu::always_inline]] inline Vec load_first(const T* p, int64_t n) {
    if (n >= kWidth) return load(p);
    T all[kWidth] = {};
    for (int64_t i = 0; i < n; ++i) all[i] = p[i];
    return load(all);
}

// out[0 .. n - 1] = f(position of a vector); the last vector overlaps the one before where the row is long enough.
// `out` is memory that others own behind its end; f must be defined up to a vector past n.
template <class T, class F> [[gnu::always_inline]] inline void fill_exactly(T* out, int64_t n, F f) {
    if (n < kWidth) return store_first(out, f(0), n);
    for (int64_t p = 0; p < n - kWidth; p += kWidth) store(out + p, f(p));
    store(out + n - kWidth, f(n - kWidth));
}

}  // namespace dealias::DEALIAS_ISA
