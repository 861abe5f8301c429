// Kernels that tell what CUDA on the CPU gives them, for its own tests.

#ifndef CUDA_ON_CPU
#define DYN_SHARED(T, name)                              \
  extern __shared__ __align__(16) unsigned char room_[]; \
  T *name = reinterpret_cast<T *>(room_)
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

__constant__ int primes[4] = {2, 3, 5, 7};
__device__ int launches = 0;

// Places and turns ----------------------------------------------------------------------------------------------------

// out (blocks, threads, 6): the places of block and thread, z first.
extern "C" __global__ void __launch_bounds__(1024) places(int *out) {
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  int *own = out + 6 * (block * int(blockDim.x * blockDim.y * blockDim.z) + thread);
  own[0] = blockIdx.z, own[1] = blockIdx.y, own[2] = blockIdx.x, own[3] = threadIdx.z, own[4] = threadIdx.y,
  own[5] = threadIdx.x;
}

// out (2, threads of the grid): when each thread had its turn, before and after a barrier.
extern "C" __global__ void turns(u32 *counter, u32 *out) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = atomicAdd(counter, 1u);
  __syncthreads();
  out[gridDim.x * blockDim.x + i] = atomicAdd(counter, 1u);
}

extern "C" __global__ void count_launches(int *out) {
  if (threadIdx.x == 0) out[0] = ++launches, out[1] = primes[2];
}

// Meetings ------------------------------------------------------------------------------------------------------------

// out (3, threads)
extern "C" __global__ void votes(const int *x, int *out) {
  const int n = blockDim.x, t = threadIdx.x;
  out[t] = __syncthreads_count(x[t]);
  out[n + t] = __syncthreads_and(x[t]);
  out[2 * n + t] = __syncthreads_or(x[t]);
}

// out (4, threads): what each lane gets by `by`
template <typename T>
__global__ void shuffles(const T *x, const int *by, T *out, int width) {
  const int n = blockDim.x, t = threadIdx.x;
  out[t] = __shfl_sync(0xFFFFFFFFu, x[t], by[t], width);
  out[n + t] = __shfl_up_sync(0xFFFFFFFFu, x[t], by[0], width);
  out[2 * n + t] = __shfl_down_sync(0xFFFFFFFFu, x[t], by[0], width);
  out[3 * n + t] = __shfl_xor_sync(0xFFFFFFFFu, x[t], by[0], width);
}

// out (3, threads); the lanes that the mask does not name take no part
extern "C" __global__ void ballots(const int *x, u32 mask, u32 *out) {
  const int n = blockDim.x, t = threadIdx.x;
  if (!(mask >> t % 32 & 1)) return;
  out[t] = __ballot_sync(mask, x[t]);
  out[n + t] = __any_sync(mask, x[t]);
  out[2 * n + t] = __all_sync(mask, x[t]);
}

// Halves of a warp meet on their own; then all of it.
extern "C" __global__ void halves(int *x) {
  const int t = threadIdx.x;
  const u32 own = t % 32 < 16 ? 0x0000FFFFu : 0xFFFF0000u;
  if (t % 32 < 16) {
    for (int d = 8; d > 0; d /= 2) x[t] += __shfl_xor_sync(own, x[t], d);
  } else {
    for (int d = 8; d > 0; d /= 2) x[t] = max(x[t], __shfl_xor_sync(own, x[t], d));
  }
  __syncwarp();
  x[t] -= __shfl_xor_sync(0xFFFFFFFFu, x[t], 16);
}

// A sum by shared memory, static and dynamic, in one thread's order.
template <int N>
__global__ void block_sums(const float *x, float *out) {
  __shared__ float s[N];
  DYN_SHARED(float, d);
  s[threadIdx.x] = d[threadIdx.x] = x[blockIdx.x * N + threadIdx.x];
  __syncthreads();
  if (threadIdx.x == N - 1) {
    float sum = 0;
    for (int k = 0; k < N; ++k) sum += s[k] + d[k];
    out[blockIdx.x] = sum;
  }
}

// Functions -----------------------------------------------------------------------------------------------------------

