// keep_mask: dropout's factor (B, H) from random words: 0 where the word lies below `threshold`, else `kept`.
// Writes 4 bytes a unit, 1.2 ps; one draw a unit, .83 ps on an H100 (philox.cuh): bound by bytes.

#include "device.cuh"
#include "philox.cuh"

template <int THREADS, typename C>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    keep_mask(u64 seed, u64 stream, u64 step, u32 threshold, C kept, C *mask, int B, int H) {
  const u32 parts = (H + 15) / 16, i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= u32(B) * parts) return;
  const u32 r = i / parts, j = i % parts;
  const u32 drops = draw_below({seed, stream, step}, r, j, H, [&](int) { return u64(threshold); });
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    if (16 * j + k < u32(H)) mask[size_t(r) * H + 16 * j + k] = drops >> k & 1 ? C(0) : kept;
  }
}
