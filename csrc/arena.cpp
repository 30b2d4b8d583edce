#include <cstdlib>
#include <new>

#include "job.h"

namespace dealias {

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kLine = kAlign / sizeof(float);
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kBlockFloats = 0;  // each piece by itself, so that the sanitizer sees where it ends
#else
constexpr size_t kBlockFloats = 1 << 14;
#endif

float* allocate(size_t floats) {
    const size_t bytes = floats * sizeof(float) + kAlign + sizeof(void*);
    void* raw = std::calloc(bytes, 1);
    if (!raw) throw std::bad_alloc();
    const uintptr_t start = (reinterpret_cast<uintptr_t>(raw) + sizeof(void*) + kAlign - 1) / kAlign * kAlign;
    reinterpret_cast<void**>(start)[-1] = raw;
    return reinterpret_cast<float*>(start);
}

void release(float* data) { std::free(reinterpret_cast<void**>(data)[-1]); }

}  // namespace

Arena::~Arena() { release_all(); }

void Arena::release_all() {
    while (block_) {
        Block* previous = block_->previous;
        release(block_->data);
        delete block_;
        block_ = previous;
    }
}

void Arena::add_block(size_t capacity) {
    Block* block = new Block{block_, nullptr, capacity};
    try {
        block->data = allocate(capacity);
    } catch (...) {
        delete block;
        throw;
    }
    block_ = block;
}

// Once a unit needed several blocks, the next gets one that holds them all.
void Arena::reset() {
    if (block_ && (block_->previous || kBlockFloats == 0)) {
        release_all();
        if (kBlockFloats > 0) add_block(wanted_);
    }
    used_ = wanted_ = 0;
}

float* Arena::take(int64_t floats) {
    const size_t size = (static_cast<size_t>(floats) + kLine - 1) / kLine * kLine;
    wanted_ += size;
    if (!block_ || used_ + size > block_->capacity) {
        add_block(size > kBlockFloats ? size : kBlockFloats);
        used_ = 0;
    }
    float* data = block_->data + used_;
    used_ += size;
    return data;
}

}  // namespace dealias
