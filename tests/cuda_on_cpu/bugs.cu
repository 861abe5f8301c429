// Planted bugs, for the test that each is found by the mode that should find it; and `clean`, in which nothing is to be
// found. Blocks of 64 threads, unless a comment says otherwise. x has one number for each thread of a block.

#ifndef CUDA_ON_CPU
#define DYN_SHARED(T, name)                              \
  extern __shared__ __align__(16) unsigned char room_[]; \
  T *name = reinterpret_cast<T *>(room_)
#endif

extern "C" __global__ void clean(float *x, unsigned *arrived) {
  DYN_SHARED(float, s);
  __shared__ float other[64];
  __shared__ float total;
  const int t = threadIdx.x;
  float *own = x + blockIdx.x * 64;
  s[t] = other[t] = own[t];
  __syncthreads();
  float v = s[63 - t] * 2 - other[63 - t];
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, d);
  if (t == 0) total = v, atomicAdd(arrived, 1u);
  __syncthreads();
  own[t] = total;
}

// Memory --------------------------------------------------------------------------------------------------------------

extern "C" __global__ void global_write(float *x) { x[threadIdx.x + 1] = 1; }
extern "C" __global__ void global_read(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
extern "C" __global__ void static_shared(float *x) {
  __shared__ float s[64];
  s[threadIdx.x + 1] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
template <int N>
__global__ void static_shared_of(float *x) {
  __shared__ float s[N];
  float *p = s;
  p[threadIdx.x + 1] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = p[threadIdx.x];
}
extern "C" __global__ void dynamic_shared(float *x) {
  DYN_SHARED(float, s);
  s[threadIdx.x + 1] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void local_array(float *x) {
  float a[4] = {};
  for (int i = 0; i <= int(threadIdx.x) % 5; ++i) a[i] = x[i];
  x[threadIdx.x] = a[threadIdx.x % 4];
}
extern "C" __global__ void misaligned(float *x) {
  x[threadIdx.x] = reinterpret_cast<const float4 *>(x + 1)[threadIdx.x % 2].y;
}
extern "C" __global__ void overflow(int *x, int n) { x[threadIdx.x] = int(threadIdx.x) * n; }
extern "C" __global__ void stack_overflow(float *x, int depth) {
  volatile float large[100000];
  large[threadIdx.x + depth] = x[threadIdx.x];
  x[threadIdx.x] = large[threadIdx.x];
}

// Not initialised -----------------------------------------------------------------------------------------------------

extern "C" __global__ void unwritten_static(float *x) {
  __shared__ float s[64];
  if (threadIdx.x < 63) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void unwritten_dynamic(float *x) {
  DYN_SHARED(float, s);
  if (threadIdx.x < 63) s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void unwritten_local(float *x) {
  float a[4];
  for (unsigned k = 0; k < 3; ++k) a[(threadIdx.x + k) % 4] = x[k];
  x[threadIdx.x] = a[(threadIdx.x + 3) % 4];
}

// Meetings ------------------------------------------------------------------------------------------------------------

extern "C" __global__ void divergent_barrier(float *x) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
    x[threadIdx.x] = 1;
  }
}
extern "C" __global__ void early_return(float *x, int n) {
  if (int(threadIdx.x) >= n) return;
  __syncthreads();
  x[threadIdx.x] = 1;
}
extern "C" __global__ void inactive_lane(float *x) {
  if (threadIdx.x % 32 < 16) x[threadIdx.x] = __shfl_down_sync(0xFFFFFFFFu, x[threadIdx.x], 8);
}
extern "C" __global__ void not_in_mask(float *x) { x[threadIdx.x] = __shfl_xor_sync(0x0000FFFFu, x[threadIdx.x], 1); }
extern "C" __global__ void beyond_mask(float *x) {
  if (threadIdx.x % 32 < 16) x[threadIdx.x] = __shfl_down_sync(0x0000FFFFu, x[threadIdx.x], 8);
}
extern "C" __global__ void other_site(float *x) {
  if (threadIdx.x % 32 < 16) {
    __syncwarp();
  } else {
    x[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, x[threadIdx.x], 1);
  }
}

// Races ---------------------------------------------------------------------------------------------------------------

extern "C" __global__ void read_after_write(float *x) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void write_after_read(float *x) {
  __shared__ float s[64];
  float sum = 0;
  for (int k = 1; k < 4; ++k) {
    s[threadIdx.x] = x[threadIdx.x] * k;
    __syncthreads();
    sum += s[63 - threadIdx.x];
  }
  x[threadIdx.x] = sum;
}
extern "C" __global__ void no_syncwarp(float *x) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x < 32) {
    for (int d = 32; d > 0; d /= 2) s[threadIdx.x] += s[threadIdx.x + d];
  }
  if (threadIdx.x == 0) x[0] = s[0];
}
extern "C" __global__ void within_a_block(float *x) { x[0] += threadIdx.x; }
extern "C" __global__ void between_blocks(float *x) {
  if (threadIdx.x == 0) x[0] += 1;
}
extern "C" __global__ void block_fence_only(float *x, unsigned *flag) {  // 2 blocks: the second waits for the first
  if (threadIdx.x) return;
  if (blockIdx.x == 0) {
    x[0] = 1;
    __threadfence_block();
    atomicExch(flag, 1u);
  } else {
    while (atomicAdd(flag, 0u) == 0) __nanosleep(20);
    __threadfence_block();
    x[1] = x[0];
  }
}

// A barrier for the whole grid, of a cooperative launch: each block writes a number, all read all. The target is
// `missing` too small.
template <bool FIRST_FENCE, bool SECOND_FENCE>
__global__ void grid_barrier(float *x, float *y, unsigned *arrived, unsigned missing) {
  for (unsigned meeting = 1; meeting < 4; ++meeting) {
    if (threadIdx.x == 0) x[blockIdx.x] = meeting * (blockIdx.x + 1);
    __syncthreads();
    if (threadIdx.x == 0) {
      if (FIRST_FENCE) __threadfence();
      atomicAdd(arrived, 1u);
      while (atomicAdd(arrived, 0u) < (2 * meeting - 1) * gridDim.x - missing) __nanosleep(20);
      if (SECOND_FENCE) __threadfence();
    }
    __syncthreads();
    float sum = 0;
    for (unsigned k = 0; k < gridDim.x; ++k) sum += x[k];
    y[blockIdx.x * blockDim.x + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicAdd(arrived, 1u);
      while (atomicAdd(arrived, 0u) < 2 * meeting * gridDim.x) __nanosleep(20);
      __threadfence();
    }
    __syncthreads();
  }
}
extern "C" __global__ void spin(unsigned *flag) {
  while (atomicAdd(flag, 0u) == 0) {
  }
}
