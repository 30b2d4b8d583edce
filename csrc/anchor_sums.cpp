// No function of the standard library here: one that is shared could be emitted with instructions a machine lacks.
#include "anchor_sums.h"

namespace dealias {
namespace DEALIAS_ISA {
namespace {

// Sums of this many pixels stay in the first level of cache while the channels pass.
constexpr int64_t kPixels = 2048;
constexpr int kLanes = 16;
constexpr double kUnits = 1099511627776.0;       // 2**40
constexpr double kRounding = 6755399441055744.0;  // 1.5 * 2**52: what is added to it is rounded to an integer

struct Bfloat16 {
    uint16_t bits;
};

inline float widened(float value) { return value; }
inline double widened(double value) { return value; }
inline float widened(Bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    __builtin_memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// Every pixel is summed in the order of its channels, by the same operations wherever it stands: equal pixels have equal
// sums.
template <class T, class Sum>
void sum_planes(const void* x, int64_t channels, int64_t pixels, void* sums) {
    for (int64_t first = 0; first < pixels; first += kPixels) {
        const int64_t count = pixels - first < kPixels ? pixels - first : kPixels;
        Sum* __restrict const to = static_cast<Sum*>(sums) + first;
        const T* __restrict from = static_cast<const T*>(x) + first;
        for (int64_t i = 0; i < count; ++i) to[i] = 0;
        int64_t channel = 0;
        for (; channel + 4 <= channels; channel += 4, from += 4 * pixels)
            for (int64_t i = 0; i < count; ++i) {
                const Sum a = widened(from[i]), b = widened(from[pixels + i]);
                const Sum c = widened(from[2 * pixels + i]), d = widened(from[3 * pixels + i]);
                to[i] += (a * a + b * b) + (c * c + d * d);
            }
        for (; channel < channels; ++channel, from += pixels)
            for (int64_t i = 0; i < count; ++i) {
                const Sum value = widened(from[i]);
                to[i] += value * value;
            }
    }
}

template <class T, class Sum>
void sum_channels_last(const void* x, int64_t channels, int64_t pixels, void* sums) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const T* const from = static_cast<const T*>(x) + pixel * channels;
        Sum lanes[kLanes] = {};
        int64_t channel = 0;
        for (; channel + kLanes <= channels; channel += kLanes)
            for (int lane = 0; lane < kLanes; ++lane) {
                const Sum value = widened(from[channel + lane]);
                lanes[lane] += value * value;
            }
        for (int lane = 0; channel + lane < channels; ++lane) {
            const Sum value = widened(from[channel + lane]);
            lanes[lane] += value * value;
        }
        Sum sum = 0;
        for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
        static_cast<Sum*>(sums)[pixel] = sum;
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
    {sum_planes<float, float>, sum_planes<Bfloat16, float>, sum_planes<double, double>},
    {sum_channels_last<float, float>, sum_channels_last<Bfloat16, float>, sum_channels_last<double, double>},
    {sum_components<float>, sum_components<float>, sum_components<double>},
};

}  // namespace DEALIAS_ISA
}  // namespace dealias
