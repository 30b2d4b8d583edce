#include "anchor.h"

#include <algorithm>
#include <cstring>

#include "anchor_sums.h"
#include "parallel.h"

namespace dealias {
namespace {

// A thread is worth its start from this many elements on.
constexpr int64_t kThreadElements = 1 << 18;
// A plane is rolled in parts of about this many bytes, which stay in the first level of cache until they are mended.
constexpr int64_t kPart = 1 << 14;

const AnchorSums& sums_of(int isa) {
#if defined(DEALIAS_X86)
    if (isa == DEALIAS_AVX512) return avx512::anchor_sums;
    if (isa == DEALIAS_AVX2) return avx2::anchor_sums;
#endif
    (void)isa;
    return portable::anchor_sums;
}

// y holds the planes of x as one long line, from element `down * width + right` on. This mends what wraps around: the last
// elements of each plane, and the last `right` columns of its rows.
template <class T>
void mend_planes(const char* x, char* y, int64_t planes, int64_t height, int64_t width, int64_t down, int64_t right) {
    const T* from = reinterpret_cast<const T*>(x);
    T* to = reinterpret_cast<T*>(y);
    const int64_t pixels = height * width, offset = down * width + right;
    for (; planes > 0; --planes, from += pixels, to += pixels) {
        for (int64_t i = 0; i < offset; ++i) to[pixels - offset + i] = from[i];
        for (int64_t column = 0; column < right; ++column) {
            const T* const source = from + column;
            T* const target = to + width - right + column;
            for (int64_t row = 0; row < height - down; ++row) target[row * width] = source[(row + down) * width];
            for (int64_t row = height - down; row < height; ++row)
                target[row * width] = source[(row + down - height) * width];
        }
    }
}

// The sizes of a map, and of one of its samples.
struct Layout {
    int64_t height, width, planes, unit, plane, sample;

    explicit Layout(const dealias_map& map)
        : height(map.height), width(map.width), planes(map.channels_last ? 1 : map.channels),
          unit(map.bytes * (map.channels_last ? map.channels : 1)), plane(height * width * unit), sample(planes * plane) {}

    // The last parts first: what the sums read last is still in the cache.
    void roll(const char* x, char* y, int64_t down, int64_t right) const {
        if (planes == 1 || (unit != 2 && unit != 4 && unit != 8))
            roll_rows(x, y, down, right);
        else
            roll_planes(x, y, down, right);
    }

   private:
    void roll_rows(const char* x, char* y, int64_t down, int64_t right) const {
        for (int64_t line = planes * height - 1; line >= 0; --line) {
            const int64_t row = line % height, source = line - row + (row + down) % height;
            char* const to = y + line * width * unit;
            const char* const from = x + source * width * unit;
            std::memcpy(to, from + right * unit, (width - right) * unit);
            std::memcpy(to + (width - right) * unit, from, right * unit);
        }
    }

    void roll_planes(const char* x, char* y, int64_t down, int64_t right) const {
        const int64_t offset = (down * width + right) * unit, step = std::max<int64_t>(1, kPart / plane);
        const auto mend = unit == 2 ? mend_planes<uint16_t> : unit == 4 ? mend_planes<uint32_t> : mend_planes<uint64_t>;
        for (int64_t first = (planes - 1) / step * step; first >= 0; first -= step) {
            const int64_t count = std::min(step, planes - first), start = first * plane;
            std::memcpy(y + start, x + start + offset, count * plane - offset);
            mend(x + start, y + start, count, height, width, down, right);
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
    if (!valid(map) || stride[0] < 1 || stride[1] < 1 || dtype < DEALIAS_ANCHOR_FLOAT32 || dtype > DEALIAS_ANCHOR_FLOAT16)
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
