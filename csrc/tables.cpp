#include "tables.h"

#define DEALIAS_ISA common
#include "rows.h"

namespace dealias {

Adjoint AdjointTable::build(const Axis& axis, int padding_mode) {
    // Counting sort by position: entries of one position stay in the order of the outputs.
    start_.assign(static_cast<size_t>(axis.dense) + 1, 0);
    auto each = [&](auto visit) {
        for (int64_t i = 0; i < axis.out; ++i)
            for (int64_t a = 0; a < axis.taps; ++a) {
                const int64_t t = i * axis.stride - axis.lead + a, d = common::border(t, axis.dense, padding_mode);
                if (d >= 0) visit(t, d, i, axis.filter[a]);
            }
    };
    each([&](int64_t t, int64_t d, int64_t i, float w) {
        ++start_[static_cast<size_t>(d) + 1];
        if (t == d) return;
        extra_position_.push_back(d);
        extra_output_.push_back(i);
        extra_weight_.push_back(w);
    });
    for (size_t d = 1; d < start_.size(); ++d) start_[d] += start_[d - 1];
    output_.resize(static_cast<size_t>(start_.back()));
    weight_.resize(output_.size());
    std::vector<int64_t> next(start_.begin(), start_.end() - 1);
    each([&](int64_t, int64_t d, int64_t i, float w) {
        const auto at = static_cast<size_t>(next[static_cast<size_t>(d)]++);
        output_[at] = i;
        weight_[at] = w;
    });
    return {start_.data(),          output_.data(),       weight_.data(),
            extra_position_.data(), extra_output_.data(), extra_weight_.data(),
            static_cast<int64_t>(extra_position_.size())};
}

}  // namespace dealias
