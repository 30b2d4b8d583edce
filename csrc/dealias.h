// The C interface of the native CPU kernels. No type of libtorch appears here: one library serves every torch version.
#ifndef DEALIAS_H
#define DEALIAS_H

#include <stdint.h>

#if defined(_WIN32)
#define DEALIAS_API __declspec(dllexport)
#else
#define DEALIAS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { DEALIAS_BLUR = 0, DEALIAS_RELU_BLUR = 1, DEALIAS_MAX_BLUR = 2 };
enum { DEALIAS_FLOAT32 = 0, DEALIAS_BFLOAT16 = 1, DEALIAS_FLOAT16 = 2 };
enum { DEALIAS_REFLECT = 0, DEALIAS_REPLICATE = 1, DEALIAS_CIRCULAR = 2, DEALIAS_ZEROS = 3 };
enum { DEALIAS_PORTABLE = 0, DEALIAS_AVX2 = 1, DEALIAS_AVX512 = 2 };
enum { DEALIAS_OK = 0, DEALIAS_BAD_ARGUMENT = 1, DEALIAS_OUT_OF_MEMORY = 2 };

// What to compute; pairs hold the vertical axis first. The tensors are dense: N C H W, or N H W C if channels_last.
typedef struct {
    int64_t batch, channels, height, width;  // of x
    int32_t op, dtype, channels_last, padding_mode;
    int32_t kernel[2], dilation[2], before[2], after[2];  // of the maximum: 1, 1, 0, 0 for the other operations
    int32_t wrap;  // the maximum wraps around: before = 0, after = dilation * (kernel - 1)
    int32_t stride[2];
    int32_t taps[2];
    const double* filter[2];  // `taps` numbers each
} dealias_problem;

// y = op(x). Returns DEALIAS_OK or an error; on an error y is unspecified.
DEALIAS_API int dealias_forward(const dealias_problem* problem, const void* x, void* y, int threads);

// grad_x from x and the gradient of y, which lies in the same layout. x may be null for DEALIAS_BLUR.
DEALIAS_API int dealias_backward(const dealias_problem* problem, const void* x, const void* grad_y, void* grad_x,
                                 int threads);

// The best instruction set that this machine and this build have; the one in use; and choose another (for tests).
DEALIAS_API int dealias_best_isa(void);
DEALIAS_API int dealias_isa(void);
DEALIAS_API int dealias_set_isa(int isa);

#ifdef __cplusplus
}
#endif
#endif
