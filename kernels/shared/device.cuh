// What every kernel is written with: short names, dynamic shared memory, sums in a fixed order, a barrier for the whole
// grid.
//
// Rules of all .cu and .cuh files here: C++17 without headers, so that NVRTC needs nothing but the text; warp functions
// with their mask named; no atomics on floats, since their order is chance; block sizes are template parameters and
// grids come from sizes, with a tail. The same text is compiled for the CPU by tests/cuda_on_cpu, which brings
// DYN_SHARED of its own.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef CUDA_ON_CPU
#define DYN_SHARED(T, name)                               \
  extern __shared__ __align__(16) unsigned char room_[];  \
  T *name = reinterpret_cast<T *>(room_)
#endif

constexpr u32 ALL = 0xFFFFFFFFu;  // the lanes of a warp
constexpr int WARP = 32;
// of a streaming kernel, at once on a multiprocessor: 64 registers a thread. Left to itself, ptxas spills to fit in
// more
constexpr int BLOCKS = 4;

__device__ __forceinline__ int lane() { return threadIdx.x % WARP; }

// Rows lo .. hi - 1 of part k of n, cut as evenly as whole rows allow: the same cut as everywhere in this project.
struct Rows {
  int lo, hi;
};
__device__ __forceinline__ Rows part(int rows, int k, int n) {
  return {int((long long)rows * k / n), int((long long)rows * (k + 1) / n)};
}

// The sum over the lanes of a warp, the same in every lane: a tree, always the same one.
template <typename C>
__device__ __forceinline__ C warp_sum(C v) {
#pragma unroll
  for (int d = WARP / 2; d > 0; d /= 2) v += __shfl_xor_sync(ALL, v, d);
  return v;
}

// The sum over a block, the same in every thread; `room` holds THREADS / 32 values in shared memory, and nobody reads
// it on entry.
template <int THREADS, typename C>
__device__ __forceinline__ C block_sum(C v, C *room) {
  v = warp_sum(v);
  if (lane() == 0) room[threadIdx.x / WARP] = v;
  __syncthreads();
  C total = 0;
#pragma unroll
  for (int w = 0; w < THREADS / WARP; ++w) total += room[w];
  __syncthreads();
  return total;
}

// All blocks of a cooperative launch meet, for the `meeting`-th time, counted from 1. What one wrote before, all others
// see after.
__device__ __forceinline__ void grid_barrier(u32 *arrived, u32 meeting) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (atomicAdd(arrived, 0u) < meeting * gridDim.x) __nanosleep(20);
    __threadfence();
  }
  __syncthreads();
}
