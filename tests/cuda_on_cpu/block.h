// What the threads of a block have in common: their places, their shared memory, and the barrier where all of them
// meet.
#pragma once

#include "runtime.h"

namespace cuda_on_cpu {

inline const uint3 &thread_index() { return block->thread->index; }
inline const uint3 &block_index() { return block->index; }
inline const dim3 &block_size() { return block->size; }
inline const dim3 &grid_size() { return block->grid; }

inline char *dynamic_shared(const char *site) {
  if (!block->dynamic_shared) fail(site, "dynamic shared memory is used, but none was asked for: shared_mem=0");
  return block->dynamic_shared;
}

}  // namespace cuda_on_cpu

#define threadIdx (::cuda_on_cpu::thread_index())
#define blockIdx (::cuda_on_cpu::block_index())
#define blockDim (::cuda_on_cpu::block_size())
#define gridDim (::cuda_on_cpu::grid_size())
constexpr int warpSize = 32;

#define DYN_SHARED(T, name) T *name = reinterpret_cast<T *>(::cuda_on_cpu::dynamic_shared(CUDA_ON_CPU_SITE))

#define __syncthreads() static_cast<void>(::cuda_on_cpu::meet_block(CUDA_ON_CPU_SITE, 0))
#define __syncthreads_count(vote) (::cuda_on_cpu::meet_block(CUDA_ON_CPU_SITE, (vote) != 0))
#define __syncthreads_or(vote) (::cuda_on_cpu::meet_block(CUDA_ON_CPU_SITE, (vote) != 0) != 0)
#define __syncthreads_and(vote) \
  (::cuda_on_cpu::meet_block(CUDA_ON_CPU_SITE, (vote) != 0) == int(::cuda_on_cpu::block->threads))
