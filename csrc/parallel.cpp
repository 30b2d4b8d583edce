#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace dealias {

int parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t, Arena&)>& body) {
    std::atomic<int64_t> next{0};
    std::atomic<int> status{DEALIAS_OK};
    // Small portions, so that a thread that starts late or is slowed down leaves its share to the others.
    const int64_t portion = std::max<int64_t>(1, count / (16 * threads));
    auto work = [&](Arena& arena) {
        try {
            for (int64_t begin; (begin = next.fetch_add(portion, std::memory_order_relaxed)) < count;)
                for (int64_t index = begin; index < std::min(count, begin + portion); ++index) body(index, arena);
        } catch (const std::bad_alloc&) {
            status.store(DEALIAS_OUT_OF_MEMORY, std::memory_order_relaxed);
        }
    };
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(threads));
    try {
        for (int64_t helper = 1; helper < std::min(threads, count); ++helper)
            helpers.emplace_back([&work] {
                Arena arena;
                work(arena);
            });
    } catch (const std::system_error&) {
        // No more threads to be had: those that started, and this one, do the work.
    }
    thread_local Arena own;
    work(own);
    for (std::thread& helper : helpers) helper.join();
    return status.load();
}

}  // namespace dealias
