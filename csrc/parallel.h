// Threads that live for one call: nothing to keep, so nothing that a fork or an interpreter's exit could break.
#pragma once

#include <cstdint>
#include <functional>

#include "job.h"

namespace dealias {

// Calls body(index, arena) for each index below `count`, on up to `threads` threads, the caller's among them.
// Returns DEALIAS_OK, or DEALIAS_OUT_OF_MEMORY if a call ran out of memory.
int parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t, Arena&)>& body);

}  // namespace dealias
