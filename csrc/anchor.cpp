#include "anchor.h"

#include <algorithm>
#include <cstring>

#include "anchor_sums.h"
#include "parallel.h"

namespace dealias {
namespace {

// A thread is worth its start from this many elements on.
constexpr int64_t kThreadElements = 1 << 18;
// Planes of up to this many pixels are rolled pixel by pixel: two calls of memcpy would take longer.
constexpr int64_t kSmallPlane = 64;

const AnchorSums& sums_of(int isa) {
#if defined(DEALIAS_X86)
    if (isa == DEALIAS_AVX512) return avx512::anchor_sums;
    if (isa == DEALIAS_AVX2) return avx2::anchor_sums;
#endif
    (void)isa;
    return portable::anchor_sums;
}

template <class T>
void mend_columns(const void* x, void* y, int64_t height, int64_t width, int64_t down, int64_t right) {
    const T* const from = static_cast<const T*>(x);
    T* const to = static_cast<T*>(y);
    for (int64_t row = 0; row < height; ++row) {
        const T* const line = from + (row + down < height ? row + down : row + down - height) * width;
        for (int64_t i = 0; i < right; ++i) to[(row + 1) * width - right + i] = line[i];
    }
}

// One plane of pixels of `unit` bytes. Rolling its rows as one long line is two copies, and right but for the last columns.
void roll_plane(const char* x, char* y, int64_t height, int64_t width, int64_t unit, int64_t down, int64_t right) {
    const int64_t total = height * width * unit, offset = (down * width + right) * unit;
    std::memcpy(y, x + offset, total - offset);
    std::memcpy(y + total - offset, x, offset);
    if (right == 0) return;
    if (unit == 2) return mend_columns<uint16_t>(x, y, height, width, down, right);
    if (unit == 4) return mend_columns<uint32_t>(x, y, height, width, down, right);
    if (unit == 8) return mend_columns<uint64_t>(x, y, height, width, down, right);
    for (int64_t row = 0; row < height; ++row)
        std::memcpy(y + ((row + 1) * width - right) * unit, x + (row + down) % height * width * unit, right * unit);
}

template <class T>
void roll_small_planes(const char* x, char* y, int64_t planes, int64_t height, int64_t width, int64_t down, int64_t right) {
    const T* from = reinterpret_cast<const T*>(x);
    T* to = reinterpret_cast<T*>(y);
    const int64_t pixels = height * width;
    int32_t places[kSmallPlane];
    for (int64_t row = 0; row < height; ++row)
        for (int64_t column = 0; column < width; ++column)
            places[row * width + column] =
                static_cast<int32_t>((row + down) % height * width + (column + right) % width);
    for (int64_t plane = 0; plane < planes; ++plane, from += pixels, to += pixels)
        for (int64_t pixel = 0; pixel < pixels; ++pixel) to[pixel] = from[places[pixel]];
}

// The sizes of a map, and of one of its samples.
struct Layout {
    int64_t height, width, planes, unit, plane, sample;

    explicit Layout(const dealias_map& map)
        : height(map.height), width(map.width), planes(map.channels_last ? 1 : map.channels),
          unit(map.bytes * (map.channels_last ? map.channels : 1)), plane(height * width * unit), sample(planes * plane) {}

    void roll(const char* x, char* y, int64_t down, int64_t right) const {
        if (down == 0 && right == 0) {
            std::memcpy(y, x, sample);
        } else if (height * width <= kSmallPlane && unit == 4) {
            roll_small_planes<uint32_t>(x, y, planes, height, width, down, right);
        } else if (height * width <= kSmallPlane && unit == 2) {
            roll_small_planes<uint16_t>(x, y, planes, height, width, down, right);
        } else {
            for (int64_t index = 0; index < planes; ++index)
                roll_plane(x + index * plane, y + index * plane, height, width, unit, down, right);
        }
    }
};

int64_t useful(const dealias_map& map, int threads) {
    const int64_t elements = map.batch * map.channels * map.height * map.width;
    return std::max<int64_t>(1, std::min<int64_t>(threads, elements / kThreadElements));
}

bool valid(const dealias_map* map) {
    return map && map->batch >= 0 && map->channels > 0 && map->height > 0 && map->width > 0 && map->bytes > 0;
}

}  // namespace
}  // namespace dealias

using namespace dealias;

int dealias_anchor(const dealias_map* map, const void* x, int dtype, const int32_t* stride, double slack,
                   int64_t* offsets, uint8_t* tied, void* y, int threads) {
    if (!valid(map) || stride[0] < 1 || stride[1] < 1 || dtype < DEALIAS_ANCHOR_FLOAT32 || dtype > DEALIAS_ANCHOR_FLOAT64)
        return DEALIAS_BAD_ARGUMENT;
    const Layout layout(*map);
    const AnchorSums& kernels = sums_of(dealias_isa());
    const int64_t pixels = map->height * map->width, count = int64_t(stride[0]) * stride[1];
    return parallel_for(map->batch, 1, useful(*map, threads), [&](int64_t sample, Arena& arena) {
        const char* const from = static_cast<const char*>(x) + sample * layout.sample;
        arena.reset();
        float* const sums = arena.take(dtype == DEALIAS_ANCHOR_FLOAT64 ? 2 * pixels : pixels);
        auto* const energies = reinterpret_cast<int64_t*>(arena.take(2 * count));
        (map->channels_last ? kernels.channels_last : kernels.planes)[dtype](from, map->channels, pixels, sums);
        kernels.components[dtype](sums, map->height, map->width, stride, energies);
        const int64_t* const best = std::max_element(energies, energies + count);
        const auto least = static_cast<int64_t>(static_cast<double>(*best) * (1 - slack));
        tied[sample] = std::count_if(energies, energies + count, [&](int64_t one) { return one >= least; }) > 1;
        const int64_t down = (best - energies) / stride[1], right = (best - energies) % stride[1];
        offsets[2 * sample] = down;
        offsets[2 * sample + 1] = right;
        if (!tied[sample])
            layout.roll(from, static_cast<char*>(y) + sample * layout.sample, down % map->height, right % map->width);
    });
}

int dealias_roll(const dealias_map* map, const void* x, const int64_t* offsets, void* y, int threads) {
    if (!valid(map)) return DEALIAS_BAD_ARGUMENT;
    for (int64_t sample = 0; sample < map->batch; ++sample)
        if (offsets[2 * sample] < 0 || offsets[2 * sample] >= map->height || offsets[2 * sample + 1] < 0 ||
            offsets[2 * sample + 1] >= map->width)
            return DEALIAS_BAD_ARGUMENT;
    const Layout layout(*map);
    return parallel_for(map->batch, 1, useful(*map, threads), [&](int64_t sample, Arena&) {
        layout.roll(static_cast<const char*>(x) + sample * layout.sample, static_cast<char*>(y) + sample * layout.sample,
                    offsets[2 * sample], offsets[2 * sample + 1]);
    });
}
