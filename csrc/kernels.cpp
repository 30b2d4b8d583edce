// Compiled once per instruction set, with DEALIAS_ISA naming it.
#include "backward.h"
#include "forward.h"

namespace dealias::DEALIAS_ISA {

extern const Kernels kernels;
const Kernels kernels = {{forward<float>, forward<bfloat16>, forward<float16>},
                         {backward<float>, backward<bfloat16>, backward<float16>}};

}  // namespace dealias::DEALIAS_ISA
