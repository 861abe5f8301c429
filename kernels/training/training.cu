// What a training does around its five lines: the order of the rows, the steps t of a batch, the mean of its losses.
//
// `clock` is (step, count) on the device: what a captured graph cannot be told from outside. Bounds are for an H100:
// 3.35 TB/s, some 7e11 random words a second (philox.cuh).

#include "device.cuh"
#include "philox.cuh"

// shuffle_words: the words (passes, n) of 64 bits whose order is the order of the rows in passes first, first + 1, ...:
// rng.permutations. Writes 8 bytes a row, 2.4 ps; two random words of 32 bits: bound by the words, 2.9 ps a row.
template <int THREADS>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    shuffle_words(u64 seed, u64 stream, u64 first, u64 *words, int passes, int n) {
  const u32 blocks = (n + 1) / 2, i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(passes) * blocks) return;
  const u32 pass = i / blocks, j = i % blocks;
  const Words block = philox({seed, stream, first + pass}, j);
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    if (2 * j + k < u32(n)) words[size_t(pass) * n + 2 * j + k] = u64(block[2 * k + 1]) << 32 | block[2 * k];
  }
}

// draw_t: t (B,) of a training batch, spread over 1..T by one offset: t_r = 1 + floor((r T + offset) / B).
// Writes 8 bytes a row: bound by bytes, 2.4 ps a row; one Philox block for each block of threads.
template <int THREADS>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    draw_t(u64 seed, u64 stream, const u64 *clock, long long *t, int B, int T) {
  __shared__ u64 offset;
  if (threadIdx.x == 0) offset = time_offset({seed, stream, clock[0]}, T);
  __syncthreads();
  const u32 r = blockIdx.x * THREADS + threadIdx.x;
  if (r < u32(B)) t[r] = stratified_t(r, offset, B, T);
}

// finish: what is left of a captured step. losses[clock[1]] = the mean of kl (B,) in nats, where it is logged, summed
// in one order; then it is the next step's turn. One block. Reads 4 bytes a row, 1 operation: bound not by bytes but by
// how few loads one block has under way, some 1 us for 1000 rows.
template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS) finish(const C *kl, const u8 *logged, u64 *clock, C *losses, int B) {
  __shared__ C room[THREADS / WARP];
  const u64 now = clock[1];
  C total = 0;
  for (int r = threadIdx.x; logged[now] && r < B; r += THREADS) total += kl[r];
  total = block_sum<THREADS>(total, room);
  if (threadIdx.x) return;
  if (logged[now]) losses[now] = total / B;
  ++clock[0];
  ++clock[1];
}
