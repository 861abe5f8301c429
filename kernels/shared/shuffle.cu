// shuffle_words: the words (passes, n) of 64 bits whose order is the order of the rows in passes first, first + 1, ...: rng.permutations.
// Writes 8 bytes a row, two random words of 32 bits: bound by the words, 5 ps a row on an H100 (philox.cuh).

#include "device.cuh"
#include "philox.cuh"

template <int THREADS>
__global__ void __launch_bounds__(THREADS, BLOCKS) shuffle_words(u64 seed, u64 stream, u64 first, u64 *words, int passes, int n) {
  const u32 blocks = (n + 3) / 4, i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(passes) * blocks) return;
  const u32 pass = i / blocks, j = i % blocks;
  const Words found = philox({seed, stream, first + pass}, j);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (4 * j + k < u32(n)) words[size_t(pass) * n + 4 * j + k] = found.w[k];
  }
}
