// Matrix products of narrow nets, which a captured graph may hold, as cuBLAS under CuPy may not: c = op(a) op(b), op
// the identity or the transpose.
//
// Tiles of 64 x 64 numbers of c, panels of 16 along the sum in shared memory, 256 threads with 4 x 4 numbers each: per
// step along the sum a thread reads 2 x 4 numbers from shared memory for 16 multiply-adds. That is one 16-byte load for
// 8 multiply-adds: bound by shared memory at half of an H100's 67 TFLOP/s. The sum over k runs in order, in one
// accumulator.

#include "device.cuh"

constexpr int TILE = 64, PANEL = 16, THREADS = 256;

// Row k of the panel of a matrix whose element (i, k) is x[i * along_i + k * along_k], for the tile's `i` from first
// on: zeros beyond the edges. Threads run along what is contiguous.
template <bool ALONG_K, typename C>
__device__ __forceinline__ void load(const C *x, int pitch, int first, int i_end, int k0, int k_end,
                                     C (&panel)[PANEL][TILE + 4]) {
#pragma unroll
  for (int e = threadIdx.x; e < TILE * PANEL; e += THREADS) {
    const int k = ALONG_K ? e % PANEL : e / TILE, i = ALONG_K ? e / PANEL : e % TILE;
    const bool inside = first + i < i_end && k0 + k < k_end;
    panel[k][i] = inside ? x[ALONG_K ? size_t(first + i) * pitch + k0 + k : size_t(k0 + k) * pitch + first + i] : C(0);
  }
}

// multiply<false, false>: c (M, N) = a (M, K) b (K, N). multiply<true, false>: a is (K, M). multiply<false, true>: b is
// (N, K). The sum over K is cut into as many parts as the grid is deep; part z goes to c + z * stride. pitch : numbers
// from one row of c to the next. 2 K operations a number of c: 2 K / 33 TFLOP/s.
template <bool TRANSPOSED_A, bool TRANSPOSED_B, typename C>
__global__ void __launch_bounds__(THREADS, 3)
    multiply(const C *a, const C *b, C *c, u64 stride, int pitch, int M, int N, int K) {
  __shared__ __align__(16) C as[PANEL][TILE + 4];
  __shared__ __align__(16) C bs[PANEL][TILE + 4];
  const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4, row = blockIdx.x * TILE, column = blockIdx.y * TILE;
  const Rows sum = part(K, blockIdx.z, gridDim.z);
  C acc[4][4] = {};
  for (int k0 = sum.lo; k0 < sum.hi; k0 += PANEL) {
    load<!TRANSPOSED_A>(a, TRANSPOSED_A ? M : K, row, M, k0, sum.hi, as);
    load<TRANSPOSED_B>(b, TRANSPOSED_B ? K : N, column, N, k0, sum.hi, bs);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < PANEL; ++k) {
      C left[4], right[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) left[i] = as[k][y + i], right[i] = bs[k][x + i];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) acc[i][j] = fma(left[i], right[j], acc[i][j]);
      }
    }
    __syncthreads();
  }
  c += blockIdx.z * stride;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (row + y + i < M && column + x + j < N) c[size_t(row + y + i) * pitch + column + x + j] = acc[i][j];
    }
  }
}
