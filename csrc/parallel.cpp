#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

namespace dealias {
namespace {

// A thread that finds nothing to do looks again for some microseconds before it sleeps: waking one takes longer than many
// a small operation.
constexpr int kLooks = 4000;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

template <class Ready> bool look_for(Ready ready) {
    for (int look = 0; look < kLooks; ++look) {
        if (ready()) return true;
        relax();
    }
    return false;
}

using Work = std::function<void(Arena&)>;

Arena& own_arena() {
    thread_local Arena arena;
    return arena;
}

// Threads that wait for work, started as they are asked for. They are never joined: they sleep until the process ends.
class Pool {
public:
    // Whether this caller may `run`; while another does, it may not.
    bool enter() { return !taken_.exchange(true, std::memory_order_acquire); }
    void leave() { taken_.store(false, std::memory_order_release); }

    // Runs `work` here and, as far as they come in time, in `helpers` other threads; returns when all are done.
    void run(int64_t helpers, const Work& work) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            try {
                for (; threads_ < helpers; ++threads_) std::thread(&Pool::serve, this).detach();
            } catch (const std::exception&) {
                // No more threads, or memory, to be had: those that started, and this one, do the work.
            }
            work_ = &work;
            places_ = helpers;
            round_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        work(own_arena());
        std::unique_lock<std::mutex> lock(mutex_);
        places_ = 0;  // whoever comes now comes too late
        if (busy_ == 0) return;
        lock.unlock();
        const bool done = look_for([this] { return busy_.load(std::memory_order_acquire) == 0; });
        if (done) return;
        lock.lock();
        finished_.wait(lock, [this] { return busy_ == 0; });
    }

private:
    void serve() {
        Arena arena;
        for (uint64_t seen = 0;;) {
            const auto called = [&] { return round_.load(std::memory_order_acquire) != seen; };
            look_for(called);
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, called);
            seen = round_.load(std::memory_order_relaxed);
            if (places_ == 0) continue;
            --places_;
            ++busy_;
            const Work& work = *work_;
            lock.unlock();
            work(arena);
            lock.lock();
            if (--busy_ == 0) finished_.notify_one();
        }
    }

    std::atomic<bool> taken_{false};
    std::mutex mutex_;
    std::condition_variable wake_, finished_;
    std::atomic<uint64_t> round_{0};
    std::atomic<int64_t> busy_{0};
    const Work* work_ = nullptr;
    int64_t threads_ = 0, places_ = 0;
};

std::atomic<Pool*> current{nullptr};

// The child of a fork has none of the threads, and perhaps a mutex that nobody will unlock: it starts over.
void forget_pool() { current.store(new Pool, std::memory_order_release); }

Pool& the_pool() {
    static const bool made = [] {
        forget_pool();
        pthread_atfork(nullptr, nullptr, forget_pool);
        return true;
    }();
    (void)made;
    return *current.load(std::memory_order_acquire);
}

}  // namespace

int parallel_for(int64_t count, int64_t together, int64_t threads, const std::function<void(int64_t, Arena&)>& body) {
    std::atomic<int64_t> next{0};
    std::atomic<int> status{DEALIAS_OK};
    // Small portions, so that a thread that starts late or is slowed down leaves its share to the others; but no neighbours
    // in two threads if it can be helped: their caches would fetch each other's lines.
    int64_t portion = std::max<int64_t>(1, count / (16 * threads));
    if (count >= 2 * threads * together) portion = (portion + together - 1) / together * together;
    const Work work = [&](Arena& arena) {
        try {
            for (int64_t begin; (begin = next.fetch_add(portion, std::memory_order_relaxed)) < count;)
                for (int64_t index = begin; index < std::min(count, begin + portion); ++index) body(index, arena);
        } catch (const std::bad_alloc&) {
            status.store(DEALIAS_OUT_OF_MEMORY, std::memory_order_relaxed);
        }
    };
    const int64_t helpers = std::min(threads, count) - 1;
    // Where several threads call at once, the first has the pool and the others work alone: the cores are taken.
    Pool* pool = helpers > 0 ? &the_pool() : nullptr;
    if (pool && pool->enter()) {
        pool->run(helpers, work);
        pool->leave();
    } else {
        work(own_arena());
    }
    return status.load();
}

}  // namespace dealias
