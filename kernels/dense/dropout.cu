// keep_mask: dropout's factor (B, H) from random words: 0 where the word lies below `threshold`, else `kept`.
// Writes 4 bytes a unit; one word a unit: bound by the words, 2.5 ps a unit on an H100 (philox.cuh).

#include "device.cuh"
#include "philox.cuh"

template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    keep_mask(u64 seed, u64 stream, u64 step, u32 threshold, C kept, C *mask, int B, int H) {
  const u32 blocks = (H + 7) / 8, i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * blocks) return;
  const u32 r = i / blocks, j = i % blocks;
  const Words words = philox({seed, stream, step}, u64(r) * blocks + j);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if (8 * j + k < u32(H)) mask[size_t(r) * H + 8 * j + k] = words[k] >= threshold ? kept : C(0);
  }
}
