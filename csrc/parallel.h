// A loop over independent pieces, on threads that wait for the next loop; a forked child starts its own.
#pragma once

#include <cstdint>
#include <functional>

#include "job.h"

namespace dealias {

// Calls body(index, arena) for each index below `count`, on up to `threads` threads, the caller's among them. Each
// `together` pieces in a row are neighbours in memory: one thread takes them where there are enough for all.
// Returns DEALIAS_OK, or DEALIAS_OUT_OF_MEMORY if a call ran out of memory.
int parallel_for(int64_t count, int64_t together, int64_t threads, const std::function<void(int64_t, Arena&)>& body);

}  // namespace dealias
