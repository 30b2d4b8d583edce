// The entry points: geometry of a problem, its division into independent units, the choice of the instruction set.
#include "dealias.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#if defined(DEALIAS_X86)
#include <cpuid.h>
#endif

#include "job.h"
#include "parallel.h"
#include "tables.h"

namespace dealias {
namespace {

// Rows of this many floats keep a whole unit in cache; forward, channels-last units hold rows of x alone, and may be longer.
constexpr int64_t kRowFloats = 1024, kBlurRowFloats = 2048, kMaxRowFloats = 4096;
constexpr int64_t kLeastColumns = 8;
constexpr int64_t kGroupElements = 1 << 18;
// A thread is worth its start from this many elements on.
constexpr int64_t kThreadElements = 1 << 18;

int best_isa() {
#if defined(DEALIAS_X86)
    __builtin_cpu_init();
    unsigned a, b, c, d;  // __builtin_cpu_supports does not know F16C everywhere
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return DEALIAS_PORTABLE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        return DEALIAS_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return DEALIAS_AVX2;
#endif
    return DEALIAS_PORTABLE;
}

std::atomic<int> chosen{-1};

int current_isa() {
    int isa = chosen.load(std::memory_order_relaxed);
    if (isa < 0) chosen.store(isa = best_isa(), std::memory_order_relaxed);
    return isa;
}

const Kernels& kernels_of(int isa) {
#if defined(DEALIAS_X86)
    if (isa == DEALIAS_AVX512) return avx512::kernels;
    if (isa == DEALIAS_AVX2) return avx2::kernels;
#endif
    (void)isa;
    return portable::kernels;
}

bool valid(const dealias_problem& p) {
    if (p.batch < 0 || p.channels < 0 || p.height < 1 || p.width < 1) return false;
    if (p.op < DEALIAS_BLUR || p.op > DEALIAS_MAX_BLUR || p.padding_mode < DEALIAS_REFLECT ||
        p.padding_mode > DEALIAS_ZEROS || p.dtype < DEALIAS_FLOAT32 || p.dtype > DEALIAS_FLOAT16)
        return false;
    for (int axis = 0; axis < 2; ++axis) {
        const int reach = p.dilation[axis] * (p.kernel[axis] - 1);
        const int64_t size = axis ? p.width : p.height;
        if (p.taps[axis] < 1 || !p.filter[axis]) return false;
        if (p.kernel[axis] < 1 || p.kernel[axis] > 3 || p.dilation[axis] < 1 || p.stride[axis] < 1) return false;
        if (p.before[axis] < 0 || p.after[axis] < 0 || size + p.before[axis] + p.after[axis] - reach < 1) return false;
        if (p.op != DEALIAS_MAX_BLUR && (p.kernel[axis] != 1 || p.before[axis] || p.after[axis])) return false;
        if (p.wrap && (p.before[axis] != 0 || p.after[axis] != reach)) return false;
    }
    return true;
}

struct Problem {
    Job job;
    std::vector<float> filter[2];
    AdjointTable table[2];
};

Axis make_axis(const dealias_problem& p, int axis, std::vector<float>& filter) {
    Axis a = {};
    a.size = axis ? p.width : p.height;
    a.kernel = p.kernel[axis];
    a.dilation = p.dilation[axis];
    a.before = p.before[axis];
    a.reach = a.dilation * (a.kernel - 1);
    a.dense = a.size + a.before + p.after[axis] - a.reach;
    a.stride = p.stride[axis];
    a.out = (a.dense + a.stride - 1) / a.stride;
    a.taps = p.taps[axis];
    a.lead = (a.taps - 1) / 2;
    filter.assign(p.filter[axis], p.filter[axis] + a.taps);
    a.filter = filter.data();
    return a;
}

void prepare(const dealias_problem& p, bool backward, Problem& problem) {
    Job& job = problem.job;
    // One channel, or maps of one pixel, lie the same way in both layouts; planes are then the cheaper view.
    const bool innermost = p.channels_last && p.channels > 1;
    job.images = innermost ? p.batch : p.batch * p.channels;
    job.channels = innermost ? p.channels : 1;
    job.op = p.op;
    job.dtype = p.dtype;
    job.padding_mode = p.padding_mode;
    job.wrap = p.wrap != 0;
    job.row = make_axis(p, 0, problem.filter[0]);
    job.col = make_axis(p, 1, problem.filter[1]);
    if (backward) {
        job.row.adjoint = problem.table[0].build(job.row, job.padding_mode);
        job.col.adjoint = problem.table[1].build(job.col, job.padding_mode);
    }
}

// Splits the result into units with rows of about `row_floats` numbers, which stay in cache, and into enough of them for the
// threads. The values do not depend on the split: a unit computes again whatever it shares with its neighbours, in the same
// order.
int run(Kernel kernel, const Job& job, int64_t rows, int64_t cols, int64_t row_floats, int threads) {
    if (job.images * job.channels == 0) return DEALIAS_OK;
    int64_t width = cols;
    if (job.padding_mode != DEALIAS_CIRCULAR && !job.wrap) {  // there the two ends of a row need each other
        width = std::max(kLeastColumns, row_floats / job.channels);
        if (job.channels == 1) width = std::max<int64_t>(16, width / 16 * 16);
        const int64_t parts = std::max<int64_t>(1, (cols + width / 2) / width);
        width = (cols + parts - 1) / parts;
        if (job.channels == 1) width = std::min(cols, (width + 15) / 16 * 16);
    }
    const int64_t chunks = (cols + width - 1) / width;
    const int64_t elements = job.images * job.row.size * job.col.size * job.channels;
    const int64_t useful = std::max<int64_t>(1, std::min<int64_t>(threads, elements / kThreadElements));
    int64_t bands = 1;
    if (useful > 1 && job.images * chunks < 4 * useful)
        bands = std::min(std::max<int64_t>(1, rows / 8), (4 * useful + job.images * chunks - 1) / (job.images * chunks));
    const int64_t height = (rows + bands - 1) / bands;
    bands = (rows + height - 1) / height;
    // Small images go together: what a unit sets up serves them all.
    const int64_t image_elements = job.row.size * job.col.size * job.channels;
    const int64_t group = std::max<int64_t>(
        1, std::min(kGroupElements / image_elements, job.images / (4 * useful)));
    const int64_t groups = (job.images + group - 1) / group;
    return parallel_for(groups * bands * chunks, bands * chunks, useful, [&](int64_t index, Arena& arena) {
        const int64_t chunk = index % chunks, band = index / chunks % bands, first = index / chunks / bands * group;
        const Unit unit = {first, std::min(job.images, first + group), band * height, std::min(rows, (band + 1) * height),
                           chunk * width, std::min(cols, (chunk + 1) * width)};
        kernel(job, unit, arena);
    });
}

int compute(const dealias_problem* p, bool backward, const void* x, const void* grad, void* result, int threads) {
    if (!p || !valid(*p)) return DEALIAS_BAD_ARGUMENT;
    try {
        Problem problem = {};
        prepare(*p, backward, problem);
        Job& job = problem.job;
        job.x = x;
        job.grad = grad;
        job.result = result;
        const Kernels& kernels = kernels_of(current_isa());
        if (backward) return run(kernels.backward[job.dtype], job, job.row.size, job.col.size, kRowFloats, threads);
        const int64_t row_floats = job.channels == 1 ? kRowFloats : job.op == DEALIAS_MAX_BLUR ? kMaxRowFloats : kBlurRowFloats;
        return run(kernels.forward[job.dtype], job, job.row.out, job.col.out, row_floats / job.col.stride, threads);
    } catch (const std::bad_alloc&) {
        return DEALIAS_OUT_OF_MEMORY;
    }
}

}  // namespace
}  // namespace dealias

using namespace dealias;

int dealias_forward(const dealias_problem* p, const void* x, void* y, int threads) {
    return compute(p, false, x, nullptr, y, threads);
}

int dealias_backward(const dealias_problem* p, const void* x, const void* grad_y, void* grad_x, int threads) {
    return compute(p, true, x, grad_y, grad_x, threads);
}

int dealias_best_isa(void) { return best_isa(); }

int dealias_isa(void) { return current_isa(); }

int dealias_set_isa(int isa) {
    if (isa < DEALIAS_PORTABLE || isa > best_isa()) return DEALIAS_BAD_ARGUMENT;
    chosen.store(isa, std::memory_order_relaxed);
    return DEALIAS_OK;
}