// out (n, 16)
extern "C" __global__ void whole_numbers(const u64 *x, const u64 *y, u64 *out, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  const u64 a = x[i], b = y[i];
  u64 *o = out + 16 * i;
  o[0] = __popc(u32(a)), o[1] = __popcll(a), o[2] = __clz(int(a)), o[3] = __clzll((long long)a), o[4] = __ffs(int(a)),
  o[5] = __brev(u32(a));
  o[6] = __umulhi(u32(a), u32(b)), o[7] = u32(__mulhi(int(a), int(b))), o[8] = __umul64hi(a, b),
  o[9] = u64(__mul64hi((long long)a, (long long)b));
  o[10] = __funnelshift_l(u32(a), u32(b), 5), o[11] = __funnelshift_r(u32(a), u32(b), 37),
  o[12] = __byte_perm(u32(a), u32(b), 0x7041);
  o[13] = min(u32(a), u32(b)), o[14] = max(a, b), o[15] = u64(max(1, 2u));
}

// out (n, 16)
extern "C" __global__ void floats(const float *x, const float *y, float *out, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  const float a = x[i], b = y[i];
  float *o = out + 16 * i;
  o[0] = fmaf(a, b, 0.1f), o[1] = __fmaf_rn(a, b, 0.1f), o[2] = __fadd_rn(a, b), o[3] = __fmul_rn(a, b),
  o[4] = __fdividef(a, b), o[5] = __frcp_rn(a);
  o[6] = __saturatef(a), o[7] = rsqrtf(a), o[8] = __expf(a), o[9] = __logf(a), o[10] = log1pf(a), o[11] = tanhf(a);
  o[12] = __uint_as_float(__float_as_uint(a)), o[13] = min(a, __int_as_float(0x7FC00000)), o[14] = max(a, b),
  o[15] = sqrt(a) + exp(b) + __ldg(x + i);
}

extern "C" __global__ void halve(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x] * 0.5f; }

// Memory --------------------------------------------------------------------------------------------------------------

// memory (10,): each changed by another operation with the thread's number; signed_memory (2,)
extern "C" __global__ void atomics(u32 *memory, int *signed_memory, u64 *large) {
  const u32 t = threadIdx.x;
  atomicAdd(&memory[0], 2), atomicSub(&memory[1], 1u), atomicMin(&memory[2], t), atomicMax(&memory[3], t);
  atomicOr(&memory[4], 1u << t % 32), atomicAnd(&memory[5], ~(1u << t % 32)), atomicXor(&memory[6], t),
      atomicExch(&memory[7], 9u);
  atomicInc(&memory[8], 6u), atomicCAS(&memory[9], t, t + 1);
  atomicMin(&signed_memory[0], -int(t)), atomicAdd(&signed_memory[1], -1), atomicAdd(large, u64(1) << 40);
}

extern "C" __global__ void reverse_fours(const float *x, float *y, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  const float4 v = __ldg(reinterpret_cast<const float4 *>(x) + i);
  reinterpret_cast<float4 *>(y)[n - 1 - i] = make_float4(v.w, v.z, v.y, v.x);
}

// Every type that a parameter may have.
extern "C" __global__ void parameters(float *f, const double *d, unsigned char *B, const signed char *b, int *i, u32 *I,
                                      long long *q, u64 *Q, bool *o, float f1, double d1, unsigned char B1,
                                      signed char b1, int i1, u32 I1, long long q1, u64 Q1, bool o1) {
  f[0] = f1 + float(d[0]), B[0] = B1 + b[0], i[0] = i1 + b1, I[0] = I1, q[0] = q1 + (long long)d1, Q[0] = Q1, o[0] = o1;
}

struct Mixed {
  u32 *out;
  unsigned char small;
  double wide;
  int n;
};

extern "C" __global__ void by_value(const Mixed a, int k, Mixed b) {
  a.out[k] = a.small + u32(a.wide) + a.n;
  b.out[k + 1] = b.small + u32(b.wide) + b.n;
}

extern "C" __global__ void unwritten(float *out) {
  DYN_SHARED(float, s);
  out[threadIdx.x] = s[threadIdx.x];
}
