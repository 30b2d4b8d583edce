#include "tables.h"

#define DEALIAS_ISA common
#include "rows.h"

namespace dealias {

Adjoint AdjointTable::build(const Axis& axis, int padding_mode) {
    // Counting sort by position: entries of one position stay in the order of the outputs, an output's taps added up. Every
    // path of every instruction set adds in this order.
    start_.assign(static_cast<size_t>(axis.dense) + 1, 0);
    std::vector<int64_t> last;
    auto each = [&](auto visit) {
        last.assign(static_cast<size_t>(axis.dense), -1);
        for (int64_t i = 0; i < axis.out; ++i)
            for (int64_t a = 0; a < axis.taps; ++a) {
                const int64_t d = common::border(i * axis.stride - axis.lead + a, axis.dense, padding_mode);
                if (d < 0) continue;
                visit(static_cast<size_t>(d), i, axis.filter[a], last[static_cast<size_t>(d)] == i);
                last[static_cast<size_t>(d)] = i;
            }
    };
    each([&](size_t d, int64_t, float, bool again) { start_[d + 1] += !again; });
    for (size_t d = 1; d < start_.size(); ++d) start_[d] += start_[d - 1];
    output_.resize(static_cast<size_t>(start_.back()));
    weight_.resize(output_.size());
    std::vector<int64_t> next(start_.begin(), start_.end() - 1);
    each([&](size_t d, int64_t i, float w, bool again) {
        const auto at = static_cast<size_t>(next[d] += !again) - 1;
        output_[at] = i;
        weight_[at] = again ? weight_[at] + w : w;
    });
    return {start_.data(), output_.data(), weight_.data()};
}

}  // namespace dealias
