// The loops of anchors that gain from wide registers, once for each instruction set (see job.h).
#pragma once

#include <cstdint>

namespace dealias {

struct AnchorSums {
    // By dtype: the squares of each pixel, summed over its channels, as floats; as doubles for float64.
    void (*planes[4])(const void* x, int64_t channels, int64_t pixels, void* sums);
    void (*channels_last[4])(const void* x, int64_t channels, int64_t pixels, void* sums);
    // By dtype: the sums of a map over its components, in units of 2**-40 of the largest; all 0 where that is 0 or not
    // finite. `components` has stride[0] * stride[1] numbers.
    void (*components[4])(const void* sums, int64_t height, int64_t width, const int32_t* stride, int64_t* components);
};

#if defined(DEALIAS_X86)
namespace avx512 {
extern const AnchorSums anchor_sums;
}
namespace avx2 {
extern const AnchorSums anchor_sums;
}
#endif
namespace portable {
extern const AnchorSums anchor_sums;
}

}  // namespace dealias
