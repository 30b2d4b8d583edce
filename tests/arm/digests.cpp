// Runs drawn cases through csrc/dealias.h and prints one line for each: its arguments and digests of output and gradient.
// Two builds of the library agree bit for bit if their lines are equal: `make arm` compares ARM with the portable x86 path.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../csrc/dealias.h"

namespace {

uint64_t state;

uint32_t draw(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>((state >> 33) % below);
}

template <size_t N> int pick(const int (&from)[N]) { return from[draw(N)]; }

// A number of eighths, seldom infinite, NaN or zero of either sign, as bits of `dtype`.
uint32_t draw_bits(int dtype, bool special) {
    const uint32_t sign = draw(2), kind = special ? draw(30) : 4;
    uint32_t bits = 0x7f800000;
    if (kind > 2) {
        const float value = static_cast<float>(draw(kind == 3 ? 1 : 4096)) / 8.0f;
        memcpy(&bits, &value, sizeof bits);
    } else if (kind == 2) {
        bits = 0x7fc00000;
    }
    if (dtype == DEALIAS_FLOAT32) return bits | sign << 31;
    if (dtype == DEALIAS_BFLOAT16) return (bits >> 16) | sign << 15;
    // Of a float with few bits and of the size of 1 the half follows by moving the exponent.
    const uint32_t half = bits == 0 ? 0 : bits >= 0x7f800000 ? (bits >> 13 & 0x3ff) | 0x7c00 : (bits - 0x38000000) >> 13;
    return half | sign << 15;
}

std::vector<char> draw_tensor(int64_t count, int dtype, bool special) {
    const size_t bytes = dtype == DEALIAS_FLOAT32 ? 4 : 2;
    std::vector<char> data(static_cast<size_t>(count) * bytes);
    for (size_t at = 0; at < data.size(); at += bytes) {
        const uint32_t bits = draw_bits(dtype, special);
        if (bytes == 4) {
            memcpy(&data[at], &bits, 4);
        } else {
            const uint16_t half = static_cast<uint16_t>(bits);
            memcpy(&data[at], &half, 2);
        }
    }
    return data;
}

// FNV-1a of the numbers, all NaN alike.
uint64_t digest(const std::vector<char>& data, int dtype) {
    const size_t bytes = dtype == DEALIAS_FLOAT32 ? 4 : 2;
    const uint32_t infinite = dtype == DEALIAS_FLOAT32 ? 0x7f800000 : dtype == DEALIAS_BFLOAT16 ? 0x7f80 : 0x7c00;
    uint64_t hash = 14695981039346656037u;
    for (size_t at = 0; at < data.size(); at += bytes) {
        uint32_t bits = 0;
        uint16_t half;
        memcpy(&half, &data[at], 2);
        bits = half;
        if (bytes == 4) memcpy(&bits, &data[at], 4);
        if ((bits & (bytes == 4 ? 0x7fffffff : 0x7fff)) > infinite) bits = infinite + 1;
        hash = (hash ^ bits) * 1099511628211u;
    }
    return hash;
}

struct Case {
    dealias_problem problem;
    double filter[2][7];
    bool special;
};

void draw_case(Case& c) {
    dealias_problem& p = c.problem;
    p = {};
    p.batch = 1 + draw(2);
    p.channels_last = draw(2);
    p.channels = p.channels_last ? pick({1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 40}) : pick({1, 2, 3});
    p.op = pick({DEALIAS_BLUR, DEALIAS_RELU_BLUR, DEALIAS_MAX_BLUR, DEALIAS_MAX_BLUR});
    p.dtype = draw(3);
    p.padding_mode = draw(4);
    p.wrap = p.op == DEALIAS_MAX_BLUR && draw(4) == 0;
    const int kernel = p.op == DEALIAS_MAX_BLUR ? pick({1, 2, 2, 3}) : 1, dilation = kernel > 1 ? pick({1, 1, 1, 2}) : 1;
    const int reach = dilation * (kernel - 1), taps = 1 + draw(7);
    const int padding = p.wrap || p.op != DEALIAS_MAX_BLUR ? 0 : draw(kernel / 2 + 1);
    const bool two = draw(3) > 0, binomial = draw(2);
    int64_t size[2];
    for (int axis = 0; axis < 2; ++axis) {
        p.kernel[axis] = kernel;
        p.dilation[axis] = dilation;
        p.before[axis] = p.wrap ? 0 : padding;
        p.after[axis] = p.wrap ? reach : padding;
        size[axis] = reach + 1 + (draw(2) ? draw(6) : draw(axis ? 40 : 16));
        p.stride[axis] = two ? 2 : 1 + draw(4);
        p.taps[axis] = taps;
        for (int tap = 0; tap < taps; ++tap)
            c.filter[axis][tap] = axis ? c.filter[0][tap] : binomial ? 1.0 / (1 + tap) : draw(9) / 8.0 - 0.25;
        p.filter[axis] = c.filter[axis];
    }
    p.height = size[0];
    p.width = size[1];
    c.special = draw(3) == 0;
}

int64_t output_size(const dealias_problem& p, int axis) {
    const int64_t size = axis ? p.width : p.height;
    const int64_t dense = size + p.before[axis] + p.after[axis] - p.dilation[axis] * (p.kernel[axis] - 1);
    return (dense + p.stride[axis] - 1) / p.stride[axis];
}

}  // namespace

int main(int argc, char** argv) {
    const int count = argc > 1 ? atoi(argv[1]) : 2000;
    if (dealias_set_isa(DEALIAS_PORTABLE) != DEALIAS_OK) return 1;
    for (int number = 0; number < count; ++number) {
        state = static_cast<uint64_t>(number) * 0x9e3779b97f4a7c15u + 1;
        Case c;
        draw_case(c);
        const dealias_problem& p = c.problem;
        const int64_t planes = p.batch * p.channels, pixels = p.height * p.width;
        const int64_t outputs = output_size(p, 0) * output_size(p, 1);
        const std::vector<char> x = draw_tensor(planes * pixels, p.dtype, c.special);
        const std::vector<char> upstream = draw_tensor(planes * outputs, p.dtype, false);
        std::vector<char> y(upstream.size()), gradient(x.size());
        if (dealias_forward(&p, x.data(), y.data(), 1) != DEALIAS_OK) return 1;
        if (dealias_backward(&p, x.data(), upstream.data(), gradient.data(), 1) != DEALIAS_OK) return 1;
        printf("%d: op %d dtype %d last %d mode %d wrap %d kernel %d dilation %d stride %d,%d taps %d ", number, p.op,
               p.dtype, p.channels_last, p.padding_mode, p.wrap, p.kernel[0], p.dilation[0], p.stride[0], p.stride[1], p.taps[0]);
        printf("size %dx%dx%dx%d: %016llx %016llx\n", static_cast<int>(p.batch), static_cast<int>(p.channels),
               static_cast<int>(p.height), static_cast<int>(p.width), static_cast<unsigned long long>(digest(y, p.dtype)),
               static_cast<unsigned long long>(digest(gradient, p.dtype)));
    }
    return 0;
}
