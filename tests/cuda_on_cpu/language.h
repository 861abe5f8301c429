// The words of CUDA C++ that g++ does not know. Included last: some of them are words of the C++ library's own headers.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

// A block's own memory.
#ifdef CUDA_ON_CPU_SHARED_BY_THREAD
#define __shared__ static thread_local
#else
#define __shared__ static
#endif
