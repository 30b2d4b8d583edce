// The adjoint of one axis of the blur, with the border folded in.
#pragma once

#include <vector>

#include "job.h"

namespace dealias {

class AdjointTable {
public:
    Adjoint build(const Axis& axis, int padding_mode);

private:
    std::vector<int64_t> start_, output_;
    std::vector<float> weight_;
};

}  // namespace dealias
