// No function of the standard library here: one that is shared could be emitted with instructions a machine lacks.
#include "anchor_sums.h"

#include "vec.h"

namespace dealias {
namespace DEALIAS_ISA {
namespace {

// Sums of this many pixels stay in the first level of cache while the channels pass.
constexpr int64_t kPixels = 2048;
constexpr int64_t kPair = 2 * kWidth;
constexpr int kLanes = 16;
constexpr double kUnits = 1099511627776.0;       // 2**40
constexpr double kRounding = 6755399441055744.0;  // 1.5 * 2**52: what is added to it is rounded to an integer

// kPair neighbours as floats: the first half and the second; of bfloat16 the even ones and the odd ones.
struct Pair {
    Vec a, b;

    void add_squares_of(const Pair& other) {
        a = madd(other.a, other.a, a);
        b = madd(other.b, other.b, b);
    }
};

template <class T> inline Pair pair_at(const T* p) { return {load(p), load(p + kWidth)}; }
inline Pair pair_at(const bfloat16* p) {
    typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec))));
    Bits both;
    memcpy(&both, p, sizeof both);
    return {(Vec)(both << 16), (Vec)(both & 0xffff0000u)};
}
#if defined(__AVX512F__)
template <class T> inline Pair pair_in(Mask first, Mask second, const T* p) {
    return {load_lanes(first, p, splat(0)), load_lanes(second, p + kWidth, splat(0))};
}
inline Pair pair_in(Mask even, Mask odd, const bfloat16* p) {
    Pair found;
    load_parities(even, odd, p, found.a, found.b);
    return found;
}
#endif
// The first `count` of them, and zeros.
template <class T> inline Pair pair_below(const T* p, int64_t count) {
#if defined(__AVX512F__)
    return pair_in(lanes_below(count), lanes_below(count - kWidth), p);
#endif
    T all[kPair] = {};
    for (int64_t i = 0; i < count; ++i) all[i] = p[i];
    return pair_at(all);
}
inline void store_pair(const void*, float* to, const Pair& pair) {
    store(to, pair.a);
    store(to + kWidth, pair.b);
}
inline void store_pair(const bfloat16*, float* to, const Pair& pair) { store_interleaved(to, pair.a, pair.b); }

inline double widened(double value) { return value; }
template <class T> inline float widened(T value) { return to_float(value); }

// Maps of few pixels, and float64: every pixel by the same operations, wherever it stands, as in all that follows.
template <class T, class Sum>
void sum_any_planes(const void* x, int64_t channels, int64_t pixels, void* sums) {
    Sum* __restrict const to = static_cast<Sum*>(sums);
    const T* __restrict from = static_cast<const T*>(x);
    for (int64_t i = 0; i < pixels; ++i) to[i] = 0;
    for (int64_t channel = 0; channel < channels; ++channel, from += pixels)
        for (int64_t i = 0; i < pixels; ++i) {
            const Sum value = widened(from[i]);
            to[i] += value * value;
        }
}

// The last pair of a part overlaps the one before: it comes to the same sums.
template <class T>
void sum_planes(const void* x, int64_t channels, int64_t pixels, void* sums) {
    if (pixels < kPair) return sum_any_planes<T, float>(x, channels, pixels, sums);
    for (int64_t start = 0; start < pixels; start += kPixels) {
        const int64_t first = start < pixels - kPair ? start : pixels - kPair;
        const int64_t count = pixels - first < kPixels ? pixels - first : kPixels;
        const int64_t last = (count - 1) / kPair;
        const T* from = static_cast<const T*>(x) + first;
        Pair found[kPixels / kPair] = {};
        const auto add = [&](int64_t channel, int64_t i, int64_t place) {
            found[i].add_squares_of(pair_at(from + channel * pixels + place));
        };
        int64_t channel = 0;
        for (; channel + 4 <= channels; channel += 4) {
            for (int64_t i = 0; i < last; ++i)
                for (int k = 0; k < 4; ++k) add(channel + k, i, i * kPair);
            for (int k = 0; k < 4; ++k) add(channel + k, last, count - kPair);
        }
        for (; channel < channels; ++channel) {
            for (int64_t i = 0; i < last; ++i) add(channel, i, i * kPair);
            add(channel, last, count - kPair);
        }
        float* const to = static_cast<float*>(sums) + first;
        for (int64_t i = 0; i < last; ++i) store_pair(from, to + i * kPair, found[i]);
        store_pair(from, to + count - kPair, found[last]);
    }
}

