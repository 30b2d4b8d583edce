// Anchors: a circular shift of each sample, so that its polyphase component of largest energy comes first.
#ifndef DEALIAS_ANCHOR_H
#define DEALIAS_ANCHOR_H

#include "dealias.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    DEALIAS_ANCHOR_FLOAT32 = 0,
    DEALIAS_ANCHOR_BFLOAT16 = 1,
    DEALIAS_ANCHOR_FLOAT64 = 2,
    DEALIAS_ANCHOR_FLOAT16 = 3
};

// A dense tensor: N C H W, or N H W C if channels_last.
typedef struct {
    int64_t batch, channels, height, width;
    int32_t channels_last;
    int32_t bytes;  // of an element
} dealias_map;

// The offsets (rows, columns) of each sample's component of largest energy, and y rolled by them as dealias_roll does.
// Energies are sums of integers, in units of 2**-40 of the largest pixel, so that no order of the pixels changes them.
// Where several come within the share `slack` of the largest, tied[sample] is 1 and y is not written; else it is 0.
DEALIAS_API int dealias_anchor(const dealias_map* map, const void* x, int dtype, const int32_t* stride, double slack,
                               int64_t* offsets, uint8_t* tied, void* y, int threads);

// y[n, c, i, j] = x[n, c, (i + offsets[2 n]) % height, (j + offsets[2 n + 1]) % width]; offsets from 0 to the size - 1.
DEALIAS_API int dealias_roll(const dealias_map* map, const void* x, const int64_t* offsets, void* y, int threads);

#ifdef __cplusplus
}
#endif
#endif
