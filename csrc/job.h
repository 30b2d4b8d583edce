// What the translation units share. Plain data only: the kernels are compiled once per instruction set, and an inline
// function that two of them share could be emitted with instructions that the machine at hand lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dealias.h"

namespace dealias {

// Scratch memory of one thread, reused from unit to unit. Blocks start zeroed, aligned to 64 bytes.
class Arena {
public:
    Arena() = default;
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    void reset();
    float* take(int64_t floats);

private:
    struct Block {
        Block* previous;
        float* data;
        size_t capacity;
    };
    void release_all();
    void add_block(size_t capacity);
    Block* block_ = nullptr;
    size_t used_ = 0, wanted_ = 0;
};

// For each position of the dense map, the outputs that it takes part in: entries start[i] .. start[i + 1] - 1.
struct Adjoint {
    const int64_t* start;
    const int64_t* output;
    const float* weight;
};

struct Axis {
    int64_t size;   // of x
    int64_t dense;  // of the map that is blurred: x, relu(x) or the maximum at stride 1
    int64_t out;
    int64_t kernel, dilation, before;
    int64_t reach;  // dilation * (kernel - 1)
    int64_t stride;
    int64_t taps;
    int64_t lead;  // samples of the border before the first
    const float* filter;
    Adjoint adjoint;  // backward only
};

struct Job {
    const void* x;
    const void* grad;
    void* result;
    int64_t images;   // N * C planes, or N images with the channels innermost
    int64_t channels;  // elements between two columns
    int op, dtype, padding_mode;
    bool wrap;
    Axis row, col;
};

// The same rectangle of the result of several images: outputs in the forward, input pixels in the backward.
struct Unit {
    int64_t image0, image1, row0, row1, col0, col1;
};

using Kernel = void (*)(const Job&, const Unit&, Arena&);
struct Kernels {
    Kernel forward[3], backward[3];  // by dtype
};

namespace portable { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }

}  // namespace dealias