// Of each of N vectors the sum of its lanes, in their order.
template <int N> inline Vec sums_of(const Vec* v) {
    if constexpr (N == 1) return v[0];
    if constexpr (N > 1) {
        const Vec a = sums_of<N / 2>(v), b = sums_of<N / 2>(v + N / 2);
        return in_order(add(evens_apart(a, b), odds_apart(a, b)));
    }
}

template <class T>
void sum_channels_last(const void* x, int64_t channels, int64_t pixels, void* sums) {
    const int64_t whole = channels / kPair * kPair;
    for (int64_t start = 0; start < pixels; start += kWidth) {
        const int64_t count = pixels - start < kWidth ? pixels - start : kWidth;
        Vec found[kWidth];
        for (int64_t i = 0; i < kWidth; ++i) {
            const T* const from = static_cast<const T*>(x) + (start + (i < count ? i : 0)) * channels;
            Pair sum = {};
            for (int64_t channel = 0; channel < whole; channel += kPair) sum.add_squares_of(pair_at(from + channel));
            if (whole < channels) sum.add_squares_of(pair_below(from + whole, channels - whole));
            found[i] = add(sum.a, sum.b);
        }
        store_first(static_cast<float*>(sums) + start, sums_of<kWidth>(found), count);
    }
}

void sum_doubles_channels_last(const void* x, int64_t channels, int64_t pixels, void* sums) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const double* const from = static_cast<const double*>(x) + pixel * channels;
        double lanes[kLanes] = {};
        for (int64_t channel = 0; channel < channels; ++channel)
            lanes[channel % kLanes] += from[channel] * from[channel];
        for (int half = kLanes / 2; half > 0; half /= 2)
            for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
        static_cast<double*>(sums)[pixel] = lanes[0];
    }
}

// `value`, below 2**41 and not negative, rounded to an integer: additions alone, which all instruction sets have wide.
inline int64_t rounded(double value) {
    const double shifted = value + kRounding;
    int64_t bits, base;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    __builtin_memcpy(&base, &kRounding, sizeof base);
    return bits - base;
}

template <class Sum>
void sum_components(const void* sums, int64_t height, int64_t width, const int32_t* stride, int64_t* components) {
    const Sum* const from = static_cast<const Sum*>(sums);
    const int64_t pixels = height * width;
    for (int64_t i = 0; i < int64_t(stride[0]) * stride[1]; ++i) components[i] = 0;
    Sum tops[kLanes] = {};
    int64_t pixel = 0;
    for (; pixel + kLanes <= pixels; pixel += kLanes)
        for (int lane = 0; lane < kLanes; ++lane)
            tops[lane] = from[pixel + lane] > tops[lane] ? from[pixel + lane] : tops[lane];
    for (; pixel < pixels; ++pixel) tops[0] = from[pixel] > tops[0] ? from[pixel] : tops[0];
    Sum top = 0;
    for (int lane = 0; lane < kLanes; ++lane) top = tops[lane] > top ? tops[lane] : top;
    const double scale = kUnits / static_cast<double>(top);
    if (!(top > 0) || !(scale > 0) || scale > 1e300) return;
    const bool fits = kLanes % stride[1] == 0;
    for (int64_t row = 0; row < height; ++row) {
        int64_t* const line = components + row % stride[0] * stride[1];
        const Sum* const values = from + row * width;
        int64_t lanes[kLanes] = {}, column = 0;
        for (; fits && column + kLanes <= width; column += kLanes)
            for (int lane = 0; lane < kLanes; ++lane)
                lanes[lane] += rounded(static_cast<double>(values[column + lane]) * scale);
        for (int lane = 0; fits && lane < kLanes; ++lane) line[lane % stride[1]] += lanes[lane];
        for (int64_t phase = 0; column < width; ++column) {
            line[phase] += rounded(static_cast<double>(values[column]) * scale);
            if (++phase == stride[1]) phase = 0;
        }
    }
}

}  // namespace

extern const AnchorSums anchor_sums;
const AnchorSums anchor_sums = {
    {sum_planes<float>, sum_planes<bfloat16>, sum_any_planes<double, double>, sum_planes<float16>},
    {sum_channels_last<float>, sum_channels_last<bfloat16>, sum_doubles_channels_last, sum_channels_last<float16>},
    {sum_components<float>, sum_components<float>, sum_components<double>, sum_components<float>},
};

}  // namespace DEALIAS_ISA
}  // namespace dealias
